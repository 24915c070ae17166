package agent

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"time"

	"sigs.k8s.io/yaml"

	"touchstone.dev/touchstone/internal/assettag"
	"touchstone.dev/touchstone/internal/audit/source"
	"touchstone.dev/touchstone/internal/compliance/content"
)

// Config is the configuration of the agent. The zero value is not usable; start from Defaults.
type Config struct {
	// Server is the https URL of AIAS.
	Server string `json:"server"`
	// Node is the name that the worker enrols under; empty means the host name.
	Node string `json:"node"`
	// TokenFile holds the join token. The agent reads it only while it is not enrolled.
	TokenFile string `json:"tokenFile"`
	// CAFile is a PEM file of the root that signed the certificate of AIAS.
	CAFile string `json:"caFile"`
	// CAHash pins that root instead: "sha256:" and the hexadecimal SHA-256 of its DER.
	CAHash string `json:"caHash"`
	// StateDir holds the enrolment: certificates, no keys.
	StateDir string `json:"stateDir"`
	// StatusFile is rewritten after every attestation, for `trust-agent status`; empty means none.
	StatusFile string `json:"statusFile"`
	// TPM is a device ("/dev/tpmrm0"), or "unix:" and the path of the socket of a software TPM.
	TPM string `json:"tpm"`
	// HostRoot is the folder under which the agent reads sys/kernel/security, proc and the rest.
	HostRoot string `json:"hostRoot"`
	// Mountinfo is the worker's table of mounts below HostRoot, from which the agent tells which volumes are encrypted; "-" means that it does not.
	Mountinfo string `json:"mountinfo"`
	// NVTag says where in the TPM the asset tag is kept that AIAS signs for it.
	NVTag NVTagConfig `json:"nvTag"`
	// Kubelet says where the keys of the worker's kubelet are.
	Kubelet KubeletConfig `json:"kubelet"`
	// ImageProvider says how the container runtime gets the keys of encrypted images.
	ImageProvider ImageProviderConfig `json:"imageProvider"`
	// Audit says how the kernel's audit events get to AIAS.
	Audit AuditConfig `json:"audit"`
	// Compliance says how the worker is scanned with OpenSCAP.
	Compliance ComplianceConfig `json:"compliance"`
	// ImageScans says how images that the worker has are scanned.
	ImageScans ImageScanConfig `json:"imageScans"`
	// AssetTags are what the operator says about this machine; they travel as a claimed fact.
	AssetTags map[string]string `json:"assetTags"`
	// Watch says how the agent notices changes.
	Watch WatchConfig `json:"watch"`
	// Backoff says how the agent waits while AIAS is away.
	Backoff BackoffConfig `json:"backoff"`
	// Timeout bounds one request to AIAS, all of it.
	Timeout Duration `json:"timeout"`
	// LogLevel is "debug", "info", "warn" or "error".
	LogLevel string `json:"logLevel"`
	// LogFormat is "text" or "json".
	LogFormat string `json:"logFormat"`
}

// KubeletConfig says where the keys of the worker's kubelet are.
type KubeletConfig struct {
	// PKIDir is the kubelet's --cert-dir, below HostRoot. The agent tells AIAS the hashes of the public keys in it, so that the cluster signs a
	// certificate for this worker's kubelet and for nobody else. Empty means that there is no kubelet.
	PKIDir string `json:"pkiDir"`
}

// WatchConfig says how the agent notices changes.
type WatchConfig struct {
	// Interval is the time between two looks at the count of IMA entries; 0 switches watching off (the timer remains).
	Interval Duration `json:"interval"`
	// Debounce is how long the list must rest after a change before the agent attests, four times that at most.
	Debounce Duration `json:"debounce"`
	// MinGap is the least time between two attestations for a change, so that a busy worker does not flood AIAS.
	MinGap Duration `json:"minGap"`
}

// BackoffConfig bounds the waits after failures; each wait is drawn at random below the bound (full jitter).
type BackoffConfig struct {
	Initial Duration `json:"initial"` // bound of the first wait; it doubles from there
	Max     Duration `json:"max"`     // bound of every wait
}

// Duration is a time.Duration that is written as text ("250ms").
type Duration time.Duration

// UnmarshalText reads a Go duration.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err != nil {
		return fmt.Errorf("read duration %q: write it like 250ms, 30s or 5m", text)
	}
	*d = Duration(v)
	return nil
}

// MarshalText writes d as a Go duration.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// Defaults returns the configuration that deploy/trust-agent.yaml documents.
func Defaults() Config {
	return Config{
		StateDir:      "/var/lib/trust-agent",
		StatusFile:    "/run/trust-agent/status.json",
		TPM:           "/dev/tpmrm0",
		HostRoot:      "/",
		Mountinfo:     "/proc/1/mountinfo",
		AssetTags:     map[string]string{},
		NVTag:         NVTagConfig{Index: assettag.DefaultIndex},
		ImageProvider: ImageProviderConfig{UIDs: []uint32{}, Timeout: Duration(30 * time.Second)},
		Audit:         AuditConfig{Log: source.DefaultLog, SpoolBytes: 512 << 20, Rules: true},
		Compliance:    ComplianceConfig{Interval: Duration(24 * time.Hour), Timeout: Duration(10 * time.Minute)},
		ImageScans:    defaultImageScans,
		Watch: WatchConfig{
			Interval: Duration(250 * time.Millisecond),
			Debounce: Duration(50 * time.Millisecond),
			MinGap:   Duration(time.Second),
		},
		Backoff:   BackoffConfig{Initial: Duration(500 * time.Millisecond), Max: Duration(time.Minute)},
		Timeout:   Duration(30 * time.Second),
		LogLevel:  "info",
		LogFormat: "text",
	}
}

// maxTags bounds the number of asset tags.
const maxTags = 64

// maxConfig bounds the configuration file in bytes.
const maxConfig = 1 << 20

// ReadConfig reads a configuration file over the defaults. Unknown and double keys are refused; Validate judges the rest.
func ReadConfig(path string) (Config, error) {
	cfg := Defaults()
	data, err := readBounded(path, maxConfig)
	if err != nil {
		return cfg, fmt.Errorf("read configuration: %w", err)
	}
	if err := yaml.UnmarshalStrict(data, &cfg); err != nil {
		return cfg, fmt.Errorf("read configuration %s: %w", path, err)
	}
	return cfg, nil
}

// LoadConfig reads a configuration file and validates it.
func LoadConfig(path string) (Config, error) {
	cfg, err := ReadConfig(path)
	if err != nil {
		return cfg, err
	}
	if err := cfg.Validate(); err != nil {
		return cfg, fmt.Errorf("configuration %s: %w", path, err)
	}
	return cfg, nil
}

// Validate says what is wrong with the configuration, everything at once.
func (c *Config) Validate() error {
	var errs []error
	add := func(bad bool, format string, args ...any) {
		if bad {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	u, err := url.Parse(c.Server)
	add(c.Server == "", "server is not set: give the https URL of AIAS")
	add(c.Server != "" && (err != nil || u.Scheme != "https" || u.Host == ""), "server %q is not an https URL", c.Server)
	add(c.CAFile != "" && c.CAHash != "", "caFile and caHash are both set: choose one")
	if c.CAHash != "" {
		_, err := parsePin(c.CAHash)
		add(err != nil, "caHash: %v", err)
	}
	add(c.StateDir == "", "stateDir is not set")
	add(c.TPM == "", "tpm is not set: use /dev/tpmrm0, or unix:PATH for a software TPM")
	add(c.HostRoot == "", "hostRoot is not set: use /")
	c.Audit.validate(add)
	add(len(c.AssetTags) > maxTags, "assetTags: %d are more than %d", len(c.AssetTags), maxTags)
	add(c.NVTag.Index < assettag.FirstIndex || c.NVTag.Index > assettag.LastIndex, "nvTag.index %#08x: use one of the owner, %#08x to %#08x",
		c.NVTag.Index, assettag.FirstIndex, assettag.LastIndex)
	add(c.ImageProvider.Timeout <= 0, "imageProvider.timeout must be more than 0")
	add(c.ImageProvider.Socket == "" && c.ImageProvider.Runtime != "", "imageProvider.runtime is set without imageProvider.socket: nothing is decrypted then")
	add(c.ImageProvider.Runtime == "" && c.ImageProvider.StopContainers, "imageProvider.stopContainers is set without imageProvider.runtime: no container is known then")
	add(len(c.ImageProvider.Socket) > 90 || c.ImageProvider.Socket != "" && c.ImageProvider.Socket[0] != '/', "imageProvider.socket %q: want a path of at most 90 bytes", c.ImageProvider.Socket)
	add(c.Compliance.Content != "" && content.ProfileOr(c.Compliance.Profile, c.Compliance.Content, content.Worker) == "", "compliance.profile is not set: name a profile of the content (`oscap info --profiles FILE`)")
	add(c.Compliance.Interval < Duration(time.Minute), "compliance.interval must be at least 1m")
	add(c.Compliance.Timeout < Duration(time.Second), "compliance.timeout must be at least 1s")
	c.ImageScans.validate(add)
	add(c.Watch.Interval < 0 || c.Watch.Debounce < 0 || c.Watch.MinGap < 0, "watch: no duration may be negative")
	add(c.Backoff.Initial <= 0 || c.Backoff.Max < c.Backoff.Initial, "backoff: initial must be more than 0 and at most max")
	add(c.Timeout <= 0, "timeout must be more than 0")
	add(!oneOf(c.LogLevel, "debug", "info", "warn", "error"), "logLevel %q: use debug, info, warn or error", c.LogLevel)
	add(!oneOf(c.LogFormat, "text", "json"), "logFormat %q: use text or json", c.LogFormat)
	return errors.Join(errs...)
}

// NodeName returns the configured name, or the host name in lower case.
func (c *Config) NodeName() (string, error) {
	if c.Node != "" {
		return c.Node, nil
	}
	name, err := os.Hostname()
	if err != nil {
		return "", fmt.Errorf("read the host name: %w: set node in the configuration", err)
	}
	return strings.ToLower(name), nil
}

func oneOf(s string, of ...string) bool {
	for _, o := range of {
		if s == o {
			return true
		}
	}
	return false
}
