package evidence

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
)

// MaxStatement is the largest Statement, in bytes.
const MaxStatement = 8 << 10

// Statement is what the agent says beside the logs and has the TPM sign with them: where its own records stand. It is as true as the agent
// is; what it cannot do is to say one thing now and another one later.
type Statement struct {
	Audit *AuditStatement `cbor:"1,keyasint,omitempty"`
	// Compliance are the SHA-256 of scan results of this host that its AIAS may have as the newest, under names of the agent's own.
	Compliance map[string][]byte `cbor:"2,keyasint,omitempty"`
}

// AuditStatement says where the audit chain of a worker stands (package chain), and what its kernel says of auditing.
type AuditStatement struct {
	Chain       []byte `cbor:"1,keyasint"` // ID, 16 bytes
	Seq         uint64 `cbor:"2,keyasint"`
	Head        []byte `cbor:"3,keyasint"`           // after entry Seq
	BootID      string `cbor:"4,keyasint,omitempty"` // /proc/sys/kernel/random/boot_id
	RulesDigest []byte `cbor:"5,keyasint,omitempty"`
	Enabled     uint32 `cbor:"6,keyasint,omitempty"` // 0 off, 1 on, 2 on until the next boot
	PID         uint32 `cbor:"7,keyasint,omitempty"` // of auditd; 0 none
	Lost        uint64 `cbor:"8,keyasint,omitempty"` // records that the kernel lost since boot
	Missing     uint64 `cbor:"9,keyasint,omitempty"`
	Drift       string `cbor:"10,keyasint,omitempty"` // how the loaded rules differ from the intended ones
	Problem     string `cbor:"11,keyasint,omitempty"` // why auditing cannot be watched
}

// maxStatementText bounds each text of a statement, in bytes.
const maxStatementText = 1 << 10

const statementLabel = "touchstone statement 1"

// EncodeStatement writes a statement in its one form. Errors wrap ErrLimit.
func EncodeStatement(s *Statement) ([]byte, error) {
	if err := s.check(); err != nil {
		return nil, err
	}
	b, err := encoder.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("encode statement: %w", err)
	}
	if len(b) > MaxStatement {
		return nil, fmt.Errorf("%w: statement of %d bytes, at most %d", ErrLimit, len(b), MaxStatement)
	}
	return b, nil
}

// DecodeStatement reads a statement. Errors wrap ErrDocument or ErrLimit.
func DecodeStatement(b []byte) (*Statement, error) {
	if len(b) > MaxStatement {
		return nil, fmt.Errorf("%w: statement of %d bytes, at most %d", ErrLimit, len(b), MaxStatement)
	}
	s := new(Statement)
	if err := decoder.Unmarshal(b, s); err != nil {
		return nil, fmt.Errorf("%w: statement: %w", ErrDocument, err)
	}
	same := comparer{rest: b}
	if err := encoder.NewEncoder(&same).Encode(s); err != nil || len(same.rest) > 0 {
		return nil, fmt.Errorf("%w: statement: CBOR is not in its deterministic form (RFC 8949, 4.2)", ErrDocument)
	}
	return s, s.check()
}

func (s *Statement) check() error {
	var c checks
	if a := s.Audit; a != nil {
		if len(a.Chain) != 16 || len(a.Head) != sha256.Size {
			c.fail("statement: the audit chain has an ID of %d bytes and a head of %d", len(a.Chain), len(a.Head))
		}
		c.most("statement: digest of the rules", len(a.RulesDigest), sha256.Size)
		for _, text := range []string{a.BootID, a.Drift, a.Problem} {
			c.most("statement: text", len(text), maxStatementText)
			c.printable("statement: text", text)
		}
	}
	for name, digest := range s.Compliance {
		c.between("statement: profile", len(name), MaxName)
		c.printable("statement: profile", name)
		if len(digest) != sha256.Size {
			c.fail("statement: result of %s has a digest of %d bytes", name, len(digest))
		}
	}
	return c.err
}

// Qualify returns the qualifying data that the quotes of a document carry: its nonce, or the nonce bound to a statement. So the statement
// costs no signature of its own, and is of the same moment as the quotes.
func Qualify(nonce, statement []byte) []byte {
	if len(statement) == 0 {
		return nonce
	}
	h := sha256.New()
	h.Write([]byte(statementLabel))
	h.Write([]byte{byte(len(nonce) >> 8), byte(len(nonce))})
	h.Write(nonce)
	h.Write(statement)
	return h.Sum(nil)
}

// StatementView is a statement as people read it.
type StatementView struct {
	Audit      *AuditView        `json:"audit,omitempty"`
	Compliance map[string]string `json:"compliance,omitempty"`
	Problem    string            `json:"problem,omitempty"`
}

// AuditView is where an audit chain stands, as people read it.
type AuditView struct {
	Chain       string `json:"chain"` // hexadecimal, as all bytes here
	Seq         uint64 `json:"seq"`
	Head        string `json:"head"`
	BootID      string `json:"bootID,omitempty"`
	RulesDigest string `json:"rulesDigest,omitempty"`
	Enabled     uint32 `json:"enabled"`
	PID         uint32 `json:"pid"`
	Lost        uint64 `json:"lost"`
	Missing     uint64 `json:"missing,omitempty"`
	Drift       string `json:"drift,omitempty"`
	Problem     string `json:"problem,omitempty"`
}

func viewStatement(b []byte) *StatementView {
	s, err := DecodeStatement(b)
	if err != nil {
		return &StatementView{Problem: err.Error()}
	}
	v := &StatementView{}
	if a := s.Audit; a != nil {
		v.Audit = &AuditView{Chain: hex.EncodeToString(a.Chain), Seq: a.Seq, Head: hex.EncodeToString(a.Head), BootID: a.BootID, RulesDigest: hex.EncodeToString(a.RulesDigest),
			Enabled: a.Enabled, PID: a.PID, Lost: a.Lost, Missing: a.Missing, Drift: a.Drift, Problem: a.Problem}
	}
	for name, digest := range s.Compliance {
		if v.Compliance == nil {
			v.Compliance = map[string]string{}
		}
		v.Compliance[name] = hex.EncodeToString(digest)
	}
	return v
}
