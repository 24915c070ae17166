package authority

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"touchstone.dev/touchstone/internal/audit/archive"
	"touchstone.dev/touchstone/internal/audit/chain"
	"touchstone.dev/touchstone/internal/audit/detect"
	"touchstone.dev/touchstone/internal/audit/record"
	"touchstone.dev/touchstone/internal/claims"
	"touchstone.dev/touchstone/internal/store"
)

// maxDetections bounds the detections that are kept of one node; more are counted with the rule that they are of.
const maxDetections = 500

// detection is one that is kept of a node, as the store has it.
type detection struct {
	claims.Detection
	Subject   string        `json:"subject,omitempty"`
	Lifetime  time.Duration `json:"lifetime,omitempty"` // after Seen; 0: until it is cleared or fixed
	Seen      time.Time     `json:"seen"`               // when AIAS saw it last, by its own clock
	Namespace string        `json:"namespace,omitempty"`
	Pod       string        `json:"pod,omitempty"`
	// Where it was seen last, and in which boot, by what the TPM signed (archive.Node.BootOf); 0: no quote covers it yet.
	Chain    string `json:"chain,omitempty"`
	FirstSeq uint64 `json:"firstSeq,omitempty"`
	Seq      uint64 `json:"seq,omitempty"`
	Boot     uint64 `json:"boot,omitempty"`
}

// watch is what AIAS finds in the audit events of one node.
type watch struct {
	mu      sync.Mutex
	node    *detect.Node // nil until the first event; of one set of rules
	chain   string       // that the entry is of which is looked at
	kept    map[string]*detection
	seen    store.Seen
	saved   store.Seen // as the store has it
	savedAt time.Time
	dirty   map[string]bool // counts that the store does not have yet
	gone    []string        // detections that the store still has
	groups  uint64          // of correlations that had to go
}

func newWatch() *watch { return &watch{kept: map[string]*detection{}, dirty: map[string]bool{}} }

// watchStep is what some entries changed.
type watchStep struct {
	put  map[string]bool
	news bool // the verdict may be another one
}

// entries looks at entries of the node's chain, in order; those that were looked at before are left out.
func (w *watch) entries(set *detect.Set, id chain.ID, entries []chain.Entry, now time.Time) watchStep {
	w.chain = id.String()
	if w.node == nil || w.node.Set() != set {
		w.node = set.NewNode() // what correlations waited for begins anew with other rules
	}
	st := watchStep{put: map[string]bool{}}
	for i := range entries {
		e := &entries[i]
		if e.Seq == 1 && e.Kind == chain.KindStart {
			w.seen.Seq = 0 // a chain that begins anew
		}
		if e.Seq <= w.seen.Seq {
			continue
		}
		w.seen.Seq = e.Seq
		if e.Kind != chain.KindEvent {
			continue
		}
		ev, err := record.Parse(e.Body)
		if err != nil {
			w.skip(&unreadable, 1, e, now, &st)
			continue
		}
		w.event(ev, &e.Context, now, &st)
		if n := w.evicted(); n > 0 {
			w.skip(&forgotten, n, e, now, &st)
		}
	}
	return st
}

// booted ends what a boot of the worker ends. What the worker says of its boots does not count: a detection ends when the TPM counts a reset behind
// the quote that first covered it.
func (w *watch) booted(set *detect.Set, f *archive.Node) watchStep {
	st := watchStep{put: map[string]bool{}}
	rules, boot := set.FixedByBoot(), f.Boot()
	for id, d := range w.kept {
		if !slices.Contains(rules, d.Rule) {
			continue
		}
		if d.Boot == 0 {
			if d.Boot = f.BootOf(d.Chain, d.Seq); d.Boot > 0 {
				w.dirty[id] = true
			}
		}
		if d.Boot > 0 && d.Boot < boot {
			w.drop(id, &st)
		}
	}
	return st
}

// unsigned reports whether a detection that a boot ends waits for a quote that covers it.
func (w *watch) unsigned(set *detect.Set) bool {
	rules := set.FixedByBoot()
	for _, d := range w.kept {
		if d.Boot == 0 && slices.Contains(rules, d.Rule) {
			return true
		}
	}
	return false
}

func (st *watchStep) join(o watchStep) {
	st.news = st.news || o.news
	for id := range o.put {
		st.put[id] = true
	}
}

func (w *watch) fixed(rules []string, st *watchStep) {
	for id, d := range w.kept {
		if slices.Contains(rules, d.Rule) {
			w.drop(id, st)
		}
	}
}

func (w *watch) drop(id string, st *watchStep) {
	delete(w.kept, id)
	delete(st.put, id)
	delete(w.dirty, id)
	w.gone = append(w.gone, id)
	st.news = true
}

func (w *watch) event(e *record.Event, c *chain.Context, now time.Time, st *watchStep) {
	out := w.node.Event(e, c, now)
	w.fixed(out.Fixed, st)
	for i := range out.Detections {
		w.add(&out.Detections[i], now, st)
	}
}

// detectionID names a detection among those of a node: the same misuse has the same one again.
func detectionID(rule, subject string) string {
	sum := sha256.Sum256([]byte(rule + "\x00" + subject))
	return hex.EncodeToString(sum[:5])
}

// add counts a match, and keeps it when it is new.
func (w *watch) add(d *detect.Detection, now time.Time, st *watchStep) {
	rule := d.Rule.Doc.Key()
	id := detectionID(rule, d.Subject)
	if w.kept[id] == nil && len(w.kept) >= maxDetections {
		d.Subject, d.Over = detect.More, true
		id = detectionID(rule, d.Subject)
	}
	k := w.kept[id]
	if k == nil {
		k = &detection{Subject: d.Subject, Detection: claims.Detection{ID: id, Rule: rule, First: d.At}, FirstSeq: w.seen.Seq}
		w.kept[id], st.put[id], st.news = k, true, true
	}
	k.Count++
	k.Last, k.Event, k.Seen = d.At, d.Event, now
	if k.Chain != w.chain {
		k.FirstSeq = w.seen.Seq
	}
	k.Chain, k.Seq, k.Boot = w.chain, w.seen.Seq, 0
	k.Severity, k.Effect, k.Lifetime = d.Rule.Doc.Level, d.Rule.Effect.Effect, d.Rule.Effect.Lifetime()
	k.Until, k.Techniques, k.Remedy = d.Rule.Effect.Until(), d.Rule.Techniques, d.Rule.Effect.Remedy
	k.Harmless = strings.ToLower(strings.Join(d.Rule.Doc.FalsePositives, "; "))
	w.dirty[id] = true
	w.gone = keepOut(w.gone, id)
	if d.Over {
		k.What = d.Rule.Doc.Title + ": more of this kind than are kept one by one"
		k.Who = fmt.Sprintf("in entries %d to %d of chain %s, which `touchstone audit search NODE` shows", k.FirstSeq, k.Seq, k.Chain)
		return
	}
	k.What, k.Who, k.Namespace, k.Pod = what(d), who(d), d.Where.Namespace, d.Where.Pod
}

// keepOut takes an ID out of those that are gone.
func keepOut(gone []string, id string) []string {
	return slices.DeleteFunc(gone, func(g string) bool { return g == id })
}

// what is the title of the rule with the fields that it shows.
func what(d *detect.Detection) string {
	var parts []string
	for _, f := range d.Facts {
		if f.Value != d.Exe {
			parts = append(parts, f.Name+" "+f.Value)
		}
	}
	if len(parts) == 0 {
		return d.Rule.Doc.Title
	}
	return d.Rule.Doc.Title + ": " + strings.Join(parts, ", ")
}

// who is the process that did it, whose login it was of, and where it ran.
func who(d *detect.Detection) string {
	var b strings.Builder
	b.WriteString("by ")
	if d.Exe == "" {
		b.WriteString("a process that the event does not name")
	} else {
		b.WriteString(d.Exe)
	}
	p := &d.Process
	if p.PID != 0 && p.PID != record.Unset {
		fmt.Fprintf(&b, " (pid %d, uid %d", p.PID, p.UID)
		switch {
		case p.AUID == record.Unset:
			b.WriteString(", no login)")
		case d.Where.User != "":
			fmt.Fprintf(&b, ", login %s, uid %d)", d.Where.User, p.AUID)
		default:
			fmt.Fprintf(&b, ", login of uid %d)", p.AUID)
		}
	}
	switch c := &d.Where; {
	case c.Pod != "":
		fmt.Fprintf(&b, " in pod %s/%s, container %s", c.Namespace, c.Pod, c.Container)
		if c.Image != "" {
			fmt.Fprintf(&b, " of image %s", c.Image)
		}
	case c.PodUID != "":
		fmt.Fprintf(&b, " in the pod with UID %s", c.PodUID)
	case c.ContainerID != "":
		fmt.Fprintf(&b, " in container %s", c.ContainerID)
	case c.Unit != "":
		fmt.Fprintf(&b, " on the host, %s", c.Unit)
	}
	return b.String()
}

// ends is when a detection stops to count by itself; zero when it does not.
func (d *detection) ends() time.Time {
	if d.Lifetime == 0 {
		return time.Time{}
	}
	return d.Seen.Add(d.Lifetime)
}

// over drops the detections whose time is over.
func (w *watch) over(now time.Time) watchStep {
	st := watchStep{put: map[string]bool{}}
	for id, d := range w.kept {
		if at := d.ends(); !at.IsZero() && !now.Before(at) {
			w.drop(id, &st)
		}
	}
	return st
}

var severities = []string{"critical", "high", "medium", "low", "informational"}

// list returns the detections, the worst first.
func (w *watch) list() []detection {
	out := make([]detection, 0, len(w.kept))
	for _, d := range w.kept {
		out = append(out, *d)
	}
	slices.SortFunc(out, func(a, b detection) int {
		return cmp.Or(slices.Index(severities, a.Severity)-slices.Index(severities, b.Severity), b.Last.Compare(a.Last), strings.Compare(a.ID, b.ID))
	})
	return out
}

// row is a detection as the store keeps it.
func (d *detection) row() (store.Detection, error) {
	b, err := json.Marshal(d)
	return store.Detection{ID: d.ID, Data: b}, err
}
