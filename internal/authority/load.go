package authority

import (
	"fmt"

	"touchstone.dev/touchstone/internal/policy"
	"touchstone.dev/touchstone/internal/protocol"
	"touchstone.dev/touchstone/internal/reference"
	"touchstone.dev/touchstone/internal/verifier"
)

// LoadFrom returns the Loader that compiles a policy with the reference folder dir. An empty policy means the default one.
func LoadFrom(dir string) Loader {
	return func(text []byte) (*Snapshot, error) {
		if len(text) == 0 {
			text = policy.Default()
		}
		p, err := policy.Parse(text)
		if err != nil {
			return nil, err
		}
		refs, err := reference.Load(dir)
		if err != nil {
			return nil, fmt.Errorf("load the references: %w", err)
		}
		v, err := verifier.New(p, refs)
		if err != nil {
			return nil, err
		}
		s := &Snapshot{
			Appraiser: v, Policy: text, Lifetime: p.Spec.Attestation.MaxAge.Duration, Interval: p.Spec.Attestation.Interval.Duration,
			MaxSilence: p.Spec.Runtime.Audit.MaxSilence.Duration,
			Compliance: *p.Spec.Runtime.Compliance.Rules(),
			Images:     p.Spec.Runtime.Images,
			Links:      refs.EKIntermediates(), Warnings: missing(refs),
		}
		if t := p.Spec.Runtime.Compliance.Tailored(); t != nil {
			s.Tailoring = &protocol.Tailoring{Profile: t.ID(), Document: t.Document(), SHA256: t.Digest()}
		}
		if refs.HasEKRoots() {
			s.Roots = refs.EKRoots()
		}
		for _, x := range refs.Sources() {
			s.References = append(s.References, protocol.Reference{
				Kind: x.Kind, Name: x.Name, Version: x.Version, SHA256: x.SHA256, Imported: x.Imported, Note: x.Note,
			})
		}
		return s, nil
	}
}

// missing says which references a new installation still needs, so that nobody has to guess why nothing is trusted.
func missing(refs *reference.Set) []string {
	var out []string
	for _, m := range []struct {
		have bool
		what string
	}{
		{refs.HasEKRoots(), "no CA of TPM manufacturers: touchstone reference import ek-roots DIR"},
		{refs.HasFirmware(), "no known firmware: touchstone reference capture"},
		{refs.HasImages(), "no boot loaders and kernels: touchstone reference import PACKAGE.deb"},
		{refs.HasFiles(), "no known files: touchstone reference import PACKAGE.deb"},
	} {
		if !m.have {
			out = append(out, m.what)
		}
	}
	return out
}
