// Package softtpm imitates a TPM in software. It proves nothing: its keys lie in ordinary memory, are computed from a seed that
// anyone may know, and sign whatever they are asked to. It exists for tests and for the load generator, and no verifier may
// trust its authority outside of them.
//
// It writes the same structures as a real TPM (TPM 2.0 Library, part 2): quotes, certifications, public areas, EK certificates, and
// it answers credential activation (part 1, 24). On purpose it also signs what a TPM never would, so that refusals can be
// tested: see [TPM.Sign], [WithMagic] and [WithType].
package softtpm
