package policy

import (
	"encoding/hex"
	"slices"
	"strings"
	"time"

	"touchstone.dev/touchstone/internal/tpm"
)

// Defaults of fields that are left out: the strict ones.
var (
	defaultBanks = []string{"sha256", "sha384", "sha512"}
	defaultPCRs  = []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 14}
	// A worker that does not measure, or runs without protections that every kernel has, is no use to anyone who attests it.
	defaultRequired  = []string{"ima_policy=*", "module.sig_enforce=1"}
	defaultForbidden = []string{"module.sig_enforce=0", "lockdown=none", "ima_appraise=off", "init=*", "rdinit=*", "iomem=relaxed", "mitigations=off",
		"nokaslr", "initrd=*", "initrdmem=*", "rd.break*", "systemd.unit=*", "single", "emergency"}

	defaultProof = []string{"/init", "/sbin/init", "/usr/lib/systemd/systemd", "/lib/systemd/systemd"}
)

// DefaultTaints are the taints that cost trust when a policy names none: proprietary (P), forced load (F), forced unload (R),
// out-of-tree (O) and unsigned (E) modules, live patch (K), firmware workaround set by a user (U).
const DefaultTaints = "PFROEKU"

func (s *Spec) fill() {
	eachWord(s, func(_ string, field *string, words []string) {
		if *field == "" {
			*field = words[0]
		}
	})
	if s.Attestation.Interval.Duration == 0 {
		s.Attestation.Interval.Duration = time.Minute
	}
	if s.Attestation.MaxAge.Duration == 0 {
		s.Attestation.MaxAge.Duration = 5 * time.Minute
	}
	if len(s.Attestation.Banks) == 0 {
		s.Attestation.Banks = slices.Clone(defaultBanks)
	}
	if len(s.Attestation.PCRs) == 0 {
		s.Attestation.PCRs = slices.Clone(defaultPCRs)
	}
	if s.BootLoader.SBAT == "" {
		s.BootLoader.SBAT = "any"
	}
	if len(s.BootLoader.Authorities) == 0 {
		s.BootLoader.Authorities = []string{"db", "vendor"}
	}
	s.BootLoader.DataAtRest.fill()
	if s.Kernel.ForbiddenTaints == "" {
		s.Kernel.ForbiddenTaints = DefaultTaints
	}
	if s.Kernel.CommandLine.Required == nil {
		s.Kernel.CommandLine.Required = slices.Clone(defaultRequired)
	}
	if s.Kernel.CommandLine.Forbidden == nil {
		s.Kernel.CommandLine.Forbidden = slices.Clone(defaultForbidden)
	}
	s.Runtime.Audit.fill()
	if len(s.Runtime.Proof) == 0 {
		s.Runtime.Proof = slices.Clone(defaultProof)
	}
}

func (p *Policy) validate() error {
	var e errs
	s := &p.Spec
	if p.Metadata.Name == "" {
		e.add("metadata.name is missing")
	}
	eachWord(s, func(name string, field *string, words []string) {
		if !slices.Contains(words, *field) {
			e.add("%s is %q: want one of %s", name, *field, strings.Join(words, ", "))
		}
	})
	p.validateAttestation(&e)
	p.validateLists(&e)
	s.Runtime.Audit.validate(&e)
	s.Runtime.Detections.validate(&e)
	return e.join()
}

func (p *Policy) validateAttestation(e *errs) {
	a := &p.Spec.Attestation
	if a.Interval.Duration < time.Second {
		e.add("attestation.interval is %s: want at least 1s", a.Interval)
	}
	if a.MaxAge.Duration < 2*a.Interval.Duration {
		e.add("attestation.maxAge is %s: want at least twice the interval (%s), or one late attestation costs trust", a.MaxAge, a.Interval)
	}
	for _, b := range a.Banks {
		alg, err := tpm.ParseHashAlg(b)
		if err != nil {
			e.add("attestation.banks: %w", err)
		} else if alg == tpm.AlgSHA1 {
			e.add("attestation.banks: sha1 is too weak to count")
		}
	}
	for _, i := range a.PCRs {
		if i < 0 || i >= tpm.NumPCRs {
			e.add("attestation.pcrs: %d is no PCR index (0 to 23)", i)
		}
	}
}

func (p *Policy) validateLists(e *errs) {
	s := &p.Spec
	for _, a := range s.BootLoader.Authorities {
		if a != "db" && a != "vendor" && !isDigest(a) {
			e.add("bootLoader.authorities: %q is neither db, vendor nor the SHA-256 of a certificate", a)
		}
	}
	for _, m := range s.BootLoader.MachineOwnerKeys {
		if !isDigest(m) {
			e.add("bootLoader.machineOwnerKeys: %q is not the SHA-256 of a certificate", m)
		}
	}
	s.BootLoader.DataAtRest.validate(e)
	if t := s.Kernel.ForbiddenTaints; t != "-" && strings.Trim(t, TaintLetters) != "" {
		e.add("kernel.forbiddenTaints: %q has letters that are not among %s", t, TaintLetters)
	}
	for _, m := range s.Runtime.MustMatch {
		if m.Path == "" || m.Source == "" {
			e.add("runtime.mustMatch: each entry needs a path and a source")
		}
	}
	s.Runtime.Compliance.validate(e)
	s.Runtime.Images.validate(e)
	for _, x := range s.Exceptions {
		if x.Rule == "" || (x.Allow != "unknown" && x.Allow != "fail") {
			e.add("exceptions: rule %q with allow %q: want the name of a rule, and unknown or fail", x.Rule, x.Allow)
		}
	}
}

// TaintLetters are the kernel's taint flags in the order of their bits (Documentation/admin-guide/tainted-kernels.rst; G, the
// absence of P, left out).
const TaintLetters = "PFSRMBUDAWCIOELKXTNJ"

func isDigest(s string) bool {
	b, err := hex.DecodeString(s)
	return err == nil && len(b) == 32
}
