package authority

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"touchstone.dev/touchstone/internal/imagekey"
	"touchstone.dev/touchstone/internal/protocol"
	"touchstone.dev/touchstone/internal/tpm"
)

const laxClass = `{"levels":[1,2,3,4,5],"softwareTPM":"Allow"}`

// imageMachine is a machine that booted well and asks for image keys.
type imageMachine struct {
	*tagMachine
	bank *tpm.Bank // that its key is bound to
}

func (w *world) imageMachine(name string) *imageMachine {
	m := &imageMachine{tagMachine: w.tagMachine(name)}
	m.bank = m.tagMachine.bank
	m.judged(m.answer())
	return m
}

// request asks for a key as the agent does.
func (m *imageMachine) request(id string, change ...func(*protocol.ReleaseRequest)) *protocol.ReleaseRequest {
	m.w.t.Helper()
	policy, err := imagekey.BootPolicy(m.bank, tpm.PCRs(m.next.Quote[0].PCRs...))
	if err != nil {
		m.w.t.Fatal(err)
	}
	_, area := m.tpm.DecryptionKey(policy)
	r := &protocol.ReleaseRequest{ID: id, Bank: "sha256", Public: area}
	r.Certify, r.Signature = m.tpm.Certify(area, imagekey.Context(m.name), m.clock)
	for _, f := range change {
		f(r)
	}
	return r
}

// ask returns the key, or the refusal.
func (m *imageMachine) ask(r *protocol.ReleaseRequest) ([]byte, error) {
	m.w.t.Helper()
	var out protocol.Release
	if err := m.w.call(m.http, http.MethodPost, protocol.PathImageRelease, r, &out); err != nil {
		return nil, err
	}
	key, _ := m.tpm.DecryptionKey(nil)
	by, err := key.ECDH()
	if err != nil {
		m.w.t.Fatal(err)
	}
	return imagekey.OpenSealed(by, m.name, r.ID, out.Sealed)
}

func (w *world) class(name, conditions string) {
	w.t.Helper()
	if _, err := w.admin.SetClass(context.Background(), protocol.Class{Name: name, Conditions: json.RawMessage(conditions)}); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) imageKey(class string) *protocol.NewImageKey {
	w.t.Helper()
	k, err := w.admin.NewImageKey(context.Background(), protocol.ImageKeyRequest{Class: class, Image: "registry.example/app:1"})
	if err != nil {
		w.t.Fatal(err)
	}
	return k
}

func refused(t *testing.T, what string, err error, words ...string) {
	t.Helper()
	p := wantProblem(t, what, err, http.StatusForbidden, "image-key-refused")
	for _, word := range words {
		if !strings.Contains(p.Error(), word) {
			t.Errorf("%s: refused with %q, want it to name %q", what, p.Error(), word)
		}
	}
}

// TestImageKeyRelease: a key goes to who meets its class now, just attested, and to nobody else; the refusal names what is missing.
func TestImageKeyRelease(t *testing.T) {
	w := realWorld(t)
	w.class("regulated", `{"softwareTPM":"Allow","tags":{"country":["de"]}}`)
	w.class("lax", laxClass)
	regulated, lax := w.imageKey("regulated"), w.imageKey("lax")
	m := w.imageMachine("worker-1")
	want := func(what string, k *protocol.NewImageKey) {
		t.Helper()
		if got, err := m.ask(m.request(k.ID)); err != nil || !bytes.Equal(got, k.Key) {
			t.Errorf("%s: got %x, %v; want the key", what, got, err)
		}
	}
	want("trusted", lax)
	_, err := m.ask(m.request(regulated.ID))
	refused(t, "no tag", err, "regulated", "worker-1", "tag country is not proven, want de")
	m.set(map[string]string{"country": "de"})
	m.next = m.judgedNext()
	m.judged(m.answer())
	want("tagged", regulated)
	m.set(map[string]string{"country": "fr"})
	m.next = m.judgedNext()
	m.judged(m.answer())
	_, err = m.ask(m.request(regulated.ID))
	refused(t, "another tag", err, "tag country is fr, want de")

	w.clock.Advance(releaseAge + time.Second)
	_, err = m.ask(m.request(lax.ID))
	refused(t, "stale", err, "last attestation is 1m1s old")
	m.judged(m.answer())
	want("attested again", lax)

	if _, err := w.admin.ChangeImageKey(context.Background(), lax.ID, protocol.ImageKeyChange{Revoked: ptr(true)}); err != nil {
		t.Fatal(err)
	}
	_, err = m.ask(m.request(lax.ID))
	refused(t, "revoked", err, "revoked since")
	if _, err := w.admin.ChangeImageKey(context.Background(), lax.ID, protocol.ImageKeyChange{Revoked: ptr(false)}); err != nil {
		t.Fatal(err)
	}
	w.restart()
	m.connect()
	want("restored, after a restart of AIAS", lax)

	m.clock.ResetCount++
	m.bank = m.booted("cmdline")
	m.tagMachine.bank = m.bank
	m.judged(m.answer())
	_, err = m.ask(m.request(lax.ID))
	refused(t, "fallen", err, "level 4 is fail")
}

// judgedNext is the challenge that an agent gets when it asks for one.
func (m *imageMachine) judgedNext() protocol.Challenge {
	m.w.t.Helper()
	var c protocol.Challenge
	if err := m.w.call(m.http, http.MethodGet, protocol.PathChallenge, nil, &c); err != nil {
		m.w.t.Fatal(err)
	}
	return c
}

// TestImageKeyProof: the key is encrypted to nothing but a key of that TPM, bound to the boot that was quoted.
func TestImageKeyProof(t *testing.T) {
	w := realWorld(t)
	w.class("lax", laxClass)
	k := w.imageKey("lax")
	m, other := w.imageMachine("worker-1"), w.imageMachine("worker-2")
	theirs := other.request(k.ID)
	changed := *m.bank
	changed.Values[4] = sha([]byte("another boot loader"))
	bound := func(bank *tpm.Bank) func(*protocol.ReleaseRequest) {
		return func(r *protocol.ReleaseRequest) {
			saved := m.bank
			m.bank = bank
			*r = *m.request(k.ID)
			m.bank = saved
		}
	}
	for name, change := range map[string]func(*protocol.ReleaseRequest){
		"key of another TPM": func(r *protocol.ReleaseRequest) { *r = *theirs },
		"certified for another node": func(r *protocol.ReleaseRequest) {
			r.Certify, r.Signature = m.tpm.Certify(r.Public, imagekey.Context("worker-2"), m.clock)
		},
		"certified without context": func(r *protocol.ReleaseRequest) { r.Certify, r.Signature = m.tpm.Certify(r.Public, nil, m.clock) },
		"flipped signature":         func(r *protocol.ReleaseRequest) { r.Signature[20] ^= 1 },
		"flipped certification":     func(r *protocol.ReleaseRequest) { r.Certify[40] ^= 1 },
		"another boot":              bound(&changed),
		"no policy": func(r *protocol.ReleaseRequest) {
			_, r.Public = m.tpm.DecryptionKey(nil)
			r.Certify, r.Signature = m.tpm.Certify(r.Public, imagekey.Context(m.name), m.clock)
		},
		"TLS key":    func(r *protocol.ReleaseRequest) { _, r.Public = m.tpm.TLSKey() },
		"no key":     func(r *protocol.ReleaseRequest) { r.Public = nil },
		"weak bank":  func(r *protocol.ReleaseRequest) { r.Bank = "sha1" },
		"other bank": func(r *protocol.ReleaseRequest) { r.Bank = "sha384" },
	} {
		if got, err := m.ask(m.request(k.ID, change)); err == nil {
			t.Errorf("%s: got %x, want a refusal", name, got)
		} else {
			wantProblem(t, name, err, http.StatusForbidden, "unproven-key")
		}
	}
	if got, err := m.ask(m.request(k.ID)); err != nil || !bytes.Equal(got, k.Key) {
		t.Errorf("as it should be: got %x, %v", got, err)
	}
	for _, id := range []string{imagekey.NewID(), "kbs:///a/b/c"} {
		_, err := m.ask(m.request(id))
		wantProblem(t, "unknown key", err, http.StatusNotFound, "no-image-key")
	}
	_, err := m.ask(m.request("https://evil.example/key"))
	wantProblem(t, "URL", err, http.StatusBadRequest, "image-key")
	wantProblem(t, "an operator asks", w.call(operatorHTTP(t, w, mustOperator(t, w)), http.MethodPost, protocol.PathImageRelease, m.request(k.ID), nil), http.StatusForbidden, "role")
	wantProblem(t, "a node lists", w.call(m.http, http.MethodGet, protocol.PathImageKeys, nil, nil), http.StatusForbidden, "role")
}

func mustOperator(t *testing.T, w *world) *protocol.OperatorBundle {
	t.Helper()
	b, err := w.Operator("tester-2")
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestImageKeyClasses: the conditions go with the key; a class that is loosened opens nothing, one that is tightened closes.
func TestImageKeyClasses(t *testing.T) {
	w, ctx := realWorld(t), context.Background()
	create := func(r protocol.ImageKeyRequest) error {
		_, err := w.admin.NewImageKey(ctx, r)
		return err
	}
	wantProblem(t, "unknown class", create(protocol.ImageKeyRequest{Class: "regulated"}), http.StatusNotFound, "no-class")
	wantProblem(t, "no class at all", create(protocol.ImageKeyRequest{}), http.StatusBadRequest, "conditions")
	wantProblem(t, "unknown condition", create(protocol.ImageKeyRequest{Conditions: json.RawMessage(`{"level":[1]}`)}), http.StatusBadRequest, "conditions")
	w.class("regulated", `{"tags":{"country":["de"]}}`)
	wantProblem(t, "both", create(protocol.ImageKeyRequest{Class: "regulated", Conditions: json.RawMessage(`{}`)}), http.StatusBadRequest, "conditions")
	_, err := w.admin.SetClass(ctx, protocol.Class{Name: "No_Class", Conditions: json.RawMessage(`{}`)})
	wantProblem(t, "name", err, http.StatusBadRequest, "class")

	m, k := w.imageMachine("worker-1"), w.imageKey("regulated")
	w.class("regulated", laxClass)
	_, err = m.ask(m.request(k.ID))
	refused(t, "loosened after", err, "tag country")
	loose := w.imageKey("regulated")
	if _, err := m.ask(m.request(loose.ID)); err != nil {
		t.Errorf("made while it is loose: %v", err)
	}
	w.class("regulated", `{"softwareTPM":"Allow","tags":{"country":["de"]}}`)
	_, err = m.ask(m.request(loose.ID))
	refused(t, "tightened after", err, "tag country is not proven")
	if err := w.admin.DeleteClass(ctx, "regulated"); err != nil {
		t.Fatal(err)
	}
	wantProblem(t, "deleted twice", w.admin.DeleteClass(ctx, "regulated"), http.StatusNotFound, "no-class")
	if _, err := m.ask(m.request(loose.ID)); err != nil {
		t.Errorf("the class is gone: %v, want what it said when the key was made", err)
	}
	if _, err := w.admin.ChangeImageKey(ctx, loose.ID, protocol.ImageKeyChange{Conditions: json.RawMessage(`{"tags":{"owner":["a"]}}`)}); err != nil {
		t.Fatal(err)
	}
	_, err = m.ask(m.request(loose.ID))
	refused(t, "changed", err, "tag owner is not proven")
}

// TestImportedKeys: keys of CoCo are looked up by name, whatever server the name names, and never replaced.
func TestImportedKeys(t *testing.T) {
	w, ctx := realWorld(t), context.Background()
	m, key := w.imageMachine("worker-1"), bytes.Repeat([]byte{7}, 32)
	in := protocol.ImageKeyRequest{Conditions: json.RawMessage(laxClass), ID: "kbs://evil.example:8080/team/image/one", Key: key}
	k, err := w.admin.NewImageKey(ctx, in)
	if err != nil || k.ID != "kbs:///team/image/one" {
		t.Fatalf("NewImageKey(): got %+v, %v", k, err)
	}
	_, err = w.admin.NewImageKey(ctx, in)
	wantProblem(t, "the same again", err, http.StatusConflict, "image-key")
	if got, err := m.ask(m.request(k.ID)); err != nil || !bytes.Equal(got, key) {
		t.Errorf("got %x, %v", got, err)
	}
	if _, err := w.admin.ChangeImageKey(ctx, k.ID, protocol.ImageKeyChange{Revoked: ptr(true)}); err != nil {
		t.Errorf("revoke by an ID with slashes: %v", err)
	}
	for name, bad := range map[string]protocol.ImageKeyRequest{
		"short key":     {ID: "kbs:///a/b/c", Key: key[1:]},
		"no ID":         {Key: key},
		"ID of our own": {ID: imagekey.NewID(), Key: key},
		"no key":        {ID: "kbs:///a/b/c"},
	} {
		bad.Conditions = json.RawMessage(laxClass)
		_, err := w.admin.NewImageKey(ctx, bad)
		wantProblem(t, name, err, http.StatusBadRequest, "image-key")
	}
}

// TestHeldKeys: a node learns which keys it would not get any more.
func TestHeldKeys(t *testing.T) {
	w := realWorld(t)
	w.class("lax", laxClass)
	w.class("strict", `{"tags":{"owner":["a"]}}`)
	m, lax, strict := w.imageMachine("worker-1"), w.imageKey("lax"), w.imageKey("strict")
	var out protocol.LostKeys
	if err := w.call(m.http, http.MethodPost, protocol.PathImageHeld, protocol.HeldKeys{Keys: []string{lax.ID, strict.ID, "nothing"}}, &out); err != nil {
		t.Fatal(err)
	}
	if len(out.Lost) != 2 || out.Lost[0].ID != strict.ID || !strings.Contains(out.Lost[0].Reason, "tag owner") || out.Lost[1].ID != "nothing" {
		t.Errorf("held keys: got %+v", out)
	}
	many := protocol.HeldKeys{Keys: make([]string, maxHeld+1)}
	wantProblem(t, "too many", w.call(m.http, http.MethodPost, protocol.PathImageHeld, many, nil), http.StatusBadRequest, "image-key")
}
