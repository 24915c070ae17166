package export

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"regexp"
)

// Config is one destination: a name, and Syslog or OTLP.
type Config struct {
	Name   string  `json:"name"` // of the cursor; another one begins anew
	Syslog *Syslog `json:"syslog,omitempty"`
	OTLP   *OTLP   `json:"otlp,omitempty"`
}

// TLS says how a destination is recognised, and how we are.
type TLS struct {
	Plain       bool   `json:"plain,omitempty"`       // no TLS: anybody on the way can read and change
	CA          string `json:"ca,omitempty"`          // PEM file; default: those of the system
	Certificate string `json:"certificate,omitempty"` // PEM files of our own certificate and its key
	Key         string `json:"key,omitempty"`
}

// Syslog is a receiver of RFC 5424 messages with octet counting.
type Syslog struct {
	Address string `json:"address"` // HOST:PORT
	TLS
}

// OTLP is a receiver of OpenTelemetry logs.
type OTLP struct {
	URL       string `json:"url"`                 // "https://collector:4318/v1/logs"
	TokenFile string `json:"tokenFile,omitempty"` // with a bearer token, read anew for each request
	TLS
}

var names = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`)

// Validate checks destinations. It reads no files.
func Validate(all []Config) error {
	var errs []error
	seen := map[string]bool{}
	for i := range all {
		c := &all[i]
		bad := func(format string, a ...any) {
			errs = append(errs, fmt.Errorf("audit.export %q: "+format, append([]any{c.Name}, a...)...))
		}
		if !names.MatchString(c.Name) || seen[c.Name] {
			bad("a name is of a to z, 0 to 9 and -, and there once")
		}
		seen[c.Name] = true
		switch {
		case (c.Syslog == nil) == (c.OTLP == nil):
			bad("want either syslog or otlp")
		case c.Syslog != nil:
			if host, _, err := net.SplitHostPort(c.Syslog.Address); err != nil || host == "" {
				bad("syslog.address %q: want HOST:PORT", c.Syslog.Address)
			}
			errs = append(errs, c.Syslog.validate(c.Name))
		default:
			u, err := url.Parse(c.OTLP.URL)
			want := "https"
			if c.OTLP.Plain {
				want = "http"
			}
			if err != nil || u.Scheme != want || u.Host == "" || u.Path == "" || u.Path == "/" {
				bad("otlp.url %q: want %s://HOST:PORT/v1/logs; http only with plain: true", c.OTLP.URL, want)
			}
			errs = append(errs, c.OTLP.validate(c.Name))
		}
	}
	return errors.Join(errs...)
}

func (t *TLS) validate(name string) error {
	if (t.Certificate == "") != (t.Key == "") {
		return fmt.Errorf("audit.export %q: certificate and key go together", name)
	}
	if t.Plain && t.CA+t.Certificate != "" {
		return fmt.Errorf("audit.export %q: plain, and TLS is configured: take one out", name)
	}
	return nil
}

// config reads the files. They are read for each connection: certificates are renewed.
func (t *TLS) config() (*tls.Config, error) {
	if t.Plain {
		return nil, nil //nolint:nilnil // no TLS
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	if t.CA != "" {
		b, err := os.ReadFile(t.CA)
		if err != nil {
			return nil, err
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(b) {
			return nil, fmt.Errorf("no certificate in %s", t.CA)
		}
	}
	if t.Certificate != "" {
		pair, err := tls.LoadX509KeyPair(t.Certificate, t.Key)
		if err != nil {
			return nil, err
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}
