package cluster

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"io"
	"maps"
	"sync"
	"testing"
	"time"

	"touchstone.dev/touchstone/internal/appraisal"
	"touchstone.dev/touchstone/internal/protocol"
	"touchstone.dev/touchstone/internal/result"
)

// testAIAS says what tests want, signed as AIAS signs it. (TestRealAIAS has the real one.)
type testAIAS struct {
	t    testing.TB
	life time.Duration
	now  func() time.Time

	mu      sync.Mutex
	key     *result.Key
	jwks    []byte
	down    bool
	said    map[string]protocol.NodeResult
	streams map[chan protocol.NodeResult]bool
	cut     chan struct{} // closed to end all streams
	policy  []byte
	tags    map[string]map[string]string
	classes map[string]protocol.Class
	acts    []string // what was asked to be changed
	refuse  error
}

func newAIAS(t testing.TB, now func() time.Time) *testAIAS {
	a := &testAIAS{t: t, life: 5 * time.Minute, now: now, said: map[string]protocol.NodeResult{}, streams: map[chan protocol.NodeResult]bool{},
		cut: make(chan struct{}), tags: map[string]map[string]string{}}
	a.newKey()
	return a
}

// newKey lets AIAS sign with another key.
func (a *testAIAS) newKey() {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	key, err := result.NewKey(private)
	if err != nil {
		a.t.Fatal(err)
	}
	jwks, err := result.JWKS(key)
	if err != nil {
		a.t.Fatal(err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.key, a.jwks = key, jwks
}

// published are its keys as it has put them into the cluster.
func (a *testAIAS) published() ([]byte, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.jwks, nil
}

// trusted is a result that says that all is well with the node; change makes it another one.
func (a *testAIAS) trusted(node string, change ...func(*result.Result)) *result.Result {
	now := a.now()
	r := &result.Result{
		Node: node, AKName: "000b" + node, Trusted: true, Snapshot: "s", EKSHA256: "ek" + node, ID: result.NewID(), Issued: now, Expires: now.Add(a.life),
		Machine: result.Machine{SystemUUID: "uuid-" + node, BootID: "boot-" + node},
	}
	for i, name := range appraisal.LevelNames {
		r.Levels = append(r.Levels, result.Level{Level: i + 1, Name: name, Status: appraisal.Pass})
	}
	for _, f := range change {
		f(r)
	}
	return r
}

// fallen makes a result one that fails a level.
func fallen(level int, reason string) func(*result.Result) {
	return func(r *result.Result) {
		r.Trusted = false
		r.Levels[level-1].Status, r.Levels[level-1].Reason = appraisal.Fail, reason
	}
}

// say signs a result and sends it.
func (a *testAIAS) say(r *result.Result) {
	a.mu.Lock()
	key := a.key
	a.mu.Unlock()
	token, err := result.Sign(key, r)
	if err != nil {
		a.t.Error(err)
	}
	n := protocol.NodeResult{Node: r.Node, Result: token, Trust: protocol.Trusted}
	if !r.Trusted {
		n.Trust = protocol.Untrusted
		for _, l := range r.Levels {
			if l.Status == appraisal.Fail {
				n.Reason = l.Reason
			}
		}
	}
	a.send(n)
}

// send sends an event as it is.
func (a *testAIAS) send(n protocol.NodeResult) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.said[n.Node] = n
	if n.Removed {
		delete(a.said, n.Node)
	}
	for c := range a.streams {
		c <- n
	}
}

// setDown ends all streams, and refuses new ones, or takes them again.
func (a *testAIAS) setDown(down bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.down = down
	if down {
		close(a.cut)
		a.cut = make(chan struct{})
	}
}

var errDown = errors.New("AIAS is down")

func (a *testAIAS) Results(ctx context.Context, fn func(protocol.NodeResult) error, synced func() error) error {
	a.mu.Lock()
	if a.down {
		a.mu.Unlock()
		return errDown
	}
	c, cut, first := make(chan protocol.NodeResult, 1<<16), a.cut, maps.Clone(a.said)
	a.streams[c] = true
	a.mu.Unlock()
	defer func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		delete(a.streams, c)
	}()
	for _, n := range first {
		if err := fn(n); err != nil {
			return err
		}
	}
	if err := synced(); err != nil {
		return err
	}
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-cut:
			return io.EOF
		case n := <-c:
			if err := fn(n); err != nil {
				return err
			}
		}
	}
}

func (a *testAIAS) JWKS(context.Context) ([]byte, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.down {
		return nil, errDown
	}
	return a.jwks, nil
}

func (a *testAIAS) Policy(context.Context) ([]byte, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.policy, nil
}

func (a *testAIAS) SetPolicy(_ context.Context, yaml []byte) (*protocol.Snapshot, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.refuse != nil {
		return nil, a.refuse
	}
	a.policy, a.acts = yaml, append(a.acts, "policy")
	return &protocol.Snapshot{ID: "s"}, nil
}

func (a *testAIAS) Tags(_ context.Context, node string) (*protocol.TagState, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return &protocol.TagState{Node: node, Tags: a.tags[node]}, nil
}

func (a *testAIAS) SetTags(_ context.Context, node string, tags map[string]string) (*protocol.TagState, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.refuse != nil {
		return nil, a.refuse
	}
	a.tags[node], a.acts = tags, append(a.acts, "tags "+node)
	return &protocol.TagState{Node: node, Tags: tags}, nil
}

func (a *testAIAS) ClearTags(_ context.Context, node string) (*protocol.TagState, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.tags, node)
	a.acts = append(a.acts, "clear "+node)
	return &protocol.TagState{Node: node}, nil
}

func (a *testAIAS) Classes(context.Context) ([]protocol.Class, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	var out []protocol.Class
	for _, c := range a.classes {
		out = append(out, c)
	}
	return out, nil
}

func (a *testAIAS) SetClass(_ context.Context, c protocol.Class) (*protocol.Class, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.classes == nil {
		a.classes = map[string]protocol.Class{}
	}
	a.classes[c.Name] = c
	return &c, nil
}

func (a *testAIAS) DeleteClass(_ context.Context, name string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, ok := a.classes[name]; !ok {
		return &protocol.Problem{Title: "AIAS knows no such class", Status: 404}
	}
	delete(a.classes, name)
	return nil
}

// classOf is what AIAS has of a class; "" when it has none.
func (a *testAIAS) classOf(name string) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return string(a.classes[name].Conditions)
}

// tagsOf are the tags that AIAS has for a node.
func (a *testAIAS) tagsOf(node string) map[string]string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return maps.Clone(a.tags[node])
}
