package authority

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fxamacker/cbor/v2"
	"golang.org/x/time/rate"

	"touchstone.dev/touchstone/internal/appraisal"
	"touchstone.dev/touchstone/internal/claims"
	"touchstone.dev/touchstone/internal/nbde"
	"touchstone.dev/touchstone/internal/protocol"
	"touchstone.dev/touchstone/internal/result"
	"touchstone.dev/touchstone/internal/store"
	"touchstone.dev/touchstone/internal/tpm"
	"touchstone.dev/touchstone/internal/verifier"
)

// node is an enrolled node in memory: what a steady attestation needs without asking the store. The whole verdict, results and
// logs stay in the store.
type node struct {
	// work is held over one step (attestation, expiry, judging again, removal): steps of a node never overlap. Whoever holds it may
	// read all fields; writing them needs mu as well, so that others can look at any time.
	work chan struct{}
	mu   sync.RWMutex

	id         int64
	name       string
	ek         [32]byte
	ekCert     string
	software   bool
	ak         *tpm.Public
	akName     string
	tlsKey     [32]byte
	agent      string
	enrolled   time.Time
	rebindTill time.Time
	gone       bool // removed, or its name went to another TPM

	watermark  int64
	trust      string
	reason     string
	levels     []protocol.LevelInfo
	since      time.Time
	attested   time.Time
	expires    time.Time
	checkpoint *verifier.Checkpoint
	snapshot   string
	list       int64
	bad        bool
	machine    result.Machine // as its facts say
	// machineFacts is the digest of those facts; nil when it is not known.
	machineFacts []byte
	verdict      *appraisal.Verdict // the one in the store; nil after a restart. Shared with other nodes.
	tag          *tag               // nil when the node never had asset tags
	tags         map[string]string  // that count in its result
	boot         nbde.Attestation   // the newest of this process
	inventory    atomic.Pointer[inventory]
	news         chan struct{} // closed when there are new tags; nil while nobody waits

	posture  posture // unknown until it was judged by this process
	watch    *watch  // what its audit events show
	catching sync.Mutex
	headed   headed // of detectionLoop only
	caught   bool   // events that were in the archive before this process began were looked at

	limit   *rate.Limiter
	changes *rate.Limiter // of the verdict, but for its falls
	bodies  atomic.Int32  // Evidence that is being received (nodeBodies)
	waits   atomic.Int32  // requests for news (nodeWaits)
	// compliance is the newest compliance scan, nil when there is none; scanAsk one that an operator waits for.
	compliance atomic.Pointer[claims.Compliance]
	scanAsk    atomic.Pointer[scanAsk]
}

// How often the verdict on a node may change, in the long run and at once. Its falls are not counted.
const (
	changeEvery = 10 * time.Second
	changeBurst = 100
)

// newNode brings a node of the store into memory.
func (a *Authority) newNode(s store.Node) (*node, error) {
	ak, err := tpm.ParsePublic(s.AKPublic)
	if err != nil {
		return nil, fmt.Errorf("node %s: attestation key: %w", s.Name, err)
	}
	n := &node{
		work: make(chan struct{}, 1), watch: newWatch(), id: s.ID, name: s.Name, ek: s.EK, ekCert: s.EKCert, software: s.Software,
		ak: ak, akName: hex.EncodeToString(ak.Name()), tlsKey: s.TLSKey, agent: s.Agent, enrolled: s.Enrolled, rebindTill: s.RebindTill,
		watermark: s.State.Watermark, trust: s.State.Trust, reason: s.State.Reason, since: s.State.Since,
		attested: s.State.Attested, expires: s.State.Expires, snapshot: s.State.Snapshot, list: s.State.List, bad: s.State.Bad,
		limit: rate.NewLimiter(rate.Limit(a.cfg.Limits.PerNode), a.cfg.Limits.PerNodeBurst), changes: rate.NewLimiter(rate.Every(changeEvery), changeBurst),
	}
	if len(s.State.Levels) > 0 {
		if err := json.Unmarshal(s.State.Levels, &n.levels); err != nil {
			return nil, fmt.Errorf("node %s: levels: %w", s.Name, err)
		}
	}
	if len(s.State.Checkpoint) > 0 {
		c := &verifier.Checkpoint{}
		if err := cbor.Unmarshal(s.State.Checkpoint, c); err == nil {
			n.checkpoint = c
		} else {
			a.log.Error("the checkpoint of a node is damaged: the node must send its whole logs", "node", s.Name, "err", err)
		}
	}
	return n, nil
}

// state is what a step makes of a node.
type state struct {
	trust, reason string
	levels        []protocol.LevelInfo
	posture       posture
	since         time.Time
	attested      time.Time
	expires       time.Time
	checkpoint    *verifier.Checkpoint
	snapshot      string
	list          int64
	bad           bool
	machine       result.Machine
	machineFacts  []byte
	tag           *tag
	tags          map[string]string
}

// current returns where the node stands. The caller holds work.
func (n *node) current() state {
	return state{
		trust: n.trust, reason: n.reason, levels: n.levels, since: n.since, attested: n.attested, expires: n.expires,
		checkpoint: n.checkpoint, snapshot: n.snapshot, list: n.list, bad: n.bad, machine: n.machine, machineFacts: n.machineFacts,
		tag: n.tag, tags: n.tags, posture: n.posture,
	}
}

// set makes s what others see at time now. The caller holds work, and s is in the store.
func (n *node) set(s state, watermark int64, now time.Time) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.trust, n.reason, n.levels, n.since, n.attested, n.expires = s.trust, s.reason, s.levels, s.since, s.attested, s.expires
	n.checkpoint, n.snapshot, n.list, n.bad = s.checkpoint, s.snapshot, s.list, s.bad
	n.machine, n.machineFacts, n.posture = s.machine, s.machineFacts, s.posture
	n.watermark = max(n.watermark, watermark)
	n.setTag(&s, now)
}

// record is s as the store keeps it.
func (s *state) record(result string) (store.State, error) {
	levels, err := json.Marshal(s.levels)
	if err != nil {
		return store.State{}, err
	}
	var checkpoint []byte
	if s.checkpoint != nil {
		if checkpoint, err = cbor.Marshal(s.checkpoint); err != nil {
			return store.State{}, err
		}
	}
	return store.State{
		Trust: s.trust, Reason: s.reason, Levels: levels, Since: s.since, Attested: s.attested, Expires: s.expires,
		Checkpoint: checkpoint, Snapshot: s.snapshot, Result: result, List: s.list, Bad: s.bad,
	}, nil
}

// changed reports whether an operator would call the verdict another one: trust or the status of a level.
func (s *state) changed(from *state) bool {
	if s.trust != from.trust || len(s.levels) != len(from.levels) {
		return true
	}
	for i := range s.levels {
		if s.levels[i].Status != from.levels[i].Status {
			return true
		}
	}
	return false
}

// view is the node as an operator sees it. One whose result has expired is not trusted, also while that cannot be written down.
func (n *node) view(now time.Time) protocol.Node {
	n.mu.RLock()
	defer n.mu.RUnlock()
	s := n.current()
	if n.trust == protocol.Trusted && over(n.expires, now) {
		s.silent(n.expires)
	}
	v := protocol.Node{
		Name: n.name, Trust: s.trust, Reason: s.reason, Levels: s.levels, Since: s.since, Attested: n.attested, Expires: n.expires,
		Enrolled: n.enrolled, EKSHA256: hex.EncodeToString(n.ek[:]), EKCert: n.ekCert, AKName: n.akName, SoftwareTPM: n.software,
		Agent: n.agent, Snapshot: n.snapshot, RebindUntil: n.rebindTill,
	}
	if t := n.tag; t != nil {
		v.Tags, v.TagsProven, v.TagSerial = t.tags, t.proven, t.serial
	}
	if c := n.checkpoint; c != nil {
		v.ResetCount, v.RestartCount, v.IMABytes = c.ResetCount, c.RestartCount, c.IMAOffset
	}
	return v
}

// challenge makes the node's next challenge. Without resume, AIAS asks for everything from the start.
func (a *Authority) challenge(n *node, resume bool) protocol.Challenge {
	s := a.snapshot.Load()
	n.mu.RLock()
	defer n.mu.RUnlock()
	nonce, expires := a.challenges.issue(n.name, a.now(), n.watermark)
	c := protocol.Challenge{Nonce: nonce, Expires: expires, Quote: s.selections, Interval: max(1, int(s.Interval/time.Second)),
		AssetTag: n.tag.challenge()}
	if ask := n.scanAsk.Load(); ask != nil {
		c.Scan, c.ScanDocuments = ask.number, ask.documents
	}
	if s.Tailoring != nil {
		c.Tailoring = s.Tailoring.SHA256
	}
	if a.disks.ByBoot(n.name) {
		c.Quote = s.byBoot
	}
	if p := n.checkpoint; p != nil && resume {
		c.EventLogDigest, c.FactsDigest = p.LogDigest, p.FactsDigest
		c.IMAOffset, c.ResetCount, c.RestartCount = p.IMAOffset, p.ResetCount, p.RestartCount
	}
	return c
}
