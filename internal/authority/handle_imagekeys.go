package authority

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"touchstone.dev/touchstone/internal/imagekey"
	"touchstone.dev/touchstone/internal/protocol"
	"touchstone.dev/touchstone/internal/store"
)

const (
	maxImageName = 512 // bytes
	maxHeld      = 256 // keys in one question
)

func (a *Authority) getImageKeys(w http.ResponseWriter, r *http.Request, _ identity) error {
	keys, err := a.store.ImageKeys(r.Context())
	if err != nil {
		return err
	}
	out := protocol.ImageKeyList{Keys: make([]protocol.ImageKey, len(keys))}
	for i := range keys {
		out.Keys[i] = imageKeyView(&keys[i])
	}
	return answer(w, out)
}

func imageKeyView(k *store.ImageKey) protocol.ImageKey {
	return protocol.ImageKey{ID: k.ID, Class: k.Class, Conditions: k.Conditions, Image: k.Image, Created: k.Created, By: k.By, Revoked: k.Revoked}
}

// imageKey returns the key that a path names.
func (a *Authority) imageKey(r *http.Request) (*store.ImageKey, error) {
	id, err := imagekey.ParseID(r.PathValue("id"))
	var k *store.ImageKey
	if err == nil {
		k, err = a.store.ImageKey(r.Context(), id)
	}
	if errors.Is(err, imagekey.ErrID) || notFound(err) {
		return nil, refuse(http.StatusNotFound, "no-image-key", "there is no image key "+clip(r.PathValue("id"), 80), "", "list them: touchstone image key list")
	}
	return k, err
}

func (a *Authority) getImageKey(w http.ResponseWriter, r *http.Request, _ identity) error {
	k, err := a.imageKey(r)
	if err != nil {
		return err
	}
	return answer(w, imageKeyView(k))
}

func (a *Authority) postImageKey(w http.ResponseWriter, r *http.Request, id identity) error {
	var req protocol.ImageKeyRequest
	if err := decode(w, r, &req); err != nil {
		return err
	}
	if len(req.Image) > maxImageName || strings.ContainsFunc(req.Image, func(c rune) bool { return c < ' ' }) {
		return refuse(http.StatusBadRequest, "image-key", "the name of the image is too long, or no text", "", "")
	}
	k := store.ImageKey{ID: imagekey.NewID(), Image: req.Image, Created: a.now(), By: id.name}
	key := randomBytes(imagekey.KeySize)
	if req.ID != "" || len(req.Key) > 0 {
		imported, err := imagekey.ParseID(req.ID)
		if err != nil || !imagekey.Imported(imported) || len(req.Key) != imagekey.KeySize {
			return refuse(http.StatusBadRequest, "image-key", "this is no key of another broker",
				fmt.Sprintf("ID %q, %d bytes", clip(req.ID, 80), len(req.Key)), "give an ID kbs:///REPOSITORY/TYPE/TAG and a key of 32 bytes")
		}
		k.ID, key = imported, req.Key
	}
	var err error
	if k.Class, k.Conditions, err = a.demanded(r.Context(), req.Class, req.Conditions); err != nil {
		return err
	}
	if k.Wrapped, err = a.secrets.Wrap(r.Context(), key, sealedFor(k.ID)); err != nil {
		return err
	}
	err = a.store.AddImageKey(r.Context(), k, a.act(id, "image-key.create", k.ID, a.keyDetail(&k)))
	if errors.Is(err, store.ErrUsed) {
		return refuse(http.StatusConflict, "image-key", "there is an image key of that ID already", k.ID, "keys are never replaced: use another ID")
	}
	if err != nil {
		return err
	}
	a.log.Info("image key made", "key", k.ID, "class", k.Class, "image", k.Image, "operator", id.name)
	w.Header().Set("Cache-Control", "no-store")
	return answer(w, protocol.NewImageKey{ImageKey: imageKeyView(&k), Key: key})
}

func (*Authority) keyDetail(k *store.ImageKey) string {
	detail := string(k.Conditions)
	if k.Class != "" {
		detail = "class " + k.Class + " " + detail
	}
	return strings.TrimSpace(detail + " " + k.Image)
}

// demanded returns what a request says that a node must meet: those of a class by name, or conditions in full. Neither is an error.
func (a *Authority) demanded(ctx context.Context, class string, raw []byte) (string, []byte, error) {
	if class == "" {
		c, err := conditions(raw)
		return "", c, err
	}
	if len(raw) > 0 {
		return "", nil, refuse(http.StatusBadRequest, "conditions", "a trust class and conditions are both given", "", "give one of them")
	}
	c, err := a.store.Class(ctx, class)
	if notFound(err) {
		return "", nil, noClass(class)
	}
	if err != nil {
		return "", nil, err
	}
	return c.Name, c.Conditions, nil
}

func (a *Authority) putImageKey(w http.ResponseWriter, r *http.Request, id identity) error {
	var req protocol.ImageKeyChange
	if err := decode(w, r, &req); err != nil {
		return err
	}
	k, err := a.imageKey(r)
	if err != nil {
		return err
	}
	what := "image-key.change"
	if req.Class != "" || len(req.Conditions) > 0 {
		if k.Class, k.Conditions, err = a.demanded(r.Context(), req.Class, req.Conditions); err != nil {
			return err
		}
	}
	if req.Revoked != nil && *req.Revoked != !k.Revoked.IsZero() {
		what, k.Revoked = "image-key.revoke", a.now()
		if !*req.Revoked {
			what, k.Revoked = "image-key.restore", time.Time{}
		}
	}
	if err := a.store.SetImageKey(r.Context(), *k, a.act(id, what, k.ID, a.keyDetail(k))); err != nil {
		return err
	}
	a.log.Info("image key changed", "key", k.ID, "act", what, "class", k.Class, "operator", id.name)
	return answer(w, imageKeyView(k))
}

func (a *Authority) postRelease(w http.ResponseWriter, r *http.Request, id identity) error {
	n, err := a.nodeOf(id)
	if err != nil {
		return err
	}
	if !n.limit.Allow() {
		return tooMany(w, "this node asks too often")
	}
	var req protocol.ReleaseRequest
	if err := decode(w, r, &req); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(r.Context(), handleTime)
	defer cancel()
	out, err := a.releaseKey(ctx, n, &req)
	if err != nil {
		return err
	}
	w.Header().Set("Cache-Control", "no-store")
	return answer(w, out)
}

// postHeld tells a node which keys it would not get any more. A key that AIAS does not have (any more) is one of them.
func (a *Authority) postHeld(w http.ResponseWriter, r *http.Request, id identity) error {
	n, err := a.nodeOf(id)
	if err != nil {
		return err
	}
	if !n.limit.Allow() {
		return tooMany(w, "this node asks too often")
	}
	var req protocol.HeldKeys
	if err := decode(w, r, &req); err != nil {
		return err
	}
	if len(req.Keys) > maxHeld {
		return refuse(http.StatusBadRequest, "image-key", "too many keys in one question", fmt.Sprint(len(req.Keys)), fmt.Sprintf("ask for at most %d", maxHeld))
	}
	out := protocol.LostKeys{Lost: []protocol.LostKey{}}
	for _, raw := range req.Keys {
		k, err := a.store.ImageKey(r.Context(), raw)
		reasons := []string{"AIAS has no such key"}
		if err == nil {
			reasons, err = a.meets(r.Context(), n, k, a.now())
		}
		if err != nil && !notFound(err) {
			return err
		}
		if len(reasons) > 0 {
			out.Lost = append(out.Lost, protocol.LostKey{ID: raw, Reason: strings.Join(reasons, "; ")})
		}
	}
	return answer(w, out)
}
