package authority

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"touchstone.dev/touchstone/internal/evidence"
	"touchstone.dev/touchstone/internal/protocol"
)

// Bounds on bodies of Evidence, so that few nodes cannot take the room of all. Nearly all Evidence is small: large Evidence, the first of a
// boot, waits in a line of its own.
const (
	bodyTime   = 10 * time.Second // for any body
	bodyRate   = 2 << 20          // bytes a second that a larger one must come at beside
	smallBody  = maxRequest       // bytes
	smallRoom  = 64 << 20         // bytes of small bodies at a time
	largeUnit  = 2 << 20          // bytes that count as one attestation more
	nodeBodies = 4                // small bodies of one node at a time; or one large
)

func (a *Authority) postEnrol(w http.ResponseWriter, r *http.Request, id identity) error {
	if err := a.mayEnrol(w); err != nil {
		return err
	}
	var req protocol.EnrolRequest
	if err := decode(w, r, &req); err != nil {
		return err
	}
	out, err := a.enrol(r.Context(), id, &req)
	if err != nil {
		return err
	}
	return answer(w, out)
}

func (a *Authority) postActivate(w http.ResponseWriter, r *http.Request, _ identity) error {
	if err := a.mayEnrol(w); err != nil {
		return err
	}
	var req protocol.EnrolProof
	if err := decode(w, r, &req); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(r.Context(), handleTime)
	defer cancel()
	out, err := a.activate(ctx, &req)
	if err != nil {
		return err
	}
	return answer(w, out)
}

func (a *Authority) mayEnrol(w http.ResponseWriter) error {
	if a.enrols.Allow() {
		return nil
	}
	return tooMany(w, "too many enrolments at the same time")
}

func tooMany(w http.ResponseWriter, what string) error {
	w.Header().Set("Retry-After", "1")
	return refuse(http.StatusTooManyRequests, "too-many", what, "", "try again in a second")
}

func (a *Authority) getChallenge(w http.ResponseWriter, _ *http.Request, id identity) error {
	n, err := a.attesterOf(id)
	if err != nil {
		return err
	}
	if !n.limit.Allow() {
		return tooMany(w, "this node asks too often")
	}
	return answer(w, a.challenge(n, true))
}

func (a *Authority) postRenew(w http.ResponseWriter, r *http.Request, id identity) error {
	n, err := a.nodeOf(id)
	if err != nil {
		return err
	}
	if !n.limit.Allow() {
		return tooMany(w, "this node asks too often")
	}
	var req protocol.RenewRequest
	if err := decode(w, r, &req); err != nil {
		return err
	}
	out, err := a.renew(n, id.key, &req)
	if err != nil {
		return err
	}
	return answer(w, out)
}

func (a *Authority) postAttest(w http.ResponseWriter, r *http.Request, id identity) error {
	n, err := a.attesterOf(id)
	if err != nil {
		return err
	}
	if !n.limit.Allow() {
		return tooMany(w, "this node attests too often")
	}
	if t, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";"); strings.TrimSpace(t) != protocol.MediaTypeEvidence {
		return refuse(http.StatusUnsupportedMediaType, "media-type", "Evidence is "+protocol.MediaTypeEvidence, "", "set the Content-Type")
	}
	size := r.ContentLength
	switch {
	case size < 0:
		return refuse(http.StatusLengthRequired, "length", "the length of the Evidence must be known", "", "set the Content-Length")
	case size > evidence.MaxDocument:
		return refuse(http.StatusRequestEntityTooLarge, "too-large", "the Evidence is too large",
			fmt.Sprintf("%d bytes, at most %d are taken", size, evidence.MaxDocument), "")
	}
	// Each large one counts as several: what one node can make AIAS read and write in the long run is bounded in bytes, too.
	if more := int(size / largeUnit); more > 0 && !n.limit.AllowN(time.Now(), min(more, a.cfg.Limits.PerNodeBurst)) {
		return tooMany(w, "this node sends too much Evidence")
	}
	ctx, cancel := context.WithTimeout(r.Context(), handleTime)
	defer cancel()
	// What is in memory at a time is bounded for each node and over all nodes, where first come is first served.
	room, weight := a.smallRoom, int32(1)
	if size > smallBody {
		room, weight = a.memory, nodeBodies
	}
	defer n.bodies.Add(-weight)
	if n.bodies.Add(weight) > nodeBodies {
		return tooMany(w, "this node sends too much Evidence at the same time")
	}
	if err := room.Acquire(ctx, size); err != nil {
		return err
	}
	defer room.Release(size)
	body, err := readBody(w, r, size)
	if err != nil {
		return refuse(http.StatusBadRequest, "malformed-evidence", "the Evidence did not arrive whole", err.Error(), "try again")
	}
	a.crew.do(func() {
		var out *protocol.Attestation
		if out, err = a.attest(ctx, n, body, sourceOf(r)); err == nil {
			err = answer(w, out)
		}
	})
	return err
}

// readBody reads a body of known size. One that comes too slowly is dropped: it holds memory that others need.
func readBody(w http.ResponseWriter, r *http.Request, size int64) ([]byte, error) {
	limit := bodyTime + time.Duration(size/bodyRate)*time.Second
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(limit)) // not every test's writer can
	var b bytes.Buffer
	if size <= smallBody {
		b.Grow(int(size) + bytes.MinRead)
	}
	n, err := io.Copy(&b, io.LimitReader(r.Body, size))
	if err != nil {
		return nil, err
	}
	if n < size {
		return nil, io.ErrUnexpectedEOF
	}
	_ = http.NewResponseController(w).SetReadDeadline(time.Time{})
	return b.Bytes(), nil
}
