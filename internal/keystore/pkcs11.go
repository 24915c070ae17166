//go:build pkcs11

package keystore

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/miekg/pkcs11"
)

const (
	gcmNonce = 12
	gcmTag   = 16
	keyLabel = "aias"
)

// tokens are the open ones: a module is initialised once in a process.
var tokens struct {
	sync.Mutex
	open map[PKCS11]*token
}

// token is a logged-in session. Sessions are for one operation at a time.
type token struct {
	config  PKCS11
	mu      sync.Mutex
	ctx     *pkcs11.Ctx
	session pkcs11.SessionHandle
}

func openPKCS11(c PKCS11) (source, error) {
	if c.Label == "" {
		c.Label = keyLabel
	}
	tokens.Lock()
	defer tokens.Unlock()
	if t := tokens.open[c]; t != nil {
		return t, nil
	}
	t := &token{config: c, ctx: pkcs11.New(c.Module)}
	if t.ctx == nil {
		return nil, fmt.Errorf("PKCS#11: %s cannot be loaded", c.Module)
	}
	if err := t.ctx.Initialize(); err != nil && !errors.Is(err, pkcs11.Error(pkcs11.CKR_CRYPTOKI_ALREADY_INITIALIZED)) {
		return nil, fmt.Errorf("PKCS#11: %s: %w", c.Module, err)
	}
	if err := t.login(); err != nil {
		return nil, err
	}
	if tokens.open == nil {
		tokens.open = map[PKCS11]*token{}
	}
	tokens.open[c] = t
	return t, nil
}

// login opens a session with the token of that label.
func (t *token) login() error {
	pin, err := readSmall(t.config.PINFile, 1<<10)
	if err != nil {
		return fmt.Errorf("PKCS#11: read the PIN: %w", err)
	}
	slots, err := t.ctx.GetSlotList(true)
	if err != nil {
		return fmt.Errorf("PKCS#11: list the tokens: %w", err)
	}
	for _, slot := range slots {
		info, err := t.ctx.GetTokenInfo(slot)
		if err != nil || strings.TrimRight(info.Label, " \x00") != t.config.Token {
			continue
		}
		if t.session, err = t.ctx.OpenSession(slot, pkcs11.CKF_SERIAL_SESSION|pkcs11.CKF_RW_SESSION); err != nil {
			return fmt.Errorf("PKCS#11: open token %s: %w", t.config.Token, err)
		}
		err = t.ctx.Login(t.session, pkcs11.CKU_USER, string(bytes.TrimRight(pin, "\r\n")))
		if err != nil && !errors.Is(err, pkcs11.Error(pkcs11.CKR_USER_ALREADY_LOGGED_IN)) {
			_ = t.ctx.CloseSession(t.session)
			return fmt.Errorf("PKCS#11: log in to token %s: %w", t.config.Token, err)
		}
		return nil
	}
	return fmt.Errorf("PKCS#11: there is no token %q: is it plugged in, and the module the right one?", t.config.Token)
}

// lost are the errors after which a session is opened anew, once: the token was away, or the module restarted.
var lost = []pkcs11.Error{
	pkcs11.CKR_SESSION_HANDLE_INVALID, pkcs11.CKR_SESSION_CLOSED, pkcs11.CKR_DEVICE_REMOVED, pkcs11.CKR_DEVICE_ERROR,
	pkcs11.CKR_USER_NOT_LOGGED_IN, pkcs11.CKR_TOKEN_NOT_PRESENT, pkcs11.CKR_KEY_HANDLE_INVALID, pkcs11.CKR_OBJECT_HANDLE_INVALID,
}

// do runs f alone.
func (t *token) do(f func() error) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	err := f()
	if !slices.ContainsFunc(lost, func(e pkcs11.Error) bool { return errors.Is(err, e) }) {
		return err
	}
	_ = t.ctx.CloseSession(t.session)
	if again := t.login(); again != nil {
		return again
	}
	return f()
}

// objects lists the AES keys with our label and this ID; nil: all of them.
func (t *token) objects(id []byte) ([]pkcs11.ObjectHandle, error) {
	template := []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_SECRET_KEY), pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_AES),
		pkcs11.NewAttribute(pkcs11.CKA_LABEL, t.config.Label), pkcs11.NewAttribute(pkcs11.CKA_ID, id),
	}
	if err := t.ctx.FindObjectsInit(t.session, template); err != nil {
		return nil, err
	}
	found, _, err := t.ctx.FindObjects(t.session, 2)
	return found, errors.Join(err, t.ctx.FindObjectsFinal(t.session))
}

// idOf returns the CKA_ID in the ID of a key.
func idOf(id string) ([]byte, error) {
	text, ok := strings.CutPrefix(id, "pkcs11:")
	b, err := hex.DecodeString(text)
	if !ok || err != nil || len(b) != 8 {
		return nil, fmt.Errorf("%q is no key of a PKCS#11 token", id)
	}
	return b, nil
}

func (t *token) find(_ context.Context, records []record) (out []KEK, err error) {
	for _, r := range records {
		if r.kind() != "pkcs11" {
			continue
		}
		id, err := idOf(r.ID)
		if err != nil {
			return nil, err
		}
		var found []pkcs11.ObjectHandle
		if err := t.do(func() (err error) { found, err = t.objects(id); return err }); err != nil {
			return nil, fmt.Errorf("PKCS#11: find key %s: %w", r.ID, err)
		}
		if len(found) == 1 {
			out = append(out, &tokenKey{t, r.ID, id})
		}
	}
	return out, nil
}

func (t *token) add(context.Context, []record) (KEK, record, error) {
	id := make([]byte, 8)
	_, _ = rand.Read(id) // never fails: crypto/rand ends the program instead
	err := t.do(func() error {
		_, err := t.ctx.GenerateKey(t.session, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_KEY_GEN, nil)}, []*pkcs11.Attribute{
			pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_SECRET_KEY), pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_AES),
			pkcs11.NewAttribute(pkcs11.CKA_VALUE_LEN, keySize), pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true), pkcs11.NewAttribute(pkcs11.CKA_PRIVATE, true),
			pkcs11.NewAttribute(pkcs11.CKA_SENSITIVE, true), pkcs11.NewAttribute(pkcs11.CKA_EXTRACTABLE, false),
			pkcs11.NewAttribute(pkcs11.CKA_ENCRYPT, true), pkcs11.NewAttribute(pkcs11.CKA_DECRYPT, true),
			pkcs11.NewAttribute(pkcs11.CKA_LABEL, t.config.Label), pkcs11.NewAttribute(pkcs11.CKA_ID, id),
		})
		return err
	})
	if err != nil {
		return nil, record{}, fmt.Errorf("PKCS#11: make a key in token %s: %w", t.config.Token, err)
	}
	return &tokenKey{t, "pkcs11:" + hex.EncodeToString(id), id}, record{}, nil
}

// retire destroys only keys that the records name: another AIAS may use the same token and label.
func (t *token) retire(_ context.Context, gone, _ []record) error {
	for _, r := range gone {
		id, err := idOf(r.ID)
		if err != nil {
			continue // of another place
		}
		err = t.do(func() error {
			found, err := t.objects(id)
			if err != nil || len(found) != 1 {
				return err
			}
			return t.ctx.DestroyObject(t.session, found[0])
		})
		if err != nil {
			return fmt.Errorf("PKCS#11: destroy key %s: %w", r.ID, err)
		}
	}
	return nil
}

// tokenKey is a KEK in a token.
type tokenKey struct {
	token *token
	id    string
	cka   []byte
}

// ID returns the ID.
func (k *tokenKey) ID() string { return k.id }

// gcm runs one AES-GCM operation with the key.
func (k *tokenKey) gcm(nonce, aad []byte, f func(pkcs11.ObjectHandle, []*pkcs11.Mechanism) error) error {
	return k.token.do(func() error {
		found, err := k.token.objects(k.cka)
		if err != nil {
			return err
		}
		if len(found) != 1 {
			return fmt.Errorf("key %s is not in the token any more: %w", k.id, ErrUnknownKey)
		}
		params := pkcs11.NewGCMParams(nonce, aad, gcmTag*8)
		defer params.Free()
		return f(found[0], []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_GCM, params)})
	})
}

// Wrap encrypts in the token.
func (k *tokenKey) Wrap(_ context.Context, plain, aad []byte) (wrapped []byte, err error) {
	nonce := make([]byte, gcmNonce)
	_, _ = rand.Read(nonce) // never fails: crypto/rand ends the program instead
	err = k.gcm(nonce, aad, func(key pkcs11.ObjectHandle, m []*pkcs11.Mechanism) error {
		if err := k.token.ctx.EncryptInit(k.token.session, m, key); err != nil {
			return err
		}
		out, err := k.token.ctx.Encrypt(k.token.session, plain)
		wrapped = append(bytes.Clone(nonce), out...)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("PKCS#11: encrypt: %w", err)
	}
	return wrapped, nil
}

// Unwrap decrypts in the token.
func (k *tokenKey) Unwrap(_ context.Context, wrapped, aad []byte) (plain []byte, err error) {
	if len(wrapped) < gcmNonce+gcmTag {
		return nil, ErrSealed
	}
	err = k.gcm(wrapped[:gcmNonce], aad, func(key pkcs11.ObjectHandle, m []*pkcs11.Mechanism) error {
		if err := k.token.ctx.DecryptInit(k.token.session, m, key); err != nil {
			return err
		}
		plain, err = k.token.ctx.Decrypt(k.token.session, wrapped[gcmNonce:])
		for _, bad := range []pkcs11.Error{pkcs11.CKR_ENCRYPTED_DATA_INVALID, pkcs11.CKR_ENCRYPTED_DATA_LEN_RANGE, pkcs11.CKR_GENERAL_ERROR, pkcs11.CKR_FUNCTION_FAILED} {
			if errors.Is(err, bad) {
				return fmt.Errorf("%w (%w)", ErrSealed, err)
			}
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("PKCS#11: decrypt: %w", err)
	}
	return plain, nil
}
