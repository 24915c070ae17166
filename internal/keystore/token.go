package keystore

import "context"

// Token holds keys for elliptic curve Diffie-Hellman that never leave it (PKCS#11, CKM_ECDH1_DERIVE).
type Token struct{ t exchanger }

// exchanger is a token; an aias that is built without PKCS#11 has none.
type exchanger interface {
	newExchange(curve string) (id string, public []byte, err error)
	exchange(id string, point []byte) ([]byte, error)
	destroyExchange(id string) error
}

// NewExchange makes a key on a curve (P-256, P-384 or P-521), and returns its ID and its public point, uncompressed.
func (k *Token) NewExchange(_ context.Context, curve string) (id string, public []byte, err error) {
	return k.t.newExchange(curve)
}

// Exchange returns the x coordinate of the product of a point and a key, as long as the curve's field.
func (k *Token) Exchange(id string, point []byte) ([]byte, error) { return k.t.exchange(id, point) }

// Destroy destroys a key; one that is not there is no error.
func (k *Token) Destroy(_ context.Context, id string) error { return k.t.destroyExchange(id) }
