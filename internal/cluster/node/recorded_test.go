package node

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"touchstone.dev/touchstone/api/v1alpha1"
	"touchstone.dev/touchstone/internal/appraisal"
	"touchstone.dev/touchstone/internal/protocol"
	"touchstone.dev/touchstone/internal/result"
)

// signer is a key and its key set.
func signer(t *testing.T) (*result.Key, []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	key, err := result.NewKey(private)
	if err != nil {
		t.Fatal(err)
	}
	set, err := result.JWKS(key)
	if err != nil {
		t.Fatal(err)
	}
	return key, set
}

// TestRecorded: of a NodeTrust counts what AIAS signed, and nothing that somebody wrote beside it, unless it lowers.
func TestRecorded(t *testing.T) {
	now := time.Now().UTC().Truncate(time.Second)
	key, set := signer(t)
	other, _ := signer(t)
	sign := func(k *result.Key, change func(*result.Result)) string {
		r := &result.Result{Node: "w1", AKName: "000b", Trusted: true, Snapshot: "s", EKSHA256: "e", ID: result.NewID(), Issued: now.Add(-time.Minute), Expires: now.Add(4 * time.Minute)}
		for i, name := range appraisal.LevelNames {
			r.Levels = append(r.Levels, result.Level{Level: i + 1, Name: name, Status: appraisal.Pass})
		}
		if change != nil {
			change(r)
		}
		token, err := result.Sign(k, r)
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	tests := map[string]struct {
		change func(*v1alpha1.NodeTrust)
		keys   error
		counts bool // the result does
		trust  string
		says   string // reason or problem
	}{
		"as it was written": {counts: true, trust: protocol.Trusted},
		"it lives for longer, somebody wrote": {change: func(nt *v1alpha1.NodeTrust) {
			at := metav1.NewTime(now.Add(time.Hour))
			nt.Status.ExpiresAt = &at
		}, counts: true, trust: protocol.Trusted},
		"withdrawn since":    {change: func(nt *v1alpha1.NodeTrust) { nt.Status.Trusted, nt.Status.Reason = false, "silent" }, counts: true, trust: protocol.Untrusted, says: "silent"},
		"signed by somebody": {change: func(nt *v1alpha1.NodeTrust) { nt.Status.Result = sign(other, nil) }, says: "recorded before this controller started"},
		"another node's":     {change: func(nt *v1alpha1.NodeTrust) { nt.Name = "w2" }, says: "node"},
		"of another TPM":     {change: func(nt *v1alpha1.NodeTrust) { nt.Status.Node.AKName = "000c" }, says: "attestation key"},
		"no result, trusted": {change: func(nt *v1alpha1.NodeTrust) { nt.Status.Result = "" }},
		"not bound":          {change: func(nt *v1alpha1.NodeTrust) { nt.Status.Conditions = nil }},
		"garbage":            {change: func(nt *v1alpha1.NodeTrust) { nt.Status.Result = "x.y.z" }, says: "recorded before this controller started"},
		"expired":            {change: func(nt *v1alpha1.NodeTrust) { nt.Status.Result = sign(key, func(r *result.Result) { r.Expires = now }) }, says: "AIAS has not been heard yet"},
		"no keys":            {keys: errors.New("no such file"), says: "cannot be verified without it: no such file"},
		"untrusted, they say not": {change: func(nt *v1alpha1.NodeTrust) {
			nt.Status.Result = sign(key, func(r *result.Result) { r.Trusted = false; r.Levels[3].Status = appraisal.Fail })
		}, counts: true, trust: protocol.Trusted},
	}
	for name, tt := range tests {
		nt := &v1alpha1.NodeTrust{ObjectMeta: metav1.ObjectMeta{Name: "w1"}, Status: v1alpha1.NodeTrustStatus{
			Trusted: true, Result: sign(key, nil), Node: &v1alpha1.NodeBinding{AKName: "000b"}, Conditions: []metav1.Condition{{Type: v1alpha1.ConditionBound, Status: metav1.ConditionTrue}},
		}}
		if tt.change != nil {
			tt.change(nt)
		}
		said := recorded(nt, func() ([]byte, error) { return set, tt.keys }, now)
		if (said.Result != nil) != tt.counts || said.Trust != tt.trust || !strings.Contains(said.Reason+said.Problem, tt.says) {
			t.Errorf("%s: got %+v, want a result that counts: %v, trust %q, because %q", name, said, tt.counts, tt.trust, tt.says)
		}
		if said.Result != nil && !said.Result.Expires.Equal(now.Add(4*time.Minute)) {
			t.Errorf("%s: the result ends at %s, want what is signed", name, said.Result.Expires)
		}
		if name == "untrusted, they say not" && said.Result.Trusted {
			t.Errorf("%s: got a trusted result, want what is signed", name)
		}
	}
	if said := recorded(nil, nil, now); said.Result != nil || said.Reason == "" {
		t.Errorf("no NodeTrust: got %+v", said)
	}
}
