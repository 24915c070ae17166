package authority

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"strings"
	"time"

	"touchstone.dev/touchstone/internal/protocol"
	"touchstone.dev/touchstone/internal/store"
)

const (
	maxUses = 100_000 // of a join token
	maxNote = 200     // bytes
)

// PutToken makes a join token in the name of an operator. Only the hash of its secret is kept. It needs no running AIAS.
func PutToken(ctx context.Context, st store.Store, now time.Time, operator string, req protocol.TokenRequest) (*protocol.NewToken, error) {
	if req.Node != "" {
		if err := checkNodeName(req.Node); err != nil {
			return nil, refuse(http.StatusBadRequest, "node-name", "this is no node name", err.Error(), "")
		}
	}
	ek, err := optionalHash(req.EKSHA256)
	if err != nil {
		return nil, err
	}
	life, err := lifetime(req.Seconds)
	if err != nil {
		return nil, err
	}
	if req.Uses == 0 {
		req.Uses = 1
	}
	if req.Uses < 0 || req.Uses > maxUses || len(req.Note) > maxNote {
		return nil, refuse(http.StatusBadRequest, "token-request", "the token is not acceptable", "",
			fmt.Sprintf("want at most %d uses and a note of at most %d bytes", maxUses, maxNote))
	}
	secret := rand.Text()
	hash := sha256.Sum256([]byte(secret))
	t := store.Token{
		ID: strings.ToLower(rand.Text()[:10]), Hash: hash[:], Node: req.Node, EK: ek, Left: req.Uses,
		Created: now, Expires: now.Add(life), Note: req.Note,
	}
	act := store.Act{At: now, Operator: operator, Act: "token.create", Object: t.ID, Detail: req.Node}
	if err := st.PutToken(ctx, t, act); err != nil {
		return nil, err
	}
	return &protocol.NewToken{Token: tokenView(t), Secret: t.ID + "." + secret}, nil
}

func tokenView(t store.Token) protocol.Token {
	return protocol.Token{
		ID: t.ID, Node: t.Node, EKSHA256: hex.EncodeToString(t.EK), Left: t.Left, Created: t.Created, Expires: t.Expires, Note: t.Note,
	}
}
