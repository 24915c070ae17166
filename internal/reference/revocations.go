package reference

import (
	"bytes"
	"cmp"
	"encoding/hex"
	"fmt"
	"io"
	"slices"

	"touchstone.dev/touchstone/internal/uefi"
)

// svnOwner marks entries of dbx that carry a security version of a Windows boot manager in the place of a hash.
const svnOwner = "9d132b6c-59d5-4388-ab1c-185cfcb2eb92"

// ImportDBX reads a UEFI revocation list in any of its forms: the signed DBXUpdate, signature lists, an efivars file, or the published
// JSON with names. Imported beside each other, the JSON gives its names to the hashes of the others.
//
// A DBXUpdate gets no version: publishers put the same time stamp (2010-03-06) on all of them. Its signature is not verified: firmware does so with the machine's KEK. Here the person who imports answers for it.
func ImportDBX(r io.Reader, o Options) (*Source, error) {
	b, digest, err := readWhole(r, &o, uefi.MaxDBXNames)
	if err != nil {
		return nil, err
	}
	s := o.source(KindDBX, digest)
	if bytes.HasPrefix(bytes.TrimLeft(b, " \t\r\n\xef\xbb\xbf"), []byte("{")) {
		err = fillFromNames(s, bytes.TrimPrefix(b, []byte("\xef\xbb\xbf")))
	} else {
		err = fillFromDBX(s, b, &o)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrImport, o.File, err)
	}
	slices.SortStableFunc(s.Revoked, func(a, b Revoked) int { return cmp.Or(cmp.Compare(a.Type, b.Type), cmp.Compare(a.Hash, b.Hash)) })
	s.Revoked = slices.CompactFunc(s.Revoked, func(a, b Revoked) bool { return a.Type == b.Type && a.Hash == b.Hash })
	return s, nil
}

func fillFromNames(s *Source, b []byte) error {
	names, err := uefi.ParseDBXNames(b)
	if err != nil {
		return err
	}
	for _, n := range names {
		s.Revoked = append(s.Revoked, Revoked{Type: uefi.TypeSHA256, Hash: hex.EncodeToString(n.Hash), Name: n.Name()})
		s.Version = max(s.Version, n.Added)
	}
	return nil
}

func fillFromDBX(s *Source, b []byte, o *Options) error {
	d, err := uefi.ParseDBX(b)
	if err != nil {
		return err
	}
	for _, sig := range d.Signatures {
		r, ok := revokedOf(sig)
		if !ok {
			o.warn("%s: entry of type %s left out: it is not judged", o.File, sig.Type)
			continue
		}
		s.Revoked = append(s.Revoked, r)
	}
	return nil
}

func revokedOf(sig uefi.Signature) (Revoked, bool) {
	switch sig.Type {
	case uefi.TypeSHA256:
		r := Revoked{Type: sig.Type, Hash: hex.EncodeToString(sig.Data)}
		if sig.Owner == svnOwner {
			r.Type = "svn"
		}
		return r, true
	case uefi.TypeSHA1, uefi.TypeSHA384, uefi.TypeSHA512:
		return Revoked{Type: sig.Type, Hash: hex.EncodeToString(sig.Data)}, true
	case uefi.TypeX509:
		return Revoked{Type: sig.Type, Hash: hex.EncodeToString(sig.SHA256[:]), Name: sig.Subject()}, true
	case uefi.TypeX509SHA256, uefi.TypeX509SHA384, uefi.TypeX509SHA512:
		const revocationTime = 16 // EFI_TIME after the hash
		return Revoked{Type: sig.Type, Hash: hex.EncodeToString(sig.Data[:len(sig.Data)-revocationTime])}, true
	}
	return Revoked{}, false
}

// ImportSBAT reads an SBAT level: the level itself, an efivars file of SbatLevelRT, or text that holds several levels, such as
// SbatLevel_Variable.txt of rhboot/shim. Of several it takes the newest, or the one of Options.SBATDate.
func ImportSBAT(r io.Reader, o Options) (*Source, error) {
	b, digest, err := readWhole(r, &o, uefi.MaxDatabase)
	if err != nil {
		return nil, err
	}
	l, err := chooseLevel(b, o.SBATDate)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrImport, o.File, err)
	}
	s := o.source(KindSBAT, digest)
	s.Version, s.SBAT = l.Date, l.String()
	return s, nil
}

func chooseLevel(b []byte, date string) (uefi.Level, error) {
	if len(b) > 4 && b[1] == 0 && b[2] == 0 && b[3] == 0 {
		b = b[4:] // attributes of an efivars file
	}
	levels, err := uefi.FindSBATLevels(bytes.TrimRight(b, "\x00"))
	if err != nil {
		return uefi.Level{}, err
	}
	if date == "" {
		return levels[len(levels)-1], nil
	}
	var known []string
	for _, l := range slices.Backward(levels) {
		if l.Date == date {
			return l, nil
		}
		known = append(known, l.Date)
	}
	return uefi.Level{}, fmt.Errorf("no level of %s in it: it has %v", date, known)
}
