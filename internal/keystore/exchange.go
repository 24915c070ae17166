//go:build pkcs11

package keystore

import (
	"crypto/rand"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/miekg/pkcs11"
)

// exchangeLabel is that of exchange keys when the configuration names none.
const exchangeLabel = "aias-disk"

// curves are the curves of exchange keys: their names for a token, and how long a coordinate is.
var curves = map[string]struct {
	oid  asn1.ObjectIdentifier
	size int
}{
	"P-256": {asn1.ObjectIdentifier{1, 2, 840, 10045, 3, 1, 7}, 32},
	"P-384": {asn1.ObjectIdentifier{1, 3, 132, 0, 34}, 48},
	"P-521": {asn1.ObjectIdentifier{1, 3, 132, 0, 35}, 66},
}

// OpenToken opens a token for exchange keys.
func OpenToken(c PKCS11) (*Token, error) {
	if c.Label == "" {
		c.Label = exchangeLabel
	}
	t, err := openPKCS11(c)
	if err != nil {
		return nil, err
	}
	return &Token{t.(*token)}, nil
}

func (t *token) newExchange(curve string) (id string, public []byte, err error) {
	c, ok := curves[curve]
	if !ok {
		return "", nil, fmt.Errorf("PKCS#11: curve %.20q is unknown", curve)
	}
	params, err := asn1.Marshal(c.oid)
	if err != nil {
		return "", nil, err
	}
	cka := make([]byte, 8)
	_, _ = rand.Read(cka) // never fails: crypto/rand ends the program instead
	common := []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_EC), pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true),
		pkcs11.NewAttribute(pkcs11.CKA_LABEL, t.config.Label), pkcs11.NewAttribute(pkcs11.CKA_ID, cka),
	}
	err = t.do(func() error {
		open, _, err := t.ctx.GenerateKeyPair(t.session, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_EC_KEY_PAIR_GEN, nil)},
			append([]*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_EC_PARAMS, params), pkcs11.NewAttribute(pkcs11.CKA_PRIVATE, false)}, common...),
			append([]*pkcs11.Attribute{
				pkcs11.NewAttribute(pkcs11.CKA_PRIVATE, true), pkcs11.NewAttribute(pkcs11.CKA_SENSITIVE, true), pkcs11.NewAttribute(pkcs11.CKA_EXTRACTABLE, false),
				pkcs11.NewAttribute(pkcs11.CKA_DERIVE, true), pkcs11.NewAttribute(pkcs11.CKA_SIGN, false),
			}, common...))
		if err != nil {
			return err
		}
		got, err := t.ctx.GetAttributeValue(t.session, open, []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_EC_POINT, nil)})
		if err != nil {
			return err
		}
		if rest, err := asn1.Unmarshal(got[0].Value, &public); err != nil || len(rest) > 0 || len(public) != 1+2*c.size || public[0] != 4 {
			return fmt.Errorf("its public point is in a form that nobody knows: %x", got[0].Value)
		}
		return nil
	})
	if err != nil {
		return "", nil, fmt.Errorf("PKCS#11: make an exchange key in token %s: %w", t.config.Token, err)
	}
	return "pkcs11:" + hex.EncodeToString(cka), public, nil
}

// exchangeObjects lists the halves of an exchange key.
func (t *token) exchangeObjects(class uint, id string) ([]pkcs11.ObjectHandle, error) {
	cka, err := idOf(id)
	if err != nil {
		return nil, err
	}
	err = t.ctx.FindObjectsInit(t.session, []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_CLASS, class), pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_EC),
		pkcs11.NewAttribute(pkcs11.CKA_LABEL, t.config.Label), pkcs11.NewAttribute(pkcs11.CKA_ID, cka),
	})
	if err != nil {
		return nil, err
	}
	found, _, err := t.ctx.FindObjects(t.session, 2)
	return found, errors.Join(err, t.ctx.FindObjectsFinal(t.session))
}

func (t *token) exchange(id string, point []byte) (x []byte, err error) {
	size := len(point) / 2
	err = t.do(func() error {
		found, err := t.exchangeObjects(pkcs11.CKO_PRIVATE_KEY, id)
		if err != nil {
			return err
		}
		if len(found) != 1 {
			return fmt.Errorf("key %s is not in token %s: is it the right one, and its label? A copy of the token, or its backup, has the key", id, t.config.Token)
		}
		secret, err := t.ctx.DeriveKey(t.session, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_ECDH1_DERIVE, pkcs11.NewECDH1DeriveParams(pkcs11.CKD_NULL, nil, point))},
			found[0], []*pkcs11.Attribute{
				pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_SECRET_KEY), pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_GENERIC_SECRET),
				pkcs11.NewAttribute(pkcs11.CKA_TOKEN, false), pkcs11.NewAttribute(pkcs11.CKA_SENSITIVE, false), pkcs11.NewAttribute(pkcs11.CKA_EXTRACTABLE, true),
				pkcs11.NewAttribute(pkcs11.CKA_VALUE_LEN, size),
			})
		if err != nil {
			return err
		}
		got, err := t.ctx.GetAttributeValue(t.session, secret, []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_VALUE, nil)})
		if err == nil {
			x = got[0].Value
		}
		return errors.Join(err, t.ctx.DestroyObject(t.session, secret))
	})
	if err == nil && len(x) != size {
		err = fmt.Errorf("the coordinate has %d bytes, want %d", len(x), size)
	}
	if err != nil {
		return nil, fmt.Errorf("PKCS#11: exchange: %w", err)
	}
	return x, nil
}

func (t *token) destroyExchange(id string) error {
	err := t.do(func() error {
		for _, class := range []uint{pkcs11.CKO_PRIVATE_KEY, pkcs11.CKO_PUBLIC_KEY} {
			found, err := t.exchangeObjects(class, id)
			if err != nil {
				return err
			}
			for _, o := range found {
				if err := t.ctx.DestroyObject(t.session, o); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("PKCS#11: destroy key %s: %w", id, err)
	}
	return nil
}
