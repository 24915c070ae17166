package nbde

import (
	"encoding/base64"
	"errors"
	"fmt"
	"slices"

	"github.com/go-jose/go-jose/v4/json"
)

// jwk is a JSON Web Key of an elliptic curve (RFC 7517, RFC 7518 6.2). Names of members are case-sensitive, and none may be there twice: the decoder
// of go-jose sees to both.
type jwk struct {
	Alg    string   `json:"alg,omitempty"`
	Crv    string   `json:"crv"`
	D      string   `json:"d,omitempty"`
	KeyOps []string `json:"key_ops,omitempty"`
	HSM    string   `json:"touchstone.hsm,omitempty"` // ID of a private part that is in an HSM
	Kty    string   `json:"kty"`
	X      string   `json:"x"`
	Y      string   `json:"y"`
}

var errOps = errors.New("key_ops does not allow deriveKey")

// coordinate reads a coordinate or a scalar: exactly as many bytes as the curve's field has (RFC 7518, 6.2.1.2).
func coordinate(s string, size int) ([]byte, error) {
	b, err := base64.RawURLEncoding.Strict().DecodeString(s)
	if err != nil {
		return nil, errors.New("not base64url")
	}
	if len(b) != size {
		return nil, fmt.Errorf("%d bytes, want %d", len(b), size)
	}
	return b, nil
}

// point returns the point that j names, uncompressed. It is on the curve, and not at infinity.
func (j *jwk) point() ([]byte, error) {
	g := groups[Curve(j.Crv)]
	if j.Kty != "EC" || g == nil {
		return nil, fmt.Errorf("kty %.20q and crv %.20q, want EC and %s, %s or %s", j.Kty, j.Crv, P256, P384, P521)
	}
	x, err := coordinate(j.X, g.size())
	if err != nil {
		return nil, fmt.Errorf("x: %w", err)
	}
	y, err := coordinate(j.Y, g.size())
	if err != nil {
		return nil, fmt.Errorf("y: %w", err)
	}
	b := append(append([]byte{4}, x...), y...)
	return b, g.check(b)
}

// parseAsk reads the body of a recovery: the blinded point of the client, on the curve of the key.
func parseAsk(body []byte, c Curve) ([]byte, error) {
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
	if j.Crv != string(c) {
		return nil, fmt.Errorf("crv %.20q, want %s", j.Crv, c)
	}
	return j.point()
}

// formAnswer is the answer to a recovery.
func formAnswer(point []byte, c Curve) []byte {
	x, y := encoded(point)
	return fmt.Appendf(nil, `{"alg":"ECMR","crv":"%s","key_ops":["deriveKey"],"kty":"EC","x":"%s","y":"%s"}`, c, x, y)
}
