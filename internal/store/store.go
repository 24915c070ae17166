// Package store keeps what AIAS must not forget: nodes, verdicts, Evidence, history, tokens, keys and acts of operators.
//
// Store is the contract; Open gives the embedded form of it, SQLite in WAL mode with synchronous=FULL: a write that returned is on
// disk, also after a power cut. What that costs is shared: one writer gathers the writes of many requests into one transaction and
// one fsync, and each write returns only when its transaction is committed. A crash at any point leaves the state before
// or after a write, never half of one.
//
// Private keys never reach the database in plain: callers wrap what they pass to PutSettings.
package store

import (
	"context"
	"errors"
	"time"
)

// Reasons why a write was refused. A refused write changed nothing.
var (
	ErrNotFound  = errors.New("not found")
	ErrUsed      = errors.New("already used")                                  // challenge or enrolment session
	ErrToken     = errors.New("join token is unknown, used up or has expired") // or not for this node or EK
	ErrNameTaken = errors.New("node name belongs to another TPM")
	ErrTPMTaken  = errors.New("TPM is enrolled under another node name")
	ErrSerial    = errors.New("asset tags with a newer serial exist")
)

// Node is an enrolled node: who it is.
type Node struct {
	ID         int64
	Name       string
	EK         [32]byte // SHA-256 of the SubjectPublicKeyInfo of the EK
	EKCert     string   // how the TPM was recognised
	Software   bool     // only softwareTPMRoots vouch for the EK
	AKPublic   []byte   // TPMT_PUBLIC
	TLSKey     [32]byte // SHA-256 of the SubjectPublicKeyInfo of the client certificate's key
	Agent      string
	Enrolled   time.Time
	RebindEK   []byte    // with RebindUntil: only this EK may take the name; nil means any
	RebindTill time.Time // until when another TPM may take the name; zero means never
	State      State
}

// State is where a node stands: what changes with each attestation.
type State struct {
	Watermark  int64 // issue time of the newest challenge used
	Trust      string
	Reason     string
	Levels     []byte // JSON of protocol.LevelInfo
	Since      time.Time
	Attested   time.Time
	Expires    time.Time
	Checkpoint []byte
	Snapshot   string
	Result     string // signed
	List       int64  // IMA list that the node's present boot continues
	Bad        bool   // the last Evidence was judged not trusted
}

// Kind says which Evidence of a node.
type Kind int

// The Evidence that is kept of a node.
const (
	LastGood Kind = iota
	FirstBad
	LastBad
	numKinds
)

// Evidence is a kept Evidence document without its logs; those are found by digest, list and length.
type Evidence struct {
	Kind     Kind
	At       time.Time
	Document []byte // encoded, without event log, facts and IMA list
	EventLog []byte // SHA-256, nil when there was none
	Facts    []byte // digest, nil when there were none
	List     int64  // IMA list, with the next field
	IMALen   uint64 // bytes of that list that belong to this Evidence
	IMATail  []byte // bytes after them that were not verified
}

// Blob is a log that many nodes may share.
type Blob struct {
	Digest []byte
	Data   []byte
}

// Change is an entry of the history.
type Change struct {
	ID       int64
	Node     string
	At       time.Time
	Cause    string
	From, To string
	Reason   string
	Levels   []byte // JSON
	Snapshot string
}

// Update is one step of one node, written as a whole or not at all.
type Update struct {
	Node  int64
	State State
	// Challenge, when not 0, is the issue time of the challenge that was answered: the write is refused with ErrUsed unless it
	// is greater than the watermark in the store.
	Challenge int64
	Verdict   []byte // JSON; nil when it did not change
	Evidence  []Evidence
	Blobs     []Blob
	// IMA continues list State.List at byte IMAOffset; an offset of 0 starts the list.
	IMA       []byte
	IMAOffset uint64
	Change    *Change // nil when nothing changed
	Tag       *Tag    // nil when the asset tags did not change
	Act       *Act    // of the operator whose doing the step is; nil for all others
	// Revoke, when not zero, takes away the scans of images that came from the node since then.
	Revoke time.Time
}

// Tag is what is known of the asset tags of a node name. It outlives the node: serials only count up.
type Tag struct {
	Node        string
	Serial      uint64
	Tags        []byte // JSON object of strings; nil when there are none (any more)
	Record      []byte // signed, for the node's TPM; nil when there are none
	Issued      time.Time
	Proven      bool      // the TPM has certified Record
	Since       time.Time // when that began to be so, or not to be so
	Reason      string    // why it is not
	Earlier     []byte    // record that was proven last before this one; nil when there is none
	EarlierTags []byte    // JSON: what of it still holds
}

// Enrolment puts a node into the store, or its new keys when the same TPM enrols again.
type Enrolment struct {
	Node    Node
	Token   string // id of the join token to use up; empty when the node's own certificate stood for it
	Session []byte // id of the enrolment session
	Until   time.Time
	Now     time.Time
	Levels  []byte
}

// Token is a join token; Hash is the SHA-256 of its secret.
type Token struct {
	ID      string
	Hash    []byte
	Node    string
	EK      []byte
	Left    int
	Created time.Time
	Expires time.Time
	Note    string
}

// EK is an entry of the allow-list.
type EK struct {
	Hash  [32]byte
	Note  string
	Added time.Time
}

// Act is one thing an operator did.
type Act struct {
	ID       int64
	At       time.Time
	Operator string
	Act      string
	Object   string
	Detail   string
}

// Store is what AIAS needs of a database. All methods are safe for concurrent use.
type Store interface {
	Close() error
	Ping(ctx context.Context) error

	Setting(ctx context.Context, key string) ([]byte, error) // ErrNotFound
	// PutSettings writes values (nil: removes them), and the act of the operator who changed them when act is not nil.
	PutSettings(ctx context.Context, values map[string][]byte, act *Act) error

	Nodes(ctx context.Context) ([]Node, error)
	// Enrol checks token, session and binding and writes the node in one transaction. It returns the node with its ID, the state it
	// had before when it was enrolled already, and the change it made to the history, nil when the node went on as it was.
	Enrol(ctx context.Context, e Enrolment) (Node, *Change, error)
	Delete(ctx context.Context, node int64, c *Change, act Act) error
	Rebind(ctx context.Context, node int64, ek []byte, until time.Time, act Act) error
	// Save writes a step; it returns the ID of its change, 0 when there is none.
	Save(ctx context.Context, u *Update) (int64, error)

	Verdict(ctx context.Context, node int64) ([]byte, error)
	Result(ctx context.Context, node int64) (string, error)
	Evidence(ctx context.Context, node int64, k Kind) (*Evidence, error)
	IMA(ctx context.Context, node, list int64, length uint64) ([]byte, error)
	Blob(ctx context.Context, digest []byte) ([]byte, error)

	// History returns changes, newest first, of one node or of all (""), below an ID (0: from the newest).
	History(ctx context.Context, node string, limit int, before int64) ([]Change, error)
	// HistoryAfter returns changes after an ID, oldest first.
	HistoryAfter(ctx context.Context, after int64, limit int) ([]Change, error)

	Tags(ctx context.Context) ([]Tag, error)
	Tag(ctx context.Context, node string) (*Tag, error) // ErrNotFound

	PutToken(ctx context.Context, t Token, act Act) error
	Token(ctx context.Context, id string) (*Token, error)
	Tokens(ctx context.Context) ([]Token, error)
	DeleteToken(ctx context.Context, id string, act Act) error

	PutEK(ctx context.Context, ek EK, act Act) error
	EKs(ctx context.Context) ([]EK, error)
	DeleteEK(ctx context.Context, hash [32]byte, act Act) error

	ImageKeys(ctx context.Context) ([]ImageKey, error)
	ImageKey(ctx context.Context, id string) (*ImageKey, error) // ErrNotFound
	AddImageKey(ctx context.Context, k ImageKey, act Act) error // ErrUsed when there is one of that ID
	SetImageKey(ctx context.Context, k ImageKey, act Act) error // class, conditions and revocation; ErrNotFound
	Classes(ctx context.Context) ([]Class, error)
	Class(ctx context.Context, name string) (*Class, error)
	PutClass(ctx context.Context, c Class, act Act) error
	DeleteClass(ctx context.Context, name string, act Act) error
	ImageScans(ctx context.Context, digest string, limit int) ([]ImageScan, error)
	PutImageScan(ctx context.Context, i ImageScan, most int, act Act) error // ErrUsed when there is a newer one
	WorkerScans(ctx context.Context, digest string, limit int) ([]WorkerScan, error)
	PutWorkerScan(ctx context.Context, w WorkerScan, most int) error // ErrUsed when there is a newer one
	DiskKeys(ctx context.Context) ([]DiskKey, error)
	DiskNodes(ctx context.Context) (map[string][]byte, error)
	DiskUses(ctx context.Context) ([]DiskUse, error)
	SaveDisk(ctx context.Context, d *DiskStep) error
	Escrows(ctx context.Context) ([]Escrow, error)
	Escrow(ctx context.Context, node, volume string) (*Escrow, error) // ErrNotFound
	PutEscrow(ctx context.Context, e Escrow, act Act) error
	SetEscrow(ctx context.Context, e Escrow, act Act) error // ErrNotFound
	DeleteEscrow(ctx context.Context, node, volume string, act Act) error

	Detections(ctx context.Context) ([]Detection, error)
	DetectionsSeen(ctx context.Context) (map[int64]Seen, error)
	SaveDetections(ctx context.Context, s *DetectionStep) error
	Compliances(ctx context.Context) ([]Compliance, error)
	Compliance(ctx context.Context, node int64) (*Compliance, error) // ErrNotFound
	PutScan(ctx context.Context, node int64, record, result []byte) error
	PutScanError(ctx context.Context, node int64, record []byte) error
	ScanAsks(ctx context.Context) ([]ScanAsk, error)
	PutScanAsk(ctx context.Context, a ScanAsk) error
	DropScanAsk(ctx context.Context, node, upTo int64) error

	Acts(ctx context.Context, limit int) ([]Act, error)
	// ActsAfter returns acts after an ID, oldest first.
	ActsAfter(ctx context.Context, after int64, limit int) ([]Act, error)

	// Snapshot writes a copy of the database as it is at one moment.
	Snapshot(ctx context.Context, path string) error

	// SealedAfter and Reseal go through all secrets, when the key-encryption key changes.
	SealedAfter(ctx context.Context, place, key string, limit int) ([]Sealed, error)
	Reseal(ctx context.Context, old []Sealed, data [][]byte) (changed int, err error)
	// Clean removes what nothing refers to any more: logs, old sessions and tokens.
	Clean(ctx context.Context, now time.Time) error
}
