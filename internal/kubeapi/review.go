package kubeapi

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strings"
	"time"
)

// Keys of the extra fields of a token that is bound to a pod.
const (
	extraNode = "authentication.kubernetes.io/node-name"
	extraPod  = "authentication.kubernetes.io/pod-name"
)

// ErrToken means that a token is not good: forged, expired, deleted, or made for another audience.
var ErrToken = errors.New("the token is not valid")

// MaxToken bounds a token in bytes.
const MaxToken = 16 << 10

// Account is whose a token is.
type Account struct {
	Namespace, Name string
	// Node is where the pod runs that the token is bound to, Pod its name; empty when the token is bound to no pod, or the pod to no node.
	Node, Pod string
	Expires   time.Time // of the token
}

// String returns NAMESPACE/NAME.
func (a Account) String() string { return a.Namespace + "/" + a.Name }

type review struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Spec       struct {
		Token     string   `json:"token"`
		Audiences []string `json:"audiences"`
	} `json:"spec"`
	Status struct {
		Authenticated bool     `json:"authenticated"`
		Audiences     []string `json:"audiences"`
		Error         string   `json:"error"`
		User          struct {
			Username string              `json:"username"`
			Extra    map[string][]string `json:"extra"`
		} `json:"user"`
	} `json:"status,omitzero"`
}

// Review asks the API server whose service account a token is. The token must be made for the audience. An error that is ErrToken says that the token
// is not good, any other that the API server could not tell.
func (c *Client) Review(ctx context.Context, token, audience string) (*Account, error) {
	said, err := Peek(token)
	if err != nil {
		return nil, err
	}
	in := review{APIVersion: "authentication.k8s.io/v1", Kind: "TokenReview"}
	in.Spec.Token, in.Spec.Audiences = token, []string{audience}
	var out review
	if err := c.do(ctx, http.MethodPost, "/apis/authentication.k8s.io/v1/tokenreviews", "application/json", in, &out); err != nil {
		return nil, err
	}
	a, err := out.account(audience)
	if err != nil {
		return nil, err
	}
	a.Expires = said.Expires // the API server has checked what it signed
	return a, nil
}

// account reads the answer to a review.
func (r *review) account(audience string) (*Account, error) {
	s := &r.Status
	if !s.Authenticated || s.Error != "" {
		return nil, fmt.Errorf("%w: %.200s", ErrToken, strings.TrimSpace("not authenticated: "+s.Error))
	}
	// An API server that does not look at audiences names none: its yes is about its own.
	if !slices.Contains(s.Audiences, audience) {
		return nil, fmt.Errorf("%w: it is not for the audience %q", ErrToken, audience)
	}
	a, err := accountOf(s.User.Username)
	if err != nil {
		return nil, err
	}
	one := func(key string) string {
		if v := s.User.Extra[key]; len(v) == 1 {
			return v[0]
		}
		return ""
	}
	// A token may be bound to a node itself: that is not a pod that runs there.
	if a.Pod = one(extraPod); a.Pod != "" {
		a.Node = one(extraNode)
	}
	return a, nil
}

// accountOf reads "system:serviceaccount:NAMESPACE:NAME".
func accountOf(user string) (*Account, error) {
	rest, ok := strings.CutPrefix(user, "system:serviceaccount:")
	namespace, name, both := strings.Cut(rest, ":")
	if !ok || !both || namespace == "" || name == "" || strings.Contains(name, ":") {
		return nil, fmt.Errorf("%w: it is not that of a service account", ErrToken)
	}
	return &Account{Namespace: namespace, Name: name}, nil
}

// Peek reads what a token says of itself, without any check: to tell what need not be asked, and how long an answer holds. It gives account and
// expiry only.
func Peek(token string) (*Account, error) {
	parts := strings.Split(token, ".")
	if len(token) > MaxToken || len(parts) != 3 {
		return nil, fmt.Errorf("%w: it is no JWT", ErrToken)
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return nil, fmt.Errorf("%w: it is no JWT", ErrToken)
	}
	var claims struct {
		Subject string  `json:"sub"`
		Expires float64 `json:"exp"`
	}
	if err := json.Unmarshal(payload, &claims); err != nil {
		return nil, fmt.Errorf("%w: it is no JWT", ErrToken)
	}
	if claims.Expires <= 0 || claims.Expires > math.MaxInt32*100 {
		return nil, fmt.Errorf("%w: it has no end; only projected tokens are taken", ErrToken)
	}
	a, err := accountOf(claims.Subject)
	if err != nil {
		return nil, err
	}
	a.Expires = time.Unix(int64(claims.Expires), 0)
	return a, nil
}
