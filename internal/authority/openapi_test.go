package authority

import (
	"encoding/json"
	"net/http"
	"reflect"
	"strings"
	"testing"

	"touchstone.dev/touchstone/internal/protocol"
)

type document struct {
	OpenAPI string
	Paths   map[string]map[string]struct {
		Tags     []string
		Security []map[string][]string
	}
	Components struct {
		Schemas map[string]struct {
			Properties map[string]any
		}
	}
}

func TestOpenAPIHasEveryRoute(t *testing.T) {
	var d document
	if err := json.Unmarshal(OpenAPI(), &d); err != nil {
		t.Fatal(err)
	}
	if d.OpenAPI != "3.1.0" {
		t.Errorf("openapi: got %q, want 3.1.0", d.OpenAPI)
	}
	tags := map[audience]string{anyone: "public", nodesOnly: "node", readers: "relying-party", controllers: "controller", operators: "operator"}
	have := map[string]bool{}
	a := &Authority{}
	for _, r := range a.routes() {
		key := strings.ToLower(r.method) + " " + r.path
		have[key] = true
		op, ok := d.Paths[r.path][strings.ToLower(r.method)]
		if !ok {
			t.Errorf("route %s: not in openapi.json", key)
			continue
		}
		if len(op.Tags) != 1 || op.Tags[0] != tags[r.for_] {
			t.Errorf("route %s: openapi.json says it is for %v, want %s", key, op.Tags, tags[r.for_])
		}
		if (len(op.Security) > 0) != (r.for_ != anyone) {
			t.Errorf("route %s: openapi.json asks for %v", key, op.Security)
		}
	}
	for path, ops := range d.Paths {
		for method := range ops {
			if !have[method+" "+path] {
				t.Errorf("openapi.json has %s %s, which is no route", method, path)
			}
		}
	}
}

// TestOpenAPIHasEveryField compares the schemas with the Go types that are sent.
func TestOpenAPIHasEveryField(t *testing.T) {
	var d document
	if err := json.Unmarshal(OpenAPI(), &d); err != nil {
		t.Fatal(err)
	}
	for _, v := range []any{
		protocol.Problem{}, protocol.EnrolRequest{}, protocol.EnrolChallenge{}, protocol.EnrolProof{}, protocol.Enrolment{},
		protocol.Selection{}, protocol.Challenge{}, protocol.LevelInfo{}, protocol.Attestation{}, protocol.RenewRequest{}, protocol.Renewal{},
		protocol.AssetTag{}, protocol.News{}, protocol.AuditAck{}, protocol.AuditReport{}, protocol.AuditFinding{}, protocol.TagRequest{}, protocol.TagState{},
		protocol.ComplianceReport{}, protocol.ComplianceAnswer{}, protocol.NodeCompliance{}, protocol.ScanRequest{}, protocol.Tailoring{}, protocol.ScanDocument{},
		protocol.Node{}, protocol.NodeList{}, protocol.Report{}, protocol.SignedResult{}, protocol.NodeResult{}, protocol.Change{}, protocol.History{},
		protocol.RebindRequest{}, protocol.TokenRequest{}, protocol.Token{}, protocol.TokenList{}, protocol.Snapshot{}, protocol.Reference{},
		protocol.ReferenceList{}, protocol.EK{}, protocol.EKList{}, protocol.Act{}, protocol.ActList{}, protocol.KeyInfo{}, protocol.KeyList{}, protocol.KeyRotation{},
		protocol.ImageKeyRequest{}, protocol.ImageKey{}, protocol.ImageKeyList{}, protocol.ImageKeyChange{}, protocol.ReleaseRequest{}, protocol.Release{},
		protocol.HeldKeys{}, protocol.LostKeys{}, protocol.LostKey{}, protocol.Class{}, protocol.ClassList{},
		protocol.ImageReport{}, protocol.ImageFeed{}, protocol.ImageFlaw{}, protocol.ImageResult{}, protocol.ImageResultList{},
		protocol.ScanClaim{}, protocol.ClaimedImage{}, protocol.ScanLease{}, protocol.WorkerScan{}, protocol.ScanTaken{}, protocol.ScanWorker{},
		protocol.DiskPolicy{}, protocol.DiskAct{}, protocol.DiskLast{}, protocol.DiskClient{}, protocol.DiskKey{}, protocol.Disk{}, protocol.DiskList{},
		protocol.Detection{}, protocol.DetectionList{}, protocol.ClearRequest{}, protocol.EscrowDeposit{}, protocol.EscrowStep{}, protocol.Escrow{}, protocol.EscrowList{},
	} {
		typ := reflect.TypeOf(v)
		schema, ok := d.Components.Schemas[typ.Name()]
		if !ok {
			t.Errorf("schema %s: not in openapi.json", typ.Name())
			continue
		}
		fields := map[string]bool{}
		for i := range typ.NumField() {
			name, _, _ := strings.Cut(typ.Field(i).Tag.Get("json"), ",")
			fields[name] = true
			if _, ok := schema.Properties[name]; !ok {
				t.Errorf("schema %s: field %q is not in openapi.json", typ.Name(), name)
			}
		}
		for name := range schema.Properties {
			if !fields[name] {
				t.Errorf("schema %s: openapi.json has %q, the type does not", typ.Name(), name)
			}
		}
	}
}

func TestPublicPaths(t *testing.T) {
	w := newWorld(t)
	w.enrolled("worker-1").attest()
	for _, path := range []string{protocol.PathHealth, protocol.PathReady, protocol.PathMetrics, protocol.PathJWKS, protocol.PathOpenAPI} {
		if err := w.call(w.client(), http.MethodGet, path, nil, nil); err != nil && !strings.Contains(err.Error(), "invalid character") {
			t.Errorf("GET %s: %v", path, err)
		}
	}
	wantProblem(t, "unknown path", w.call(w.client(), http.MethodGet, "/nothing", nil, nil), http.StatusNotFound, "not-found")
	wantProblem(t, "trailing JSON", w.call(w.client(), http.MethodPost, protocol.PathEnrol, json.RawMessage(`{}`), nil), http.StatusBadRequest, "node-name")
	wantProblem(t, "unknown field", w.call(w.client(), http.MethodPost, protocol.PathEnrol, map[string]int{"x": 1}, nil), http.StatusBadRequest, "malformed-request")
	wantProblem(t, "large request", w.call(w.client(), http.MethodPost, protocol.PathEnrol, strings.Repeat("x", maxRequest), nil), http.StatusRequestEntityTooLarge, "too-large")
}
