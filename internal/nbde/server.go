package nbde

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
)

// maxBody is how many bytes a request may have. A blinded point has some 260 of them; tangd takes 64 KiB.
const maxBody = 4096

// Reasons why a gate lets nobody through. The client is told only the status: why stands in the log and the ledger.
var (
	ErrDenied = errors.New("not allowed")        // 403
	ErrBusy   = errors.New("too many requests")  // 429
	ErrAway   = errors.New("cannot be told now") // 503
)

// Ask is a recovery that somebody wants: a point that lies on the curve, for a key that exists.
type Ask struct {
	Node   string // whose URL prefix was used; "" for none
	Key    *Held
	Source netip.Addr // where the connection came from
}

// Server speaks the protocol of Tang. Every URL may have a prefix that names a node: /n/NODE/adv, /n/NODE/rec/KID.
type Server struct {
	// Ring returns the keys of a prefix, nil when it has none.
	Ring func(ctx context.Context, node string) (*Ring, error)
	// Gate is asked before each recovery. Its errors wrap ErrDenied, ErrBusy or ErrAway.
	Gate func(ctx context.Context, a Ask) error
	// Failed, when set, is told of an Ask that Gate let through, and that got no answer all the same: an HSM is away.
	Failed func(ctx context.Context, a Ask, err error)
	Log    *slog.Logger
}

// target is what a path asks for.
type target struct {
	node, verb, name string
}

// ServeHTTP answers one request. It takes the path as it was sent: http.ServeMux would redirect repeated slashes away, which tangd accepts.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	t, ok := parsePath(r.URL.EscapedPath())
	if !ok || r.URL.RawQuery != "" || r.URL.ForceQuery {
		refuse(w, http.StatusNotFound)
		return
	}
	want := map[string]string{verbAdvertise: http.MethodGet, verbRecover: http.MethodPost}[t.verb]
	if r.Method != want {
		w.Header().Set("Allow", want)
		refuse(w, http.StatusMethodNotAllowed)
		return
	}
	ring, err := s.Ring(r.Context(), t.node)
	switch {
	case err != nil:
		s.Log.Error("keys of disks cannot be had", "node", t.node, "err", err)
		refuse(w, http.StatusServiceUnavailable)
	case ring == nil:
		refuse(w, http.StatusNotFound)
	case t.verb == verbAdvertise:
		s.advertise(w, ring, t)
	default:
		s.recover(w, r, ring, t)
	}
}

func (s *Server) advertise(w http.ResponseWriter, ring *Ring, t target) {
	b, err := ring.Advertisement(t.name)
	if errors.Is(err, errNoKey) {
		refuse(w, http.StatusNotFound)
		return
	}
	if err != nil {
		s.Log.Error("advertisement of disk keys failed", "node", t.node, "err", err)
		refuse(w, http.StatusInternalServerError)
		return
	}
	send(w, "application/jose+json", b)
}

func (s *Server) recover(w http.ResponseWriter, r *http.Request, ring *Ring, t target) {
	k := ring.Find(t.name)
	if k == nil {
		refuse(w, http.StatusNotFound)
		return
	}
	if k.Use != Exchange {
		refuse(w, http.StatusForbidden)
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		status := http.StatusBadRequest
		if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
			status = http.StatusRequestEntityTooLarge
		}
		refuse(w, status)
		return
	}
	point, err := parseAsk(body, k.Curve)
	if err != nil {
		s.Log.Debug("a request for a disk key was malformed", "node", t.node, "from", r.RemoteAddr, "err", err)
		status := http.StatusBadRequest
		if errors.Is(err, errOps) {
			status = http.StatusForbidden
		}
		refuse(w, status)
		return
	}
	ask := Ask{Node: t.node, Key: k, Source: source(r)}
	if err := s.Gate(r.Context(), ask); err != nil {
		refuse(w, statusOf(err))
		return
	}
	answer, err := k.Recover(point)
	if err != nil {
		s.Log.Error("recovery of a disk key failed", "node", t.node, "kid", k.Thumbprint, "err", err)
		if s.Failed != nil {
			s.Failed(context.WithoutCancel(r.Context()), ask, err)
		}
		refuse(w, http.StatusInternalServerError)
		return
	}
	send(w, "application/jwk+json", formAnswer(answer, k.Curve))
}

// statusOf is the status of a gate's answer. An error that is none of the known ones denies, too.
func statusOf(err error) int {
	switch {
	case errors.Is(err, ErrBusy):
		return http.StatusTooManyRequests
	case errors.Is(err, ErrAway):
		return http.StatusServiceUnavailable
	}
	return http.StatusForbidden
}

// refuse answers with a status and no words, as tangd does.
func refuse(w http.ResponseWriter, status int) {
	w.Header().Set("Content-Length", "0")
	w.WriteHeader(status)
}

func send(w http.ResponseWriter, kind string, b []byte) {
	w.Header().Set("Content-Type", kind)
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Content-Length", strconv.Itoa(len(b)))
	w.Write(b)
}

// source is the address of the connection. What a proxy says of others does not count.
func source(r *http.Request) netip.Addr {
	a, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	return a.Addr().Unmap().WithZone("")
}

const (
	verbAdvertise = "adv"
	verbRecover   = "rec"
	verbNode      = "n"
	maxPath       = 1024
	maxNode       = 253
)

// parsePath reads [/n/NODE]/adv[/NAME] and [/n/NODE]/rec/NAME. As tangd's, each slash may be repeated, and some may follow adv.
func parsePath(p string) (target, bool) {
	var t target
	if len(p) > maxPath {
		return t, false
	}
	word, rest, ok := segment(p)
	if ok && word == verbNode {
		if t.node, rest, ok = segment(rest); !ok || !nodeName(t.node) {
			return t, false
		}
		word, rest, ok = segment(rest)
	}
	if !ok || word != verbAdvertise && word != verbRecover {
		return t, false
	}
	t.verb = word
	if strings.Trim(rest, "/") == "" {
		return t, word == verbAdvertise
	}
	t.name, rest, ok = segment(rest)
	return t, ok && rest == "" && keyName(t.name)
}

// segment takes slashes and the word after them off p.
func segment(p string) (word, rest string, ok bool) {
	trimmed := strings.TrimLeft(p, "/")
	if trimmed == p || trimmed == "" {
		return "", "", false
	}
	end := strings.IndexByte(trimmed, '/')
	if end < 0 {
		end = len(trimmed)
	}
	return trimmed[:end], trimmed[end:], true
}

// keyName reports whether s can be a thumbprint.
func keyName(s string) bool {
	return s != "" && strings.IndexFunc(s, func(c rune) bool {
		return !(c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '-' || c == '_')
	}) < 0
}

// nodeName reports whether s can be the name of a node.
func nodeName(s string) bool {
	return len(s) <= maxNode && strings.IndexFunc(s, func(c rune) bool {
		return !(c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c == '-' || c == '.')
	}) < 0
}
