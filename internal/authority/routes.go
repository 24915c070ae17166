package authority

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"touchstone.dev/touchstone/internal/protocol"
)

// audience says whose certificate a route takes.
type audience int

const (
	anyone      audience = iota // no certificate is needed
	nodesOnly                   // a node
	readers                     // who relies on results
	controllers                 // who also brings policy and tags to AIAS
	operators                   // people who run it
)

// admitted are the roles of an audience. Operators may do what Relying Parties may, never what nodes do.
var admitted = map[audience][]role{
	nodesOnly: {roleNode, roleBoot}, readers: {roleRelyingParty, roleController, roleOperator}, controllers: {roleController, roleOperator}, operators: {roleOperator},
}

const (
	maxRequest = 256 << 10 // bytes of a request body, where a route names no limit of its own
	maxPolicy  = 1 << 20   // bytes of a policy
	handleTime = 60 * time.Second
)

// handler answers one request; an error becomes a Problem.
type handler func(w http.ResponseWriter, r *http.Request, id identity) error

// route is one line of the API. openapi.json has the same lines; a test compares.
type route struct {
	method, path string
	for_         audience
	handle       handler
}

// routes is the whole API.
func (a *Authority) routes() []route {
	return []route{
		{http.MethodPost, protocol.PathEnrol, anyone, a.postEnrol},
		{http.MethodPost, protocol.PathActivate, anyone, a.postActivate},
		{http.MethodGet, protocol.PathChallenge, nodesOnly, a.getChallenge},
		{http.MethodPost, protocol.PathAttest, nodesOnly, a.postAttest},
		{http.MethodPost, protocol.PathRenew, nodesOnly, a.postRenew},
		{http.MethodGet, protocol.PathNews, nodesOnly, a.getNews},
		{http.MethodGet, protocol.PathAudit, nodesOnly, a.getAudit},
		{http.MethodPost, protocol.PathAudit, nodesOnly, a.postAudit},
		{http.MethodGet, protocol.PathNodeAudit, operators, a.getNodeAudit},
		{http.MethodGet, protocol.PathAuditEvents, operators, a.getAuditEvents},
		{http.MethodPost, protocol.PathAuditAccept, operators, a.postAuditAccept},

		{http.MethodPost, protocol.PathCompliance, nodesOnly, a.postCompliance},
		{http.MethodPut, protocol.PathScanDocument, nodesOnly, a.putScanDocument},
		{http.MethodGet, protocol.PathNodeScanDocument, operators, a.getScanDocument},
		{http.MethodGet, protocol.PathTailoring, nodesOnly, a.getTailoring},
		{http.MethodGet, protocol.PathNodeCompliance, readers, a.getCompliance},
		{http.MethodPost, protocol.PathNodeScan, operators, a.postScan},

		{http.MethodPost, protocol.PathScanClaim, nodesOnly, a.postScanClaim},
		{http.MethodPost, protocol.PathScanImage, nodesOnly, a.postScanImage},

		{http.MethodGet, protocol.PathResults, readers, a.getResults},
		{http.MethodGet, protocol.PathNodes, readers, a.getNodes},
		{http.MethodGet, protocol.PathNode, readers, a.getNode},
		{http.MethodDelete, protocol.PathNode, operators, a.deleteNode},
		{http.MethodGet, protocol.PathVerdict, readers, a.getVerdict},
		{http.MethodGet, protocol.PathResult, readers, a.getResult},
		{http.MethodGet, protocol.PathNodeLog, operators, a.getHistory},
		{http.MethodGet, protocol.PathEvidence, operators, a.getEvidence},
		{http.MethodPost, protocol.PathRebind, operators, a.postRebind},
		{http.MethodGet, protocol.PathTags, readers, a.getTags},
		{http.MethodPut, protocol.PathTags, controllers, a.putTags},
		{http.MethodDelete, protocol.PathTags, controllers, a.deleteTags},
		{http.MethodGet, protocol.PathDetections, operators, a.getDetections},
		{http.MethodGet, protocol.PathNodeDetections, operators, a.getNodeDetections},
		{http.MethodPost, protocol.PathDetectionsClear, operators, a.postDetectionsClear},
		{http.MethodGet, protocol.PathHistory, operators, a.getHistory},
		{http.MethodGet, protocol.PathEvents, operators, a.getEvents},
		{http.MethodGet, protocol.PathTokens, operators, a.getTokens},
		{http.MethodPost, protocol.PathTokens, operators, a.postToken},
		{http.MethodDelete, protocol.PathToken, operators, a.deleteToken},
		{http.MethodGet, protocol.PathPolicy, controllers, a.getPolicy},
		{http.MethodPut, protocol.PathPolicy, controllers, a.putPolicy},
		{http.MethodGet, protocol.PathReferences, operators, a.getReferences},
		{http.MethodPost, protocol.PathReload, operators, a.postReload},
		{http.MethodGet, protocol.PathEKs, operators, a.getEKs},
		{http.MethodPost, protocol.PathEKs, operators, a.postEK},
		{http.MethodDelete, protocol.PathEK, operators, a.deleteEK},
		{http.MethodGet, protocol.PathActs, operators, a.getActs},
		{http.MethodGet, protocol.PathDisks, operators, a.getDisks},
		{http.MethodGet, protocol.PathVolumes, operators, a.getVolumes},
		{http.MethodPut, protocol.PathDisk, operators, a.putDisk},
		{http.MethodDelete, protocol.PathDisk, operators, a.deleteDisk},
		{http.MethodPost, protocol.PathDiskAct, operators, a.postDisk},
		{http.MethodPost, protocol.PathDiskRotate, operators, a.postDiskKeys},
		{http.MethodGet, protocol.PathEscrows, operators, a.getEscrows},
		{http.MethodPut, protocol.PathEscrow, operators, a.putEscrow},
		{http.MethodDelete, protocol.PathEscrow, operators, a.deleteEscrow},
		{http.MethodPost, protocol.PathEscrowStep, operators, a.postEscrow},

		{http.MethodPost, protocol.PathImageRelease, nodesOnly, a.postRelease},
		{http.MethodPost, protocol.PathImageHeld, nodesOnly, a.postHeld},
		{http.MethodGet, protocol.PathImageKeys, operators, a.getImageKeys},
		{http.MethodPost, protocol.PathImageKeys, operators, a.postImageKey},
		{http.MethodGet, protocol.PathImageKey, operators, a.getImageKey},
		{http.MethodPut, protocol.PathImageKey, operators, a.putImageKey},
		{http.MethodGet, protocol.PathImages, readers, a.getImages},
		{http.MethodGet, protocol.PathImage, readers, a.getImage},
		{http.MethodPut, protocol.PathImage, operators, a.putImage},
		{http.MethodGet, protocol.PathClasses, readers, a.getClasses},
		{http.MethodPut, protocol.PathClass, controllers, a.putClass},
		{http.MethodDelete, protocol.PathClass, controllers, a.deleteClass},
		{http.MethodGet, protocol.PathKeys, operators, a.getKeys},
		{http.MethodPost, protocol.PathKeysRotate, operators, a.postKeysRotate},
		{http.MethodGet, protocol.PathLedgerKey, operators, a.getLedgerKey},
		{http.MethodGet, protocol.PathLedgerCheckpoint, operators, a.getLedgerCheckpoint},
		{http.MethodGet, protocol.PathLedgerTile, operators, a.getLedgerTile},

		{http.MethodGet, protocol.PathHealth, anyone, a.getHealth},
		{http.MethodGet, protocol.PathReady, anyone, a.getReady},
		{http.MethodGet, protocol.PathMetrics, anyone, a.getMetrics},
		{http.MethodGet, protocol.PathJWKS, anyone, a.getJWKS},
		{http.MethodGet, protocol.PathOpenAPI, anyone, a.getOpenAPI},
	}
}

// Handler serves the API. It takes the caller's identity from the connection's verified client certificate.
func (a *Authority) Handler() http.Handler {
	mux := http.NewServeMux()
	for _, r := range a.routes() {
		seconds := a.metrics.requests.WithLabelValues(r.path)
		mux.HandleFunc(r.method+" "+r.path, func(w http.ResponseWriter, req *http.Request) {
			start := time.Now()
			a.serve(w, req, r)
			seconds.Observe(time.Since(start).Seconds())
		})
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		a.fail(w, r, refuse(http.StatusNotFound, "not-found", "there is nothing here", r.Method+" "+clip(r.URL.Path, 200), "see "+protocol.PathOpenAPI))
	})
	return mux
}

// serve runs one handler behind the check of who asks. A panic ends this request only.
func (a *Authority) serve(w http.ResponseWriter, r *http.Request, rt route) {
	defer func() {
		if p := recover(); p != nil {
			if err, ok := p.(error); ok && errors.Is(err, http.ErrAbortHandler) {
				panic(p)
			}
			a.metrics.panics.Inc()
			a.log.Error("request panicked: please report it", "path", rt.path, "panic", p, "stack", string(debug.Stack()))
			a.fail(w, r, errors.New("internal error"))
		}
	}()
	id, err := a.identify(r, rt.for_)
	if err != nil {
		a.fail(w, r, err)
		return
	}
	if want := admitted[rt.for_]; rt.for_ != anyone && !slices.Contains(want, id.role) {
		a.fail(w, r, refuse(http.StatusForbidden, "role", "this needs the client certificate of "+article(want[0]),
			"", "use the right certificate: nodes get theirs by enrolment, operators from aias init, Relying Parties from aias relying-party add"))
		return
	}
	if err := rt.handle(w, r, id); err != nil {
		a.fail(w, r, err)
	}
}

func article(r role) string {
	if r == roleOperator {
		return "an operator"
	}
	return "a " + string(r)
}

// fail answers with a Problem. What is not a Problem already is AIAS's own failure; its cause stays in the log.
func (a *Authority) fail(w http.ResponseWriter, r *http.Request, err error) {
	var p *protocol.Problem
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &p):
	case errors.As(err, &tooLarge):
		p = refuse(http.StatusRequestEntityTooLarge, "too-large", "the request is too large", fmt.Sprintf("at most %d bytes are taken", tooLarge.Limit), "send less")
	case r.Context().Err() != nil:
		p = refuse(http.StatusServiceUnavailable, "busy", "the request took too long", "", "try again later")
		w.Header().Set("Retry-After", "2")
	case errors.Is(err, errGone):
		p = refuse(http.StatusForbidden, "not-enrolled", "the node was removed", "", "enrol the node again with a join token")
	default:
		a.log.Error("request failed", "method", r.Method, "path", clip(r.URL.Path, 200), "err", err)
		p = refuse(http.StatusInternalServerError, "internal", "AIAS failed", "", "see the log of AIAS, and try again")
	}
	a.metrics.refusals.WithLabelValues(p.Type).Inc()
	w.Header().Set("Content-Type", protocol.MediaTypeProblem)
	w.WriteHeader(p.Status)
	_ = json.NewEncoder(w).Encode(p)
}

func answer(w http.ResponseWriter, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(b)))
	_, err = w.Write(b)
	return ignoreGone(err)
}

// ignoreGone drops the error of a client that went away: nobody is left to tell.
func ignoreGone(error) error { return nil }

// decode reads a JSON body strictly.
func decode(w http.ResponseWriter, r *http.Request, out any) error {
	b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRequest))
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		return err
	}
	if err == nil {
		err = strictJSON(b, out)
	}
	if err != nil {
		return refuse(http.StatusBadRequest, "malformed-request", "the request cannot be read", err.Error(), "see "+protocol.PathOpenAPI)
	}
	return nil
}

// strictJSON reads one flat JSON object that names no unknown field and none twice: of two spellings another reader may take the other one.
func strictJSON(b []byte, out any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(out); err != nil {
		return err
	}
	if _, end := d.Token(); end != io.EOF {
		return errors.New("there is more after the JSON value")
	}
	d = json.NewDecoder(bytes.NewReader(b))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return errors.New("want a JSON object")
	}
	for seen := map[string]bool{}; d.More(); {
		t, err := d.Token()
		if err != nil {
			return err
		}
		name := strings.ToLower(fmt.Sprint(t)) // the decoder takes any case
		if seen[name] {
			return fmt.Errorf("field %q is there twice", name)
		}
		seen[name] = true
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return err
		}
	}
	return nil
}

func (a *Authority) getMetrics(w http.ResponseWriter, r *http.Request, _ identity) error {
	promhttp.HandlerFor(a.metrics.registry, promhttp.HandlerOpts{}).ServeHTTP(w, r)
	return nil
}
