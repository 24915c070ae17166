package authority

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"
	"golang.org/x/sync/singleflight"

	"touchstone.dev/touchstone/internal/kubeapi"
)

// Kubernetes is the part of the configuration about the cluster that AIAS serves.
type Kubernetes struct {
	Server         string   `json:"server"`
	CAFile         string   `json:"caFile"`
	TokenFile      string   `json:"tokenFile"`
	Audience       string   `json:"audience"`
	Controllers    []string `json:"controllers"`
	RelyingParties []string `json:"relyingParties"`
	Agents         []string `json:"agents"`
	CAConfigMap    string   `json:"caConfigMap"`
}

// used reports whether there is anything to ask an API server.
func (k *Kubernetes) used() bool {
	return len(k.Controllers)+len(k.RelyingParties)+len(k.Agents) > 0 || k.CAConfigMap != ""
}

// complete validates.
func (k *Kubernetes) complete() error {
	var errs []error
	bad := func(format string, a ...any) {
		errs = append(errs, fmt.Errorf("configuration: kubernetes."+format, a...))
	}
	seen := map[string]string{}
	for _, l := range []struct {
		field string
		names []string
	}{{"controllers", k.Controllers}, {"relyingParties", k.RelyingParties}, {"agents", k.Agents}} {
		for _, name := range l.names {
			if checkObject(name) != nil {
				bad("%s: %q: want NAMESPACE/NAME of a service account", l.field, name)
			}
			if other, ok := seen[name]; ok {
				bad("%s: %q is in %s, too: a service account has one role", l.field, name, other)
			}
			seen[name] = l.field
		}
	}
	if k.CAConfigMap != "" && checkObject(k.CAConfigMap) != nil {
		bad("caConfigMap: %q: want NAMESPACE/NAME", k.CAConfigMap)
	}
	if k.used() && k.Audience == "" {
		bad("audience is empty: name the audience that tokens for AIAS are made for")
	}
	if k.Server == "" && (k.CAFile != "" || k.TokenFile != "") {
		bad("server is empty, but caFile or tokenFile is not: set all three, or none in a pod")
	}
	if k.Server != "" && (!strings.HasPrefix(k.Server, "https://") || k.CAFile == "" || k.TokenFile == "") {
		bad("server: want an https:// address, with caFile and tokenFile")
	}
	return errors.Join(errs...)
}

// checkObject checks NAMESPACE/NAME.
func checkObject(s string) error {
	namespace, name, ok := strings.Cut(s, "/")
	if !ok || strings.Contains(namespace, ".") {
		return errors.New("want NAMESPACE/NAME")
	}
	return errors.Join(checkNodeName(namespace), checkNodeName(name)) // both are DNS-1123 names, as those of nodes
}

const (
	// reviewLife is how long the word of the API server on a token counts, at most: a deleted service account has that long left.
	reviewLife = 60 * time.Second
	maxReviews = 256 // answers that are kept
	atOnce     = 16  // questions to the API server at a time
	// askTime is how long a request waits for the API server, with those before it.
	askTime = 10 * time.Second
)

// cluster knows the service accounts of the cluster that AIAS serves. Its API server is asked whose a token is; answers are kept for a moment for
// those that ask again and again.
type cluster struct {
	api    *kubeapi.Client
	cfg    *Kubernetes
	now    func() time.Time
	asking *semaphore.Weighted
	same   singleflight.Group

	mu   sync.Mutex
	kept map[[32]byte]reviewed // by the SHA-256 of the token
}

type reviewed struct {
	account kubeapi.Account
	until   time.Time
}

// openCluster returns nil when the configuration says nothing of a cluster.
func openCluster(k *Kubernetes, now func() time.Time) (*cluster, error) {
	if !k.used() {
		return nil, nil
	}
	c := kubeapi.Config{Server: k.Server, CAFile: k.CAFile, TokenFile: k.TokenFile}
	if c.Server == "" {
		var err error
		if c, err = kubeapi.InCluster(); err != nil {
			return nil, fmt.Errorf("configuration: kubernetes: %w: set kubernetes.server, caFile and tokenFile", err)
		}
	}
	api, err := kubeapi.New(c)
	if err != nil {
		return nil, fmt.Errorf("configuration: kubernetes: %w", err)
	}
	return &cluster{api: api, cfg: k, now: now, asking: semaphore.NewWeighted(atOnce), kept: map[[32]byte]reviewed{}}, nil
}

// isJWT tells a token of a service account from a join token, which has one dot.
func isJWT(token string) bool { return strings.Count(token, ".") == 2 }

// party says which Relying Party or controller shows a token.
func (c *cluster) party(ctx context.Context, token string) (identity, error) {
	a, err := c.account(ctx, token, append(slices.Clone(c.cfg.Controllers), c.cfg.RelyingParties...))
	if err != nil {
		return identity{}, err
	}
	id := identity{role: roleRelyingParty, name: "serviceaccount:" + a.String(), token: token}
	if slices.Contains(c.cfg.Controllers, a.String()) {
		id.role = roleController
	}
	return id, nil
}

// mayJoin checks that a token is that of an agent's pod that runs on the node whose name it wants.
func (c *cluster) mayJoin(ctx context.Context, token, node string) error {
	a, err := c.account(ctx, token, c.cfg.Agents)
	if err != nil {
		return err
	}
	if a.Node == "" || a.Node != node {
		return refuse(http.StatusForbidden, "other-node", "the token is not of a pod on this node",
			fmt.Sprintf("pod %q runs on node %q, asked for is %q", clip(a.Pod, maxName), clip(a.Node, maxName), node),
			"run the agent as a pod with a projected token, and let its node name be spec.nodeName of the pod")
	}
	return nil
}

// account says whose a token is; it must be one of the accounts.
func (c *cluster) account(ctx context.Context, token string, accounts []string) (*kubeapi.Account, error) {
	said, err := kubeapi.Peek(token)
	if err == nil && !slices.Contains(accounts, said.String()) {
		err = fmt.Errorf("service account %s is none that may do this", said)
	}
	if err == nil && !c.now().Before(said.Expires) {
		err = errors.New("it has expired")
	}
	if err != nil {
		return nil, c.badToken(err) // what it says of itself is enough for a no
	}
	a, err := c.review(ctx, token)
	if err == nil && !slices.Contains(accounts, a.String()) {
		err = c.badToken(fmt.Errorf("service account %s is none that may do this", a))
	}
	return a, err
}

func (c *cluster) badToken(err error) error {
	return refuse(http.StatusUnauthorized, "service-account-token", "the service account token is not accepted", err.Error(),
		"show a projected token for the audience "+c.cfg.Audience+" of a service account that the configuration of AIAS names (kubernetes)")
}

// review asks the API server, or remembers what it said a moment ago. No answer is no.
func (c *cluster) review(ctx context.Context, token string) (*kubeapi.Account, error) {
	key := sha256.Sum256([]byte(token))
	if a, ok := c.remembered(key); ok {
		return a, nil
	}
	// Whoever asks with the same token waits for one answer; that it goes away is no reason not to get it for the others.
	done := c.same.DoChan(string(key[:]), func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), askTime)
		defer cancel()
		if err := c.asking.Acquire(ctx, 1); err != nil {
			return nil, err
		}
		defer c.asking.Release(1)
		a, err := c.api.Review(ctx, token, c.cfg.Audience)
		if err == nil {
			c.remember(key, a)
		}
		return a, err
	})
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case r := <-done:
		switch {
		case r.Err == nil:
			a := *r.Val.(*kubeapi.Account)
			return &a, nil
		case errors.Is(r.Err, kubeapi.ErrToken):
			return nil, c.badToken(r.Err)
		}
		return nil, refuse(http.StatusServiceUnavailable, "api-server", "the API server of the cluster cannot say whose the token is", r.Err.Error(),
			"try again later; AIAS needs to reach the API server, and the right to create tokenreviews (ClusterRole system:auth-delegator)")
	}
}

func (c *cluster) remembered(key [32]byte) (*kubeapi.Account, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r, ok := c.kept[key]
	if !ok || over(r.until, c.now()) {
		return nil, false
	}
	return &r.account, true
}

// remember keeps an answer for a moment, never beyond the life of the token.
func (c *cluster) remember(key [32]byte, a *kubeapi.Account) {
	now := c.now()
	until := now.Add(reviewLife)
	if a.Expires.Before(until) {
		until = a.Expires
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.kept) >= maxReviews {
		for k, r := range c.kept {
			if over(r.until, now) {
				delete(c.kept, k)
			}
		}
	}
	if len(c.kept) < maxReviews { // else the API server is asked again
		c.kept[key] = reviewed{*a, until}
	}
}
