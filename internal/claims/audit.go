package claims

// AuditState says how the audit chain that a worker signed stands to the one that AIAS has. The zero value claims nothing.
type AuditState string

// The states of an audit chain.
const (
	AuditNone       AuditState = ""            // none was stated, and none ever was
	AuditEqual      AuditState = "equal"       // AIAS has all that was signed, and the heads agree
	AuditBehind     AuditState = "behind"      // entries are on their way; there is still time
	AuditOverdue    AuditState = "overdue"     // the same, and the time is over
	AuditForked     AuditState = "forked"      // AIAS has another entry than the one that was signed: the past was rewritten
	AuditRolledBack AuditState = "rolled-back" // less was signed than before: the end was cut off
	AuditRestarted  AuditState = "restarted"   // a new chain, and nobody said that it may begin
	AuditHole       AuditState = "hole"        // entries never came, and the worker does not have them any more
	AuditBooted     AuditState = "booted"      // a boot was told of that the TPM knows nothing of
	AuditReset      AuditState = "tpm-reset"   // the TPM was reset beneath a system that went on
	AuditSilent     AuditState = "silent"      // nothing was added for too long
	AuditStopped    AuditState = "stopped"     // stated before, and no more
	AuditShown      AuditState = "shown"       // stated, and nobody here has the chain
)

// Audit is what is known of auditing on a worker.
type Audit struct {
	State AuditState
	// Expected and Observed say in one line each what AIAS has and what was signed.
	Expected string
	Observed string
	// The rest is what the agent said in the signed statement.
	Stated  bool
	Enabled uint32 // 0 off, 1 on, 2 on until the next boot
	PID     uint32 // of auditd; 0: none
	Lost    uint64 // records that the kernel lost since boot
	// NewLost are those among them that were lost lately, and Gaps the named gaps in the chain lately.
	NewLost     uint64
	Gaps        uint64
	RulesDigest string // hexadecimal
	Drift       string // how the loaded rules differ from the intended ones
	Problem     string // why auditing cannot be watched
}
