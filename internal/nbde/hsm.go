package nbde

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
)

// HSM keeps exchange keys that never leave it. Like every HSM and every service of keys in a cloud, it gives of a product of ECDH the x coordinate
// alone; Key makes the point of two of them.
type HSM interface {
	// NewExchange makes a key on a curve, and returns its ID and its public point, uncompressed.
	NewExchange(ctx context.Context, curve string) (id string, public []byte, err error)
	// Exchange multiplies a point with a key, and returns the x coordinate of the product.
	Exchange(id string, point []byte) (x []byte, err error)
	// Destroy destroys a key. One that is gone already is no error.
	Destroy(ctx context.Context, id string) error
}

var errHSM = errors.New("the HSM gave no product of this key and point")

// newHSMKey makes an exchange key in an HSM.
func newHSMKey(ctx context.Context, h HSM, c Curve) (*Key, error) {
	id, public, err := h.NewExchange(ctx, string(c))
	if err != nil {
		return nil, fmt.Errorf("make an exchange key in the HSM: %w", err)
	}
	return hsmKey(h, id, c, public)
}

// hsmKey is the key of an ID in an HSM. What the HSM answers later must fit its public part.
func hsmKey(h HSM, id string, c Curve, public []byte) (*Key, error) {
	if err := groups[c].check(public); err != nil {
		return nil, fmt.Errorf("%w: the public part of %s in the HSM is on no curve", ErrKey, id)
	}
	k := &Key{Use: Exchange, Curve: c, public: public, hsm: h, id: id}
	k.name()
	return k, nil
}

// recover is the product of a point X with the private key s in the HSM, whose public half is S. x(sX) leaves two points, which differ in their sign.
// x(s(X+G)) tells them apart, as s(X+G) = sX + S. Both say what they are by themselves: an HSM with another key gives no answer.
// X = -G, where s(X+G) is at infinity, is refused: no client comes to it by chance.
func (k *Key) recover(point []byte) ([]byte, error) {
	g := groups[k.Curve]
	shifted, err := g.shift(point)
	if err != nil {
		return nil, err
	}
	x, err := k.hsm.Exchange(k.id, point)
	if err != nil {
		return nil, err
	}
	want, err := k.hsm.Exchange(k.id, shifted)
	if err != nil {
		return nil, err
	}
	for _, sign := range []byte{2, 3} {
		p, err := g.add(slices.Concat([]byte{sign}, x), []byte{0})
		if err != nil {
			return nil, errHSM
		}
		sum, err := g.add(p, k.public)
		if err == nil && bytes.Equal(sum[1:1+g.size()], want) {
			return p, nil
		}
	}
	return nil, errHSM
}
