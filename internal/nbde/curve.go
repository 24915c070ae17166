package nbde

import (
	"crypto/elliptic"
	"errors"
	"fmt"

	"filippo.io/nistec"
)

// Curve is the curve of a key, by its name in a JSON Web Key.
type Curve string

// The curves that clevis takes. tangd makes keys on P-521 alone; which one a disk is bound on, clevis takes from the key that is advertised.
const (
	P256 Curve = "P-256"
	P384 Curve = "P-384"
	P521 Curve = "P-521"
)

// DefaultCurve is that of new exchange keys: a recovery is forty times cheaper there than on P-521, and nothing else between a worker and its disk
// (TLS, the keys of the TPM) is stronger.
const DefaultCurve = P256

// signCurve is that of the keys that sign advertisements. Nobody waits for them: an advertisement is signed once.
const signCurve = P521

// Validate says whether there is such a curve.
func (c Curve) Validate() error {
	if groups[c] == nil {
		return fmt.Errorf("curve %.20q: want %s, %s or %s", string(c), P256, P384, P521)
	}
	return nil
}

var groups = map[Curve]group{
	P256: nist[*nistec.P256Point]{elliptic.P256(), 32, nistec.NewP256Point},
	P384: nist[*nistec.P384Point]{elliptic.P384(), 48, nistec.NewP384Point},
	P521: nist[*nistec.P521Point]{elliptic.P521(), 66, nistec.NewP521Point},
}

// group is the arithmetic of a curve. Points are uncompressed; none is the point at infinity.
type group interface {
	curve() elliptic.Curve
	// size is how many bytes a coordinate has, and a scalar.
	size() int
	// check reports whether b is a point of the curve.
	check(b []byte) error
	// multiply multiplies a point in constant time.
	multiply(point, scalar []byte) ([]byte, error)
	// shift adds the generator to a point.
	shift(point []byte) ([]byte, error)
	// add adds two points, either of which may be compressed, and the second one be at infinity. A sum at infinity is an error.
	add(a, b []byte) ([]byte, error)
	// public multiplies the generator.
	public(scalar []byte) ([]byte, error)
}

// nistPoint is what the points of nistec have in common.
type nistPoint[P any] interface {
	SetBytes(b []byte) (P, error)
	ScalarMult(p P, scalar []byte) (P, error)
	ScalarBaseMult(scalar []byte) (P, error)
	Add(a, b P) P
	SetGenerator() P
	Bytes() []byte
}

type nist[P nistPoint[P]] struct {
	named elliptic.Curve
	bytes int
	fresh func() P
}

func (n nist[P]) curve() elliptic.Curve { return n.named }
func (n nist[P]) size() int             { return n.bytes }

func (n nist[P]) check(b []byte) error {
	_, err := n.parse(b)
	return err
}

func (n nist[P]) parse(b []byte) (P, error) {
	if len(b) != 1+2*n.bytes {
		var none P
		return none, errPoint // the point at infinity is one byte
	}
	p, err := n.fresh().SetBytes(b)
	if err != nil {
		return p, errPoint
	}
	return p, nil
}

func (n nist[P]) multiply(point, scalar []byte) ([]byte, error) {
	p, err := n.parse(point)
	if err != nil {
		return nil, err
	}
	if p, err = p.ScalarMult(p, scalar); err != nil {
		return nil, err
	}
	return n.finite(p)
}

func (n nist[P]) shift(point []byte) ([]byte, error) {
	p, err := n.parse(point)
	if err != nil {
		return nil, err
	}
	return n.finite(p.Add(p, n.fresh().SetGenerator()))
}

func (n nist[P]) add(a, b []byte) ([]byte, error) {
	p, err := n.fresh().SetBytes(a)
	if err != nil {
		return nil, errPoint
	}
	q, err := n.fresh().SetBytes(b)
	if err != nil {
		return nil, errPoint
	}
	return n.finite(p.Add(p, q))
}

func (n nist[P]) public(scalar []byte) ([]byte, error) {
	p, err := n.fresh().ScalarBaseMult(scalar)
	if err != nil {
		return nil, err
	}
	return n.finite(p)
}

func (n nist[P]) finite(p P) ([]byte, error) {
	b := p.Bytes()
	if len(b) != 1+2*n.bytes {
		return nil, errPoint
	}
	return b, nil
}

var errPoint = errors.New("not a point of the curve")
