package nbde

import (
	"encoding/base64"
	"errors"
	"fmt"
	"slices"

	"filippo.io/nistec"
	"github.com/go-jose/go-jose/v4/json"
)

// jwk is a JSON Web Key of an elliptic curve (RFC 7517, RFC 7518 6.2). Names of members are case-sensitive, and none may be there twice: the decoder
// of go-jose sees to both.
type jwk struct {
	Alg    string   `json:"alg,omitempty"`
	Crv    string   `json:"crv"`
	D      string   `json:"d,omitempty"`
	KeyOps []string `json:"key_ops,omitempty"`
	Kty    string   `json:"kty"`
	X      string   `json:"x"`
	Y      string   `json:"y"`
}

var (
	errPoint = errors.New("not a point of the curve")
	errOps   = errors.New("key_ops does not allow deriveKey")
)

// coordinate reads a coordinate or a scalar: exactly as many bytes as the curve's field has (RFC 7518, 6.2.1.2).
func coordinate(s string) ([]byte, error) {
	b, err := base64.RawURLEncoding.Strict().DecodeString(s)
	if err != nil {
		return nil, errors.New("not base64url")
	}
	if len(b) != fieldSize {
		return nil, fmt.Errorf("%d bytes, want %d", len(b), fieldSize)
	}
	return b, nil
}

// point returns the point that j names, uncompressed. It is on the curve, and not at infinity.
func (j *jwk) point() ([]byte, error) {
	if j.Kty != "EC" || j.Crv != curveName {
		return nil, fmt.Errorf("kty %.20q and crv %.20q, want EC and %s", j.Kty, j.Crv, curveName)
	}
	x, err := coordinate(j.X)
	if err != nil {
		return nil, fmt.Errorf("x: %w", err)
	}
	y, err := coordinate(j.Y)
	if err != nil {
		return nil, fmt.Errorf("y: %w", err)
	}
	b := append(append([]byte{4}, x...), y...)
	_, err = parsePoint(b)
	return b, err
}

func parsePoint(b []byte) (*nistec.P521Point, error) {
	if len(b) != pointSize {
		return nil, errPoint // the point at infinity is one byte
	}
	p, err := nistec.NewP521Point().SetBytes(b)
	if err != nil {
		return nil, errPoint
	}
	return p, nil
}

// parseAsk reads the body of a recovery: the blinded point of the client.
func parseAsk(body []byte) ([]byte, error) {
	var j jwk
	if err := json.Unmarshal(body, &j); err != nil {
		return nil, errors.New("no JSON Web Key")
	}
	if j.Alg != "" && j.Alg != string(Exchange) {
		return nil, fmt.Errorf("alg %.20q, want %s", j.Alg, Exchange)
	}
	if j.KeyOps != nil && !slices.Contains(j.KeyOps, "deriveKey") {
		return nil, errOps
	}
	return j.point()
}

// formAnswer is the answer to a recovery.
func formAnswer(point []byte) []byte {
	x, y := encoded(point)
	return fmt.Appendf(nil, `{"alg":"ECMR","crv":"P-521","key_ops":["deriveKey"],"kty":"EC","x":"%s","y":"%s"}`, x, y)
}
