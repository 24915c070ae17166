package eventlog

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"touchstone.dev/touchstone/internal/tpm"
)

// The Spec ID event opens a log (PFP 10.4.5.1, TCG_EfiSpecIDEvent): signature "Spec ID Event03" of the crypto-agile format, "02" or
// "00" of the SHA-1 formats that came before.
var (
	specIDPrefix  = []byte("Spec ID Event")
	specIDAgile   = []byte("Spec ID Event03\x00")
	specIDEFI     = []byte("Spec ID Event02\x00")
	specIDGeneric = []byte("Spec ID Event00\x00")
)

// Where the fields of TCG_EfiSpecIDEvent lie.
const (
	specMinor  = 20 // after signature[16] and platformClass u32
	specMajor  = 21
	specErrata = 22
	specUintn  = 23 // size of UINTN in units of four bytes
	specFixed  = 24
)

// specID reads the header. It must be the first event, in PCR 0, and its size must be exactly what its fields add up to.
func (p *parser) specID(e *Event) error {
	if e.Index != 0 || e.PCR != 0 {
		return fmt.Errorf("%w: it must be the first event, in PCR 0", ErrSpecID)
	}
	d := e.Data
	if len(d) < specFixed {
		return fmt.Errorf("%w: %d bytes, want at least %d", ErrSpecID, len(d), specFixed)
	}
	// The SHA-1 formats may leave the size of UINTN at 0.
	if d[specUintn] > 2 {
		return fmt.Errorf("%w: size of UINTN is %d, want 1 or 2", ErrSpecID, d[specUintn])
	}
	p.log.Spec = fmt.Sprintf("%d.%d errata %d", d[specMajor], d[specMinor], d[specErrata])
	rest := d[specFixed:]
	switch {
	case bytes.HasPrefix(d, specIDAgile):
		var err error
		if rest, err = p.algorithms(rest); err != nil {
			return err
		}
		p.log.Agile = true
	case bytes.HasPrefix(d, specIDEFI), bytes.HasPrefix(d, specIDGeneric):
		// One bank, SHA-1, as without a header.
	default:
		return fmt.Errorf("%w: unknown signature %q", ErrSpecID, d[:len(specIDAgile)])
	}
	if len(rest) == 0 || int(rest[0]) != len(rest)-1 {
		return fmt.Errorf("%w: the vendor information does not end with the event", ErrSpecID)
	}
	p.log.VendorInfo = rest[1:]
	return nil
}

// algorithms reads the list of banks and returns what follows it.
func (p *parser) algorithms(b []byte) ([]byte, error) {
	if len(b) < 4 {
		return nil, fmt.Errorf("%w: no list of algorithms", ErrSpecID)
	}
	n := binary.LittleEndian.Uint32(b)
	b = b[4:]
	if n == 0 || n > MaxAlgs {
		return nil, fmt.Errorf("%w: %d algorithms, want 1 to %d", ErrSpecID, n, MaxAlgs)
	}
	if len(b) < int(n)*4 {
		return nil, fmt.Errorf("%w: list of %d algorithms is cut short", ErrSpecID, n)
	}
	p.banks, p.log.Algs = make([]bank, 0, n), nil
	for range n {
		k := bank{alg: tpm.Alg(binary.LittleEndian.Uint16(b)), size: int(binary.LittleEndian.Uint16(b[2:]))}
		b = b[4:]
		want := k.alg.Size()
		switch k.known = want != 0; {
		case p.bank(k.alg) >= 0:
			return nil, fmt.Errorf("%w: algorithm %v comes twice", ErrSpecID, k.alg)
		case k.known && k.size != want:
			return nil, fmt.Errorf("%w: digests of %v have %d bytes, want %d", ErrSpecID, k.alg, k.size, want)
		case k.size == 0 || k.size > MaxSumSize:
			return nil, fmt.Errorf("%w: digests of %v have %d bytes, want 1 to %d", ErrSpecID, k.alg, k.size, MaxSumSize)
		}
		p.banks = append(p.banks, k)
		if k.known {
			p.log.Algs = append(p.log.Algs, k.alg)
		} else {
			p.log.Skipped = append(p.log.Skipped, k.alg)
		}
	}
	return b, nil
}

// inspect looks at the events that change how the log is read: the Spec ID header and StartupLocality.
func (p *parser) inspect(e *Event) error {
	if e.Extends() {
		if e.PCR == 0 && !p.measured {
			p.measured = true
			// An H-CRTM sequence leaves 4 in PCR 0 whatever locality sends TPM2_Startup later (TPM 2.0 Library, part 1, 34.3).
			if e.Type == EFIHCRTM {
				p.log.Locality = 4
			}
		}
		return nil
	}
	switch {
	case bytes.HasPrefix(e.Data, specIDPrefix):
		return p.specID(e)
	case bytes.HasPrefix(e.Data, localitySignature):
		return p.startupLocality(e)
	}
	return nil
}

// startupLocality takes the locality of TPM2_Startup (PFP 10.4.5.3).
func (p *parser) startupLocality(e *Event) error {
	l, ok := e.StartupLocality()
	switch {
	case !ok:
		return fmt.Errorf("%w: %d bytes, want %d", ErrLocality, len(e.Data), len(localitySignature)+1)
	case e.PCR != 0:
		return fmt.Errorf("%w: in PCR %d, want PCR 0", ErrLocality, e.PCR)
	case p.locality:
		return fmt.Errorf("%w: a second one", ErrLocality)
	case p.measured:
		return fmt.Errorf("%w: it comes after a measurement into PCR 0", ErrLocality)
	case l != 0 && l != 3 && l != 4:
		return fmt.Errorf("%w: locality %d, want 0, 3 or 4", ErrLocality, l)
	}
	p.locality, p.log.Locality = true, l
	return nil
}
