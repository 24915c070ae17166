package authority

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"time"
)

// A challenge is 32 bytes, so that TPMs whose largest hash is SHA-256 take it as qualifying data: the issue time (8 bytes,
// nanoseconds), 8 random bytes, and the first 16 bytes of an HMAC-SHA-256 over both and the node's name. Nothing is stored when it is
// issued. Used once: an answer counts only when its issue time is above the node's watermark, which then moves up to it.
const (
	nonceSize = 32
	macSize   = 16
)

// Reasons why a challenge is refused.
var (
	errForeign = errors.New("the nonce is not a challenge that was issued to this node")
	errStale   = errors.New("the challenge has expired")
	errReused  = errors.New("the challenge was answered already, or a newer one was")
)

// challenger issues and checks challenges. Any replica with the same key can check them.
type challenger struct {
	key      []byte
	lifetime time.Duration
}

// issue makes a challenge for a node, newer than after (the watermark), and says when it ends.
func (c *challenger) issue(node string, now time.Time, after int64) ([]byte, time.Time) {
	at := max(now.UnixNano(), after+1)
	nonce := make([]byte, 16, nonceSize)
	binary.BigEndian.PutUint64(nonce, uint64(at))
	copy(nonce[8:], randomBytes(8))
	return append(nonce, c.mac(node, nonce)...), now.Add(c.lifetime)
}

// check returns the issue time of a challenge that this node may answer now.
func (c *challenger) check(node string, nonce []byte, now time.Time, watermark int64) (int64, error) {
	if len(nonce) != nonceSize || !hmac.Equal(nonce[16:], c.mac(node, nonce[:16])) {
		return 0, errForeign
	}
	at := int64(binary.BigEndian.Uint64(nonce))
	if at <= watermark {
		return 0, errReused
	}
	if now.UnixNano()-at > int64(c.lifetime) {
		return 0, errStale
	}
	return at, nil
}

func (c *challenger) mac(node string, head []byte) []byte {
	m := hmac.New(sha256.New, c.key)
	m.Write(head)
	m.Write([]byte(node))
	return m.Sum(nil)[:macSize]
}

// challengedAt is when a challenge was issued that check took.
func challengedAt(nonce []byte) time.Time {
	if len(nonce) != nonceSize {
		return time.Time{}
	}
	return time.Unix(0, int64(binary.BigEndian.Uint64(nonce)))
}
