// Package policy is the appraisal policy: what a worker must show on each of the five levels.
//
// A TrustPolicy is a YAML or JSON document. Parsing is strict (unknown fields are refused) and fills every field that is left
// out with the strict value of the commented default (Default). A rule that cannot be known counts against trust unless an
// exception names it; there is no field that silently switches a rule off.
package policy

import (
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"sigs.k8s.io/yaml"
)

// APIVersion and Kind of the document.
const (
	APIVersion = "touchstone.dev/v1alpha1"
	Kind       = "TrustPolicy"
)

// MaxSize is the largest document that Parse accepts, in bytes.
const MaxSize = 1 << 20

//go:embed default.yaml
var defaultYAML []byte

// Default returns the commented default policy: a Debian worker with Secure Boot, shim, GRUB and IMA.
func Default() []byte { return append([]byte(nil), defaultYAML...) }

// Policy is a TrustPolicy.
type Policy struct {
	APIVersion string   `json:"apiVersion"`
	Kind       string   `json:"kind"`
	Metadata   Metadata `json:"metadata"`
	Spec       Spec     `json:"spec"`
}

// Metadata names the policy.
type Metadata struct {
	Name string `json:"name"`
}

// Spec is what the policy demands, by level.
type Spec struct {
	Attestation Attestation `json:"attestation,omitempty"`
	Firmware    Firmware    `json:"firmware,omitempty"`
	SecureBoot  SecureBoot  `json:"secureBoot,omitempty"`
	BootLoader  BootLoader  `json:"bootLoader,omitempty"`
	Kernel      Kernel      `json:"kernel,omitempty"`
	Runtime     Runtime     `json:"runtime,omitempty"`
	Exceptions  []Exception `json:"exceptions,omitempty"`
}

// Attestation says how often a worker attests, and what it quotes.
type Attestation struct {
	Interval Duration `json:"interval,omitempty"` // between two attestations when nothing changes
	MaxAge   Duration `json:"maxAge,omitempty"`   // a result older than this is no longer trusted
	Banks    []string `json:"banks,omitempty"`    // PCR banks that count; at least one must be quoted
	PCRs     []int    `json:"pcrs,omitempty"`     // PCRs that must be quoted
}

// Firmware is level 1.
type Firmware struct {
	Known        string `json:"known,omitempty" words:"reference any"`
	OptionROMs   string `json:"optionROMs,omitempty" words:"known any"`
	HardwareRoot string `json:"hardwareRoot,omitempty" words:"any required"`    // startup locality 3 or 4, proven by replay
	BootGuard    string `json:"bootGuard,omitempty" words:"any claimed"`        // the management engine reports verified boot, enforced and locked
	Endorsement  string `json:"endorsement,omitempty" words:"offered required"` // the EK certificate, checked against imported roots when offered
}

// SecureBoot is level 2.
type SecureBoot struct {
	State   string   `json:"state,omitempty" words:"required any"`
	Keys    string   `json:"keys,omitempty" words:"reference any"` // PK, KEK and db equal a captured set
	DBX     string   `json:"dbx,omitempty" words:"reference any"`  // dbx holds at least what the reference holds
	Actions []string `json:"actions,omitempty"`                    // EFI action events accepted in PCR 7 besides none
}

// BootLoader is level 3.
type BootLoader struct {
	Images           string   `json:"images,omitempty" words:"reference signed"`
	Authorities      []string `json:"authorities,omitempty"`      // db, vendor, or the SHA-256 of a certificate
	MachineOwnerKeys []string `json:"machineOwnerKeys,omitempty"` // SHA-256 of certificates accepted in the MOK list besides shim's own
	SBAT             string   `json:"sbat,omitempty"`             // reference | any | a level ("sbat,1,2025051800\nshim,4\n")
	// DataAtRest says which volumes must be encrypted.
	DataAtRest DataAtRest `json:"dataAtRest,omitempty"`
}

// Kernel is level 4.
type Kernel struct {
	Images           string      `json:"images,omitempty" words:"reference signed"`
	Initrd           string      `json:"initrd,omitempty" words:"reference any"`
	CommandLine      CommandLine `json:"commandLine,omitempty"`
	Lockdown         string      `json:"lockdown,omitempty" words:"integrity confidentiality any"`
	ModuleSignatures string      `json:"moduleSignatures,omitempty" words:"enforced any"`
	Modules          string      `json:"modules,omitempty" words:"reference any"`
	ForbiddenTaints  string      `json:"forbiddenTaints,omitempty"` // letters as in /proc/sys/kernel/tainted's documentation: "PFREOI..."; "-" for none
}

// CommandLine are patterns for words of the kernel command line; * matches any run of characters.
type CommandLine struct {
	Required  []string `json:"required,omitempty"`
	Forbidden []string `json:"forbidden,omitempty"`
	Allowed   []string `json:"allowed,omitempty"` // empty: every word that is not forbidden
}

// Runtime is level 5.
type Runtime struct {
	IMA        string      `json:"ima,omitempty" words:"required any"`
	Proof      []string    `json:"proof,omitempty"` // paths of which one must be in the list: proof that programs are measured
	Files      string      `json:"files,omitempty" words:"reference any"`
	AllowPaths []string    `json:"allowPaths,omitempty"` // patterns of paths whose content may be unknown
	MustMatch  []MustMatch `json:"mustMatch,omitempty"`
	Violations string      `json:"violations,omitempty" words:"deny warn"`
	Audit      Audit       `json:"audit,omitempty"`
	Compliance Compliance  `json:"compliance,omitempty"`
	Detections Detections  `json:"detections,omitempty"`
	Images     Images      `json:"images,omitempty"`
}

// MustMatch ties a path to a source: a file measured there must come from it, even if its content is known from elsewhere.
type MustMatch struct {
	Path   string `json:"path"`   // pattern
	Source string `json:"source"` // pattern on the source's name, for example "kubelet"
}

// Exception softens one rule: what it names becomes a warning.
type Exception struct {
	Rule   string `json:"rule"`                       // "firmware.boot-guard"
	Allow  string `json:"allow" words:"unknown fail"` // what becomes a warning
	Reason string `json:"reason,omitempty"`           // for the next person
	Until  *Time  `json:"until,omitempty"`            // the exception ends then
}

// Parse reads a policy, fills in defaults and validates it.
func Parse(b []byte) (*Policy, error) {
	if len(b) > MaxSize {
		return nil, fmt.Errorf("policy: %d bytes are more than %d", len(b), MaxSize)
	}
	p := new(Policy)
	if err := yaml.UnmarshalStrict(b, p); err != nil {
		return nil, fmt.Errorf("policy: %w", err)
	}
	if p.APIVersion != APIVersion || p.Kind != Kind {
		return nil, fmt.Errorf("policy: want apiVersion %s and kind %s, got %q and %q", APIVersion, Kind, p.APIVersion, p.Kind)
	}
	p.Spec.fill()
	if err := p.validate(); err != nil {
		return nil, err
	}
	return p, nil
}

// ID is the SHA-256 of what the policy says (comments and order of fields do not count), hexadecimal.
func (p *Policy) ID() string {
	b, err := json.Marshal(p)
	if err != nil {
		panic("policy: a parsed policy always marshals: " + err.Error())
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// Softens reports whether an exception that is valid at now lets status allow ("unknown" or "fail") of rule count as a warning.
// An exception for fail covers unknown too.
func (p *Policy) Softens(rule, status string, now time.Time) (Exception, bool) {
	for _, e := range p.Spec.Exceptions {
		if e.Rule != rule || (e.Until != nil && !now.Before(e.Until.Time)) {
			continue
		}
		if e.Allow == status || e.Allow == "fail" {
			return e, true
		}
	}
	return Exception{}, false
}

// errs collects validation errors.
type errs []error

func (e *errs) add(format string, a ...any) { *e = append(*e, fmt.Errorf(format, a...)) }
func (e errs) join() error {
	if len(e) == 0 {
		return nil
	}
	return fmt.Errorf("policy: %w", errors.Join(e...))
}
