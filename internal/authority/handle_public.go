package authority

import (
	"context"
	_ "embed"
	"net/http"
	"time"
)

//go:embed openapi.json
var openAPI []byte

// OpenAPI returns the OpenAPI 3.1 document of the API.
func OpenAPI() []byte { return openAPI }

// getHealth answers while the process lives.
func (a *Authority) getHealth(w http.ResponseWriter, _ *http.Request, _ identity) error {
	return text(w, "text/plain; charset=utf-8", []byte("ok\n"))
}

// getReady answers when AIAS can judge: the database answers and a policy is in force. A line below says what a person should see to while it still can.
func (a *Authority) getReady(w http.ResponseWriter, r *http.Request, _ identity) error {
	ctx, cancel := context.WithTimeout(r.Context(), 2*time.Second)
	defer cancel()
	if err := a.store.Ping(ctx); err != nil {
		a.log.Error("the database does not answer", "err", err)
		return refuse(http.StatusServiceUnavailable, "not-ready", "the database does not answer or takes no writes", "", "see the log of AIAS; is the disk full?")
	}
	out := "ready\n"
	if s := ledgerWarning(a.ledger.Health()); s != "" {
		out += s + "\n"
	}
	return text(w, "text/plain; charset=utf-8", []byte(out))
}

func (a *Authority) getJWKS(w http.ResponseWriter, _ *http.Request, _ identity) error {
	w.Header().Set("Cache-Control", "max-age=300")
	return text(w, "application/jwk-set+json", a.jwks)
}

func (a *Authority) getOpenAPI(w http.ResponseWriter, _ *http.Request, _ identity) error {
	return text(w, "application/openapi+json", openAPI)
}

func text(w http.ResponseWriter, mediaType string, b []byte) error {
	w.Header().Set("Content-Type", mediaType)
	_, err := w.Write(b) //nolint:gosec // own documents, never of type HTML
	return ignoreGone(err)
}
