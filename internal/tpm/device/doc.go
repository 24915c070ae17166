// Package device talks to a TPM 2.0: a kernel device (/dev/tpmrm0) or the unix socket of swtpm.
//
// It gives what an Attester needs: endorsement key and certificates, attestation key, quotes, credential activation, and a TLS key
// that never leaves the TPM. All keys are primaries in the endorsement hierarchy made from fixed templates, so they are the same
// after each boot and nothing is stored; in that hierarchy the counters in a quote are plain. What it reads is checked by package
// tpm, on the other side.
//
// A TPM holds about three keys at a time, and swtpm's socket has no resource manager. So no key stays loaded between two calls:
// each is saved as a context right after it is made, loaded for one use, and flushed. Other users of the same TPM go on working.
//
// Commands follow TPM 2.0 Library, part 3; templates and NV indices the TCG EK Credential Profile 2.5.
package device
