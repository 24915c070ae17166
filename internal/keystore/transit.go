package keystore

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"path"
	"regexp"
	"strings"
	"time"
)

const (
	transitTime   = 10 * time.Second
	maxTransit    = 64 << 10 // bytes of an answer
	transitMount  = "transit"
	transitPrefix = "transit:"
	transitType   = "aes256-gcm96"
)

// transitSource is the transit engine of a Vault or OpenBao server. It speaks the documented HTTP API, which both have: the clients of the two
// projects bring what this does not need.
type transitSource struct {
	config Transit
	http   *http.Client
}

// Validate checks that all is there that has no default; at is where in the configuration t stands.
func (t *Transit) Validate(at string) error {
	var errs []error
	u, err := url.Parse(t.Address)
	switch {
	case err != nil || u.Host == "" || u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.User != nil:
		errs = append(errs, fmt.Errorf("%s.address %q: want https://HOST:PORT", at, t.Address))
	case u.Scheme != "https" && (u.Scheme != "http" || !loopback(u.Hostname())):
		errs = append(errs, fmt.Errorf("%s.address %q: want https; http is for a server on this machine", at, t.Address))
	}
	if t.TokenFile == "" {
		errs = append(errs, fmt.Errorf("%s.tokenFile is empty", at))
	}
	for _, f := range []struct{ name, value string }{{"mount", t.Mount}, {"key", t.Key}} {
		if f.value != "" && (path.Clean("/"+f.value) != "/"+f.value || strings.ContainsAny(f.value, "?#% ")) {
			errs = append(errs, fmt.Errorf("%s.%s %q: want a plain name", at, f.name, f.value))
		}
	}
	return errors.Join(errs...)
}

func loopback(host string) bool {
	a, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && a.IsLoopback()
}

func openTransit(c Transit) (source, error) {
	if c.Mount == "" {
		c.Mount = transitMount
	}
	if c.Key == "" {
		c.Key = "aias"
	}
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.Proxy, t.MaxIdleConnsPerHost = nil, 16
	t.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12}
	if c.CAFile != "" {
		pem, err := readSmall(c.CAFile, maxTransit)
		if err != nil {
			return nil, fmt.Errorf("transit: read the CA: %w", err)
		}
		t.TLSClientConfig.RootCAs = x509.NewCertPool()
		if !t.TLSClientConfig.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("transit: %s has no certificate in it", c.CAFile)
		}
	}
	// A redirect would carry the token to whoever is named.
	stay := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &transitSource{c, &http.Client{Transport: t, Timeout: transitTime, CheckRedirect: stay}}, nil
}

// transitError is what the server says of a request that it did not do.
type transitError struct {
	status int
	errors []string
}

func (e *transitError) Error() string {
	hint := map[int]string{
		http.StatusForbidden: "the token is not valid (any more), or its policy does not allow this", http.StatusServiceUnavailable: "the server is sealed, or has no leader",
		http.StatusNotFound: "there is no such key, or no transit engine at this mount", http.StatusTemporaryRedirect: "the server sends elsewhere: set the address of the active one",
	}[e.status]
	return strings.TrimRight(fmt.Sprintf("%d %s: %s", e.status, strings.Join(e.errors, "; "), hint), ": ")
}

// call makes a request of the API, and reads the member data of the answer. The token is read each time: an agent of the server renews it.
func (t *transitSource) call(ctx context.Context, method, where string, body, data any) error {
	token, err := readSmall(t.config.TokenFile, 4<<10)
	if err != nil {
		return fmt.Errorf("transit: read the token: %w", err)
	}
	var sent io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return err
		}
		sent = bytes.NewReader(b)
	}
	u := strings.TrimRight(t.config.Address, "/") + "/v1/" + t.config.Mount + "/" + where
	req, err := http.NewRequestWithContext(ctx, method, u, sent)
	if err != nil {
		return fmt.Errorf("transit: %w", err)
	}
	req.Header.Set("X-Vault-Token", string(bytes.TrimSpace(token)))
	req.Header.Set("X-Vault-Request", "true")
	if t.config.Namespace != "" {
		req.Header.Set("X-Vault-Namespace", t.config.Namespace)
	}
	resp, err := t.http.Do(req)
	if err != nil {
		return fmt.Errorf("transit: %w", err)
	}
	defer resp.Body.Close() //nolint:errcheck // it was read
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxTransit))
	if err != nil {
		return fmt.Errorf("transit: %w", err)
	}
	if resp.StatusCode/100 != 2 {
		var said struct {
			Errors []string `json:"errors"`
		}
		_ = json.Unmarshal(b, &said) // else the status is all there is
		return fmt.Errorf("transit: %w", &transitError{resp.StatusCode, said.Errors})
	}
	if data == nil {
		return nil
	}
	answer := struct {
		Data any `json:"data"`
	}{data}
	if err := json.Unmarshal(b, &answer); err != nil {
		return fmt.Errorf("transit: the answer cannot be read: %w", err)
	}
	return nil
}

// name is that of a key at the server, by its ID.
func (t *transitSource) name(id string) (string, bool) {
	text, ok := strings.CutPrefix(id, transitPrefix)
	b, err := hex.DecodeString(text)
	return t.config.Key + "-" + text, ok && err == nil && len(b) == 8
}

// check looks at a key: one that can leave the server, or is derived for each use, is not what was asked for.
func (t *transitSource) check(ctx context.Context, name string) error {
	var k struct {
		Type       string `json:"type"`
		Exportable *bool  `json:"exportable"`
		Derived    bool   `json:"derived"`
	}
	if err := t.call(ctx, http.MethodGet, "keys/"+name, nil, &k); err != nil {
		return err
	}
	if k.Type != transitType || k.Exportable == nil || *k.Exportable || k.Derived {
		return fmt.Errorf("transit: key %s is of type %.20q, or exportable, or derived: want %s that stays in the server", name, k.Type, transitType)
	}
	return nil
}

func (t *transitSource) find(ctx context.Context, records []record) (out []KEK, err error) {
	for _, r := range records {
		name, ok := t.name(r.ID)
		if !ok {
			continue
		}
		err := t.check(ctx, name)
		if e := (*transitError)(nil); errors.As(err, &e) && e.status == http.StatusNotFound {
			continue // Open says which key is missing
		}
		if err != nil {
			return nil, err
		}
		out = append(out, &transitKey{t, r.ID, name})
	}
	return out, nil
}

func (t *transitSource) add(ctx context.Context, _ []record) (KEK, record, error) {
	id := make([]byte, 8)
	_, _ = rand.Read(id) // never fails: crypto/rand ends the program instead
	k := &transitKey{source: t, id: transitPrefix + hex.EncodeToString(id)}
	k.name, _ = t.name(k.id)
	err := t.call(ctx, http.MethodPost, "keys/"+k.name, map[string]any{"type": transitType, "exportable": false, "allow_plaintext_backup": false}, nil)
	if err == nil {
		err = t.check(ctx, k.name)
	}
	if err != nil {
		return nil, record{}, fmt.Errorf("make key %s: %w", k.name, err)
	}
	return k, record{}, nil
}

// retire destroys only keys that the records name.
func (t *transitSource) retire(ctx context.Context, gone, _ []record) error {
	for _, r := range gone {
		name, ok := t.name(r.ID)
		if !ok {
			continue // of another place
		}
		err := t.call(ctx, http.MethodPost, "keys/"+name+"/config", map[string]any{"deletion_allowed": true}, nil)
		if err == nil {
			err = t.call(ctx, http.MethodDelete, "keys/"+name, nil, nil)
		}
		if err != nil {
			return fmt.Errorf("destroy key %s: %w", name, err)
		}
	}
	return nil
}

// transitKey is a KEK in the server.
type transitKey struct {
	source   *transitSource
	id, name string
}

// ID returns the ID.
func (k *transitKey) ID() string { return k.id }

type transitText struct {
	Plain  string `json:"plaintext,omitempty"`
	Cipher string `json:"ciphertext,omitempty"`
	AAD    string `json:"associated_data,omitempty"`
}

// Wrap encrypts in the server. It makes a key of that name when there is none and the policy of the token lets it: give it no right to create
// under encrypt/.
func (k *transitKey) Wrap(ctx context.Context, plain, aad []byte) ([]byte, error) {
	in := transitText{Plain: base64.StdEncoding.EncodeToString(plain), AAD: base64.StdEncoding.EncodeToString(aad)}
	var out transitText
	if err := k.source.call(ctx, http.MethodPost, "encrypt/"+k.name, in, &out); err != nil {
		return nil, fmt.Errorf("encrypt by key %s: %w", k.name, err)
	}
	if out.Cipher == "" {
		return nil, fmt.Errorf("encrypt by key %s: transit: there is no ciphertext in the answer", k.name)
	}
	return []byte(out.Cipher), nil
}

var transitVersion = regexp.MustCompile(`^vault:v[1-9][0-9]{0,8}$`)

// wellFormed reports whether b is what the engine writes, of which there is one form: it also reads others (version 0, loose base64).
func wellFormed(b []byte) bool {
	at := bytes.LastIndexByte(b, ':')
	if at < 0 || !transitVersion.Match(b[:at]) {
		return false
	}
	data, err := base64.StdEncoding.DecodeString(string(b[at+1:]))
	return err == nil && base64.StdEncoding.EncodeToString(data) == string(b[at+1:])
}

// Unwrap decrypts in the server.
func (k *transitKey) Unwrap(ctx context.Context, wrapped, aad []byte) ([]byte, error) {
	if !wellFormed(wrapped) {
		return nil, ErrSealed
	}
	in := transitText{Cipher: string(wrapped), AAD: base64.StdEncoding.EncodeToString(aad)}
	var out transitText
	err := k.source.call(ctx, http.MethodPost, "decrypt/"+k.name, in, &out)
	e := (*transitError)(nil)
	switch said := strings.ToLower(fmt.Sprint(err)); {
	case errors.As(err, &e) && strings.Contains(said, "key not found"):
		return nil, fmt.Errorf("key %s: %w (%w)", k.name, ErrUnknownKey, err)
	case e != nil && e.status == http.StatusBadRequest: // the request is well formed: what it asks to open is not
		return nil, fmt.Errorf("%w (%w)", ErrSealed, err)
	case err != nil:
		return nil, fmt.Errorf("decrypt by key %s: %w", k.name, err)
	}
	plain, err := base64.StdEncoding.DecodeString(out.Plain)
	if err != nil || len(plain) == 0 {
		return nil, fmt.Errorf("decrypt by key %s: transit: there is no plaintext in the answer", k.name)
	}
	return plain, nil
}
