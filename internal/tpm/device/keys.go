package device

import (
	"errors"
	"fmt"
	"time"

	"github.com/google/go-tpm/tpm2"

	"touchstone.dev/touchstone/internal/tpm"
)

// ErrKeyChanged says that a template gives another key than before: the TPM's endorsement seed was replaced, or another TPM sits
// behind the address. Who enrolled with the old key must enrol again.
var ErrKeyChanged = errors.New("the TPM gives another key than before")

// Key is a primary key of a TPM. It is made once in a process and loaded from its context at each use.
type Key struct {
	template template
	public   *tpm.Public
	context  *tpm2.TPMSContext // void after a reset of the TPM; then the key is made again
}

// Public returns the key's TPMT_PUBLIC.
func (k *Key) Public() []byte { return k.public.Area() }

// Name returns the key's Name.
func (k *Key) Name() []byte { return k.public.Name() }

// AttestationKey returns the attestation key: "ecc" or "" for ECDSA on P-256, "rsa" for RSASSA with 2048 bits, both with SHA-256.
// It is the same at each call and after each boot.
func (t *TPM) AttestationKey(alg string) (*Key, error) {
	var tm template
	switch alg {
	case "ecc", "":
		tm = akECC
	case "rsa":
		tm = akRSA
	default:
		return nil, fmt.Errorf("TPM: attestation key: unknown algorithm %q, want ecc or rsa", alg)
	}
	var key *Key
	err := t.do("make attestation key", func() (err error) {
		key, err = t.key(tm)
		return err
	})
	return key, err
}

// key returns the key of a template, made at the first call.
func (t *TPM) key(tm template) (*Key, error) {
	if k := t.keys[tm.name]; k != nil {
		return k, nil
	}
	k := &Key{template: tm}
	handle, err := t.create(k)
	if err != nil {
		return nil, err
	}
	t.flush(handle)
	t.keys[tm.name] = k
	return k, nil
}

// with loads key, runs f, and flushes the key.
func (t *TPM) with(key *Key, f func(tpm2.NamedHandle) error) error {
	handle, err := t.load(key)
	if err != nil {
		return err
	}
	defer t.flush(handle)
	return f(tpm2.NamedHandle{Handle: handle, Name: tpm2.TPM2BName{Buffer: key.public.Name()}})
}

// load brings key into the TPM: from its context, or anew when the TPM was reset since.
func (t *TPM) load(key *Key) (tpm2.TPMHandle, error) {
	if key.context != nil {
		rsp, err := withRoom(t, func() (*tpm2.ContextLoadResponse, error) {
			return tpm2.ContextLoad{Context: *key.context}.Execute(t.link)
		})
		if err == nil {
			t.loaded[rsp.LoadedHandle] = true
			return rsp.LoadedHandle, nil
		}
		var code tpm2.TPMRC
		if !errors.As(err, &code) { // the TPM did not answer at all
			return 0, err
		}
		key.context = nil
	}
	return t.create(key)
}

// create makes the primary key, checks that it is the one known from before, and saves its context.
func (t *TPM) create(key *Key) (tpm2.TPMHandle, error) {
	hierarchy := tpm2.TPMRHEndorsement
	if key.template.owner {
		hierarchy = tpm2.TPMRHOwner
	}
	rsp, err := withRoom(t, func() (*tpm2.CreatePrimaryResponse, error) {
		return tpm2.CreatePrimary{PrimaryHandle: hierarchy, InPublic: key.template.public()}.Execute(t.link)
	})
	if err != nil {
		return 0, fmt.Errorf("create %s: %w", key.template.name, err)
	}
	t.loaded[rsp.ObjectHandle] = true
	public, err := tpm.ParsePublic(rsp.OutPublic.Bytes())
	switch {
	case err != nil:
	case key.public != nil && string(key.public.Name()) != string(public.Name()):
		err = fmt.Errorf("%w: %s", ErrKeyChanged, key.template.name)
	default:
		var saved *tpm2.ContextSaveResponse
		if saved, err = (tpm2.ContextSave{SaveHandle: rsp.ObjectHandle}).Execute(t.link); err == nil {
			key.public, key.context = public, &saved.Context
		}
	}
	if err != nil {
		t.flush(rsp.ObjectHandle)
		return 0, fmt.Errorf("create %s: %w", key.template.name, err)
	}
	return rsp.ObjectHandle, nil
}

// flush removes a key from the TPM. A failure is not reported: the next load makes room where it must.
func (t *TPM) flush(handle tpm2.TPMHandle) {
	_, _ = tpm2.FlushContext{FlushHandle: handle}.Execute(t.link)
	delete(t.loaded, handle)
}

// When the TPM is full, another process may be in the middle of an operation: it is given this time to end.
const (
	roomAttempts = 10
	roomWait     = 20 * time.Millisecond
)

// withRoom runs a command that loads a key. A full TPM is asked again for a while; then what others have left loaded is flushed.
// That happens only without a resource manager, where keys of programs that ended stay loaded until the next reset.
func withRoom[R any](t *TPM, load func() (R, error)) (R, error) {
	for range roomAttempts {
		rsp, err := load()
		if !errors.Is(err, tpm2.TPMRCObjectMemory) && !errors.Is(err, tpm2.TPMRCObjectHandles) {
			return rsp, err
		}
		time.Sleep(roomWait)
	}
	left, err := t.handles(0x80000000, 0x80ffffff)
	if err != nil {
		var none R
		return none, fmt.Errorf("make room: %w", err)
	}
	for _, h := range left {
		if !t.loaded[h] {
			t.flush(h)
		}
	}
	return load()
}
