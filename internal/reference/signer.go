package reference

import (
	"crypto/sha256"
	"crypto/x509"
	"sync"

	"touchstone.dev/touchstone/internal/uefi"
)

// ImageSigner is one valid signature of a known image.
type ImageSigner struct {
	Subject string
	Issuer  string
	Chain   []*x509.Certificate // the signer first

	mu      sync.RWMutex
	answers map[[sha256.Size]byte]bool // SignedBy, by fingerprint of the anchor
}

// maxAnswers bounds what a signer remembers: anchors come from the logs of workers, also hostile ones.
const maxAnswers = 256

// SignedBy reports whether anchor (a certificate in db, of shim or of a machine owner) vouches for this signature, as firmware
// decides it; see uefi.ChainsTo. Answers are remembered, so that a fleet with the same keys costs no signature check.
func (s *ImageSigner) SignedBy(anchor *x509.Certificate) bool {
	if anchor == nil {
		return false
	}
	key := sha256.Sum256(anchor.Raw)
	s.mu.RLock()
	yes, known := s.answers[key]
	s.mu.RUnlock()
	if known {
		return yes
	}
	yes = uefi.ChainsTo(s.Chain, anchor)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.answers == nil || len(s.answers) >= maxAnswers {
		s.answers = make(map[[sha256.Size]byte]bool)
	}
	s.answers[key] = yes
	return yes
}

// SignedBy returns the signer of the image that anchor vouches for, or nil when none does.
func (r *ImageRef) SignedBy(anchor *x509.Certificate) *ImageSigner {
	for _, s := range r.Signers {
		if s.SignedBy(anchor) {
			return s
		}
	}
	return nil
}

func newSigner(s Signer) (*ImageSigner, error) {
	out := &ImageSigner{Subject: s.Subject, Issuer: s.Issuer}
	for _, der := range s.Chain {
		c, err := uefi.ParseCertificate(der)
		if err != nil {
			return nil, err
		}
		out.Chain = append(out.Chain, c)
	}
	return out, nil
}
