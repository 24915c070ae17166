package authority

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"sigs.k8s.io/yaml"

	"touchstone.dev/touchstone/internal/keystore"
	"touchstone.dev/touchstone/internal/nbde"
)

// Config is the configuration file of AIAS (deploy/aias.yaml says what each field means).
type Config struct {
	Listen              string          `json:"listen"`
	Data                string          `json:"data"`
	Address             string          `json:"address"`
	ServerNames         []string        `json:"serverNames"`
	Keys                keystore.Config `json:"keys"`
	KeyFile             string          `json:"keyFile"`        // earlier name of keys.file
	PassphraseFile      string          `json:"passphraseFile"` // earlier name of keys.passphraseFile
	PolicyFile          string          `json:"policyFile"`
	References          string          `json:"references"`
	EKAllowList         string          `json:"ekAllowList"`
	SoftwareTPMRoots    string          `json:"softwareTPMRoots"`
	DetectionRules      string          `json:"detectionRules"`
	CertificateLifetime Duration        `json:"certificateLifetime"`
	ChallengeLifetime   Duration        `json:"challengeLifetime"`
	Kubernetes          Kubernetes      `json:"kubernetes"`
	Disks               Disks           `json:"disks"`
	Audit               Audit           `json:"audit"`
	Limits              Limits          `json:"limits"`
	Log                 LogSettings     `json:"log"`
}

// Limits bound what nodes can ask of AIAS.
type Limits struct {
	Appraisals       int      `json:"appraisals"`       // at a time; 0: one for each CPU
	EvidenceInFlight int64    `json:"evidenceInFlight"` // bytes of large Evidence in memory at a time
	PerNode          float64  `json:"perNode"`          // attestations a second and node, in the long run
	PerNodeBurst     int      `json:"perNodeBurst"`     // and at once
	Enrolments       float64  `json:"enrolments"`       // enrolment requests a second, all together
	Connections      int      `json:"connections"`      // open at a time
	Waiting          int      `json:"waiting"`          // nodes that wait for news at a time, each with a connection
	Idle             Duration `json:"idle"`             // how long a connection stays open without a request
}

// LogSettings say how AIAS logs.
type LogSettings struct {
	Format string `json:"format"` // text or json
	Level  string `json:"level"`  // debug, info, warn or error
}

// Duration is a time.Duration written as "10m" or "24h".
type Duration time.Duration

// UnmarshalText reads a Go duration.
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	if err != nil {
		return fmt.Errorf("duration %q: write it like 90s, 10m or 24h", b)
	}
	*d = Duration(v)
	return nil
}

// MarshalText writes a Go duration.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// DefaultConfig returns what holds for every field that the file leaves out.
func DefaultConfig() Config {
	return Config{
		Listen: ":8443", Data: "/var/lib/aias",
		CertificateLifetime: Duration(30 * 24 * time.Hour), ChallengeLifetime: Duration(10 * time.Minute),
		Kubernetes: Kubernetes{Audience: "aias", Controllers: []string{}, RelyingParties: []string{}, Agents: []string{}},
		Disks:      Disks{PerNode: 20, PerAddress: 100, Curve: nbde.DefaultCurve},
		Audit:      Audit{MaxBytes: 2 << 30, MaxAge: Duration(90 * 24 * time.Hour), PerNode: 4 << 20},
		Limits: Limits{
			EvidenceInFlight: 256 << 20, PerNode: 5, PerNodeBurst: 20, Enrolments: 1000, Connections: 20000, Waiting: 1000, Idle: Duration(10 * time.Second),
		},
		Log: LogSettings{Format: "text", Level: "info"},
	}
}

// ParseConfig reads a configuration over the defaults, lets override change it, fills in what depends on other fields and validates. Unknown
// fields are refused.
func ParseConfig(data []byte, override ...func(*Config)) (Config, error) {
	c := DefaultConfig()
	if err := yaml.UnmarshalStrict(data, &c); err != nil {
		return c, fmt.Errorf("configuration: %w", err)
	}
	for _, f := range override {
		f(&c)
	}
	return c, c.complete()
}

// complete fills in what depends on other fields, and validates.
func (c *Config) complete() error {
	var errs []error
	bad := func(format string, a ...any) { errs = append(errs, fmt.Errorf("configuration: "+format, a...)) }
	if c.Data == "" {
		bad("data is empty: name the folder that AIAS may keep its data in")
	}
	errs = append(errs, c.keys())
	if c.References == "" {
		c.References = filepath.Join(c.Data, "references")
	}
	host, port, err := net.SplitHostPort(c.Listen)
	if err != nil {
		bad("listen %q: want HOST:PORT or :PORT", c.Listen)
	}
	c.names(host)
	if c.Address == "" && len(c.ServerNames) > 0 {
		c.Address = net.JoinHostPort(c.ServerNames[0], port)
	}
	if day := 24 * time.Hour; time.Duration(c.CertificateLifetime) < day || time.Duration(c.CertificateLifetime) > 90*day {
		bad("certificateLifetime %v: want 24h to 2160h (90 days)", time.Duration(c.CertificateLifetime))
	}
	if l := time.Duration(c.ChallengeLifetime); l < 10*time.Second || l > 24*time.Hour {
		bad("challengeLifetime %v: want 10s to 24h", l)
	}
	errs = append(errs, c.Kubernetes.complete(), c.Disks.complete(c), c.Audit.complete())
	l := c.Limits
	if l.Appraisals < 0 || l.EvidenceInFlight < 64<<20 || l.PerNode <= 0 || l.PerNodeBurst < 1 || l.Enrolments <= 0 || l.Connections < 1 || l.Waiting < 0 || l.Idle < Duration(time.Second) {
		bad("limits: all must be positive (waiting may be 0), evidenceInFlight at least 67108864, idle at least 1s")
	}
	if f := c.Log.Format; f != "text" && f != "json" {
		bad("log.format %q: want text or json", f)
	}
	if err := new(slog.Level).UnmarshalText([]byte(c.Log.Level)); err != nil {
		bad("log.level %q: want debug, info, warn or error", c.Log.Level)
	}
	return errors.Join(errs...)
}

// keys fills in where the key-encryption keys are.
func (c *Config) keys() error {
	earlier := keystore.Source{File: c.KeyFile, PassphraseFile: c.PassphraseFile}
	switch {
	case earlier.Empty():
	case c.Keys.Empty():
		c.Keys.Source = earlier
	case c.Keys.Source != earlier: // else complete was here before
		return errors.New("configuration: keyFile and passphraseFile are earlier names of keys.file and keys.passphraseFile: set only one of them")
	}
	if c.Keys.Empty() {
		c.Keys.File = filepath.Join(c.Data, "aias.key")
	}
	if err := c.Keys.Validate(); err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	return nil
}

// names fills in the names of the server certificate: the address that others use, which is among them in any case; else the listening
// address, this host, and loopback.
func (c *Config) names(host string) {
	given := len(c.ServerNames) > 0
	if h, _, err := net.SplitHostPort(c.Address); err == nil && !slices.Contains(c.ServerNames, h) {
		c.ServerNames = append(c.ServerNames, h)
	}
	if given {
		return
	}
	if ip := net.ParseIP(host); host != "" && (ip == nil || !ip.IsUnspecified()) {
		c.ServerNames = append(c.ServerNames, host)
	}
	c.ServerNames = append(c.ServerNames, "localhost", "127.0.0.1", "::1")
	if h, err := os.Hostname(); err == nil && h != "" {
		c.ServerNames = append(c.ServerNames, strings.ToLower(h))
	}
}
