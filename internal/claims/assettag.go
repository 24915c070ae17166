package claims

// TagState says how a worker stands to the asset tag that AIAS issued for its TPM. The zero value claims nothing.
type TagState string

// The states of an asset tag.
const (
	TagNone        TagState = ""            // none was issued, and none is shown
	TagProven      TagState = "proven"      // the TPM certifies the newest one
	TagNotTold     TagState = "not-told"    // issued after the challenge that the Evidence answers
	TagAbsent      TagState = "absent"      // the TPM certifies none; there is still time to write it
	TagOverdue     TagState = "overdue"     // the same, and the time is over
	TagUncertified TagState = "uncertified" // a certificate that does not hold: another key, nonce or index
	TagIndex       TagState = "index"       // certified, of an index with other attributes
	TagForged      TagState = "forged"      // certified content that this AIAS did not sign
	TagCopied      TagState = "copied"      // a tag that was issued for another TPM or another node
	TagOld         TagState = "rolled-back" // an older tag of this TPM
	TagAhead       TagState = "ahead"       // signed by this AIAS for this TPM, and unknown to it: its database was put back
	TagShown       TagState = "shown"       // certified, and nobody here knows what was issued
)

// AssetTag is what is known of the asset tag in the worker's TPM.
type AssetTag struct {
	State TagState
	Tags  map[string]string // that count; nil when none do
	// Expected and Observed say in one line each what the TPM should hold and what it does.
	Expected string
	Observed string
}
