package authority

import (
	"context"
	"crypto/cipher"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"
	"golang.org/x/time/rate"

	"touchstone.dev/touchstone/internal/audit/detect"
	"touchstone.dev/touchstone/internal/escrow"
	"touchstone.dev/touchstone/internal/keystore"
	"touchstone.dev/touchstone/internal/ledger"
	"touchstone.dev/touchstone/internal/nbde"
	"touchstone.dev/touchstone/internal/protocol"
	"touchstone.dev/touchstone/internal/result"
	"touchstone.dev/touchstone/internal/store"
)

// Authority is AIAS. Make one with New, serve its Handler, and let Run do what happens without a request.
type Authority struct {
	cfg   Config
	store store.Store
	load  Loader
	now   func() time.Time
	log   *slog.Logger

	vault      *vault
	secrets    *keystore.Ring // seals what is kept
	ca         *ca
	challenges *challenger
	sessions   cipher.AEAD
	results    *result.Key
	tagKey     *ecdsa.PrivateKey // signs asset tags
	jwks       []byte
	metrics    *metrics

	rotating sync.Mutex    // held while secrets are sealed anew
	rotated  chan struct{} // there are older keys to see to

	ledger *ledger.Ledger // nil, which refuses all, unless this is the service
	copied cursor         // how far it has the database; of ledgerLoop
	closed sync.Once      // the ledger was closed

	snapshot  atomic.Pointer[Snapshot]
	rules     atomic.Pointer[detect.Set]
	found     *found
	trust     atomic.Pointer[trustFiles]
	reloading sync.Mutex
	rejudge   chan struct{} // a new snapshot is in force

	mu    sync.RWMutex
	nodes map[string]*node
	byEK  map[[32]byte]*node

	// binding holds enrolments of one name apart; a lock serves the names that fall on it.
	binding [64]sync.Mutex
	names   maphash.Seed

	audit     *auditor
	leases    *leases // of images that workers scan
	disks     *nbde.Service
	escrow    *escrow.Service
	expiry    *expiry
	changes   *broadcast
	feed      *feed
	cluster   *cluster // nil: none
	crew      *crew
	cpu       *semaphore.Weighted // appraisals
	memory    *semaphore.Weighted // bytes of large Evidence
	smallRoom *semaphore.Weighted // bytes of small Evidence
	enrols    *rate.Limiter
	waiting   atomic.Int64 // requests for news
}

// Dependencies are what New needs besides the configuration.
type Dependencies struct {
	Store store.Store
	Load  Loader
	Now   func() time.Time // nil: time.Now
	Log   *slog.Logger     // nil: slog.Default
}

// New opens keys and CA (making them at the first start), compiles the policy and loads the nodes.
func New(ctx context.Context, cfg Config, d Dependencies) (*Authority, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	if d.Now == nil {
		d.Now = time.Now
	}
	if d.Log == nil {
		d.Log = slog.Default()
	}
	if cfg.Limits.Appraisals == 0 {
		cfg.Limits.Appraisals = runtime.GOMAXPROCS(0)
	}
	a := &Authority{
		cfg: cfg, store: d.Store, load: d.Load, now: d.Now, log: d.Log, rejudge: make(chan struct{}, 1), rotated: make(chan struct{}, 1),
		nodes: map[string]*node{}, byEK: map[[32]byte]*node{}, names: maphash.MakeSeed(), expiry: newExpiry(), changes: newBroadcast(), feed: newFeed(), crew: newCrew(), found: newFound(), leases: newLeases(),
		cpu: semaphore.NewWeighted(int64(cfg.Limits.Appraisals)), memory: semaphore.NewWeighted(cfg.Limits.EvidenceInFlight), smallRoom: semaphore.NewWeighted(smallRoom),
		enrols: rate.NewLimiter(rate.Limit(cfg.Limits.Enrolments), max(50, int(cfg.Limits.Enrolments))),
	}
	a.metrics = newMetrics(a)
	var err error
	if a.cluster, err = openCluster(&cfg.Kubernetes, d.Now); err != nil {
		return nil, err
	}
	if err := a.openKeys(ctx); err != nil {
		return nil, err
	}
	if err := a.loadTrustFiles(); err != nil {
		return nil, err
	}
	if err := a.loadRules(); err != nil {
		return nil, err
	}
	if a.audit, err = a.openAudit(); err != nil { //nolint:contextcheck // what is accepted is looked at whatever becomes of a request
		return nil, err
	}
	policy, err := a.policySource(ctx)
	if err != nil {
		return nil, err
	}
	s, err := a.compile(policy)
	if err != nil {
		return nil, err
	}
	a.adopt(s)
	return a, a.loadNodes(ctx)
}

func (a *Authority) openKeys(ctx context.Context) error {
	v, err := openVault(ctx, &a.cfg, a.store)
	if err != nil {
		return err
	}
	a.vault, a.secrets = v, v.ring
	if a.ca, err = openCA(ctx, v, a.now); err != nil {
		return fmt.Errorf("open the CA: %w", err)
	}
	mac, err := v.key(ctx, "key.challenge")
	if err != nil {
		return err
	}
	a.challenges = &challenger{key: mac, lifetime: time.Duration(a.cfg.ChallengeLifetime)}
	session, err := v.key(ctx, "key.session")
	if err != nil {
		return err
	}
	if a.sessions, err = newAEAD(session); err != nil {
		return err
	}
	signer, err := signingKey(ctx, v, "key.result")
	if err != nil {
		return fmt.Errorf("open the key of results: %w", err)
	}
	if a.tagKey, err = signingKey(ctx, v, "key.tag"); err != nil {
		return fmt.Errorf("open the key of asset tags: %w", err)
	}
	if a.results, err = result.NewKey(signer); err != nil {
		return err
	}
	if err := a.openDisks(ctx, v); err != nil {
		return err
	}
	a.jwks, err = result.JWKS(a.results)
	return err
}

// signingKey opens a key on P-256, made at the first start.
func signingKey(ctx context.Context, v *vault, name string) (*ecdsa.PrivateKey, error) {
	der, err := v.get(ctx, name)
	if errors.Is(err, store.ErrNotFound) {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return nil, err
		}
		if der, err = x509.MarshalPKCS8PrivateKey(k); err != nil {
			return nil, err
		}
		return k, v.put(ctx, map[string][]byte{name: der}, nil)
	}
	if err != nil {
		return nil, err
	}
	k, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, err
	}
	signer, ok := k.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("it is a %T", k)
	}
	return signer, nil
}

// loadNodes brings all nodes into memory. Nothing is judged again that the same snapshot judged already.
func (a *Authority) loadNodes(ctx context.Context) error {
	nodes, err := a.store.Nodes(ctx)
	if err != nil {
		return fmt.Errorf("load the nodes: %w", err)
	}
	tags, err := a.store.Tags(ctx)
	if err != nil {
		return fmt.Errorf("load the asset tags: %w", err)
	}
	byName := make(map[string]*store.Tag, len(tags))
	for i := range tags {
		byName[tags[i].Node] = &tags[i]
	}
	watches, err := a.loadDetections(ctx)
	if err != nil {
		return err
	}
	for _, s := range nodes {
		n, err := a.newNode(s)
		if err != nil {
			return err
		}
		if w := watches[n.id]; w != nil {
			n.watch = w
		}
		if t := byName[n.name]; t != nil {
			if n.tag, err = newTag(t); err != nil {
				return err
			}
		}
		a.nodes[n.name], a.byEK[n.ek] = n, n
		if n.trust == protocol.Trusted {
			a.expiry.set(n, n.expires)
		}
	}
	return a.loadScans(ctx)
}

// node returns an enrolled node, nil when there is none of that name.
func (a *Authority) node(name string) *node {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.nodes[name]
}

// nodeByEK returns the node of a TPM, nil when there is none.
func (a *Authority) nodeByEK(ek [32]byte) *node {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.byEK[ek]
}

// put makes n the node of its name in memory; the one before is gone. A nil n only takes old out.
func (a *Authority) put(n, old *node) {
	a.mu.Lock()
	if old != nil {
		delete(a.nodes, old.name)
		delete(a.byEK, old.ek)
	}
	if n != nil {
		a.nodes[n.name], a.byEK[n.ek] = n, n
	}
	a.mu.Unlock()
	if old != nil {
		old.mu.Lock()
		old.gone = true
		old.mu.Unlock()
		a.expiry.set(old, time.Time{})
	}
	if n != nil && n.trust == protocol.Trusted {
		a.expiry.set(n, n.expires)
	}
}

// all returns the nodes, sorted by name.
func (a *Authority) all() []*node {
	a.mu.RLock()
	defer a.mu.RUnlock()
	out := make([]*node, 0, len(a.nodes))
	for _, n := range a.nodes {
		out = append(out, n)
	}
	slices.SortFunc(out, func(x, y *node) int { return strings.Compare(x.name, y.name) })
	return out
}

// lock takes a node for one step, unless ctx ends first. A node that was removed meanwhile is refused.
func (n *node) lock(ctx context.Context) error {
	select {
	case n.work <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	if n.gone {
		n.unlock()
		return errGone
	}
	return nil
}

func (n *node) unlock() { <-n.work }

var errGone = errors.New("the node was removed")
