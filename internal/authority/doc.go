// Package authority is AIAS, the Attestation Integrity Assurance Service: it enrols nodes, challenges them, has their Evidence judged,
// keeps what was said and signs what it means.
//
// Enrolment follows TCG's way: the EK is recognised by its certificate chain or an allow-list, a credential that only that TPM can open
// names the attestation key (TPM2_MakeCredential), and the attestation key certifies the key of the client certificate. Attestation
// is one round trip: each answer carries the next challenge. A challenge is a MAC, so nothing is stored for it; the
// watermark of a node makes it work once. Judging is package verifier's; remembering is package store's.
//
// Everything that a node learns about itself comes from its client certificate, never from what it says. One node's request harms no other:
// sizes, rates and the number of appraisals at a time are bounded, and a panic ends one request.
package authority
