package reference

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"touchstone.dev/touchstone/internal/tpm"
	"touchstone.dev/touchstone/internal/uefi"
)

// Compile makes a Set of sources. It refuses a source that contradicts its schema, with the source and the value named. Where
// sources overlap, the one that comes first by kind, name and version gives the answer.
func Compile(sources []Source) (*Set, error) {
	sorted := slices.Clone(sources)
	slices.SortFunc(sorted, compareSources)
	n := 0
	for i := range sorted {
		n += len(sorted[i].Files) + 2*len(sorted[i].Modules)
	}
	s := &Set{
		images: make(map[imageKey]*ImageRef), imageFiles: make(map[[sha256.Size]byte]*ImageRef),
		vendorByDER: make(map[[sha256.Size]byte]bool), revokedBy: make(map[string]int), ekRoots: x509.NewCertPool(),
	}
	s.named = make([]namedFile, 0, n)
	digest := sha256.New()
	for i := range sorted {
		src := &sorted[i]
		if err := s.add(src); err != nil {
			return nil, fmt.Errorf("source %s: %w", displayName(src), err)
		}
		sum, err := contentDigest(src)
		if err != nil {
			return nil, fmt.Errorf("source %s: %w", displayName(src), err)
		}
		digest.Write(sum[:])
	}
	s.id = hex.EncodeToString(digest.Sum(nil))
	return s, s.finish()
}

// compareSources orders sources the same way whatever order they were read in.
func compareSources(a, b Source) int {
	return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Version, b.Version), cmp.Compare(a.SHA256, b.SHA256))
}

// contentDigest names the content of a source: not when and with what remark it was imported.
func contentDigest(src *Source) ([sha256.Size]byte, error) {
	c := *src
	c.Imported, c.Note, c.File = time.Time{}, "", ""
	b, err := json.Marshal(&c)
	return sha256.Sum256(b), err
}

func displayName(src *Source) string {
	if src.Version == "" {
		return src.Name
	}
	return src.Name + " " + src.Version
}

var kinds = map[string]bool{KindPackage: true, KindCapture: true, KindFiles: true, KindDBX: true, KindSBAT: true, KindEndorser: true}

func (s *Set) add(src *Source) error {
	if !kinds[src.Kind] {
		return fmt.Errorf("kind %q is not known", src.Kind)
	}
	if src.Name == "" {
		return errors.New("it has no name")
	}
	s.names = append(s.names, displayName(src))
	for _, step := range []func(*Source) error{s.addFiles, s.addModules, s.addImages, s.addCertificates, s.addRevoked, s.addSBAT} {
		if err := step(src); err != nil {
			return err
		}
	}
	s.firmware = append(s.firmware, src.Firmware...)
	if src.Keys != nil {
		s.keys = append(s.keys, CapturedKeys{Source: displayName(src), Keys: *src.Keys})
	}
	s.summaries = append(s.summaries, summarize(src))
	return nil
}

func (s *Set) addFile(digest, path string, module int32) error {
	key, err := sha256Key(digest)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	s.named = append(s.named, namedFile{digest: key, path: path, source: uint32(len(s.names) - 1), module: module})
	return nil
}

func (s *Set) addFiles(src *Source) error {
	for i := range src.Files {
		if err := s.addFile(src.Files[i].SHA256, src.Files[i].Path, -1); err != nil {
			return err
		}
	}
	return nil
}

func (s *Set) addModules(src *Source) error {
	for i := range src.Modules {
		m := &src.Modules[i]
		if m.Name == "" || m.Kernel == "" {
			return fmt.Errorf("module %s has no name or no kernel release", m.Path)
		}
		index := int32(len(s.modules))
		s.modules = append(s.modules, ModuleRef{Name: m.Name, Kernel: m.Kernel, Signer: m.Signer})
		if err := s.addFile(m.SHA256, m.Path, index); err != nil {
			return err
		}
		if m.Content == "" {
			continue
		}
		if err := s.addFile(m.Content, m.Path, index); err != nil {
			return err
		}
	}
	return nil
}

func (s *Set) addImages(src *Source) error {
	for i := range src.Images {
		im := &ImageRef{Image: src.Images[i], Source: displayName(src)}
		if len(im.Authenticode) == 0 {
			return fmt.Errorf("image %s has no Authenticode digest", im.Path)
		}
		for _, sg := range im.Image.Signers {
			signer, err := newSigner(sg)
			if err != nil {
				return fmt.Errorf("image %s: signer %s: %w", im.Path, sg.Subject, err)
			}
			im.Signers = append(im.Signers, signer)
		}
		file, err := sha256Key(im.SHA256)
		if err != nil {
			return fmt.Errorf("image %s: %w", im.Path, err)
		}
		if _, ok := s.imageFiles[file]; !ok {
			s.imageFiles[file] = im
		}
		s.imageList = append(s.imageList, im)
		if err := s.addAuthenticode(im); err != nil {
			return fmt.Errorf("image %s: %w", im.Path, err)
		}
	}
	return nil
}

// addAuthenticode enters the image under each of its digests. Packages may hold one image unsigned and signed: the entry then
// carries the signers of both.
func (s *Set) addAuthenticode(im *ImageRef) error {
	for bank, text := range im.Authenticode {
		alg, err := tpm.ParseHashAlg(bank)
		if err != nil {
			return err
		}
		digest, err := hex.DecodeString(text)
		if err != nil || len(digest) != alg.Size() {
			return fmt.Errorf("%q is not a %s digest", text, alg)
		}
		key := imageKey{alg: alg}
		copy(key.digest[:], digest)
		known, ok := s.images[key]
		if !ok {
			s.images[key] = im
			continue
		}
		merged := *known
		merged.Signers = slices.Clone(known.Signers)
		for _, sg := range im.Signers {
			if !slices.ContainsFunc(merged.Signers, sg.same) {
				merged.Signers = append(merged.Signers, sg)
			}
		}
		s.images[key] = &merged
	}
	return nil
}

func (s *ImageSigner) same(o *ImageSigner) bool {
	return slices.EqualFunc(s.Chain, o.Chain, func(a, b *x509.Certificate) bool { return bytes.Equal(a.Raw, b.Raw) })
}

func (s *Set) addCertificates(src *Source) error {
	for _, c := range src.VendorKeys {
		if key := sha256.Sum256(c.DER); !s.vendorByDER[key] {
			s.vendorByDER[key] = true
			s.vendorKeys = append(s.vendorKeys, c)
		}
	}
	for _, c := range src.ModuleKeys {
		if !slices.ContainsFunc(s.moduleKeys, func(k Certificate) bool { return bytes.Equal(k.DER, c.DER) }) {
			s.moduleKeys = append(s.moduleKeys, c)
		}
	}
	for _, c := range src.CAs {
		cert, err := x509.ParseCertificate(c.DER)
		if err != nil {
			return fmt.Errorf("CA %s: %w", c.Subject, err)
		}
		known := func(k *x509.Certificate) bool { return k.Equal(cert) }
		switch {
		case slices.ContainsFunc(s.ekRootList, known), slices.ContainsFunc(s.ekIntermediates, known):
		case isRoot(cert):
			s.ekRoots.AddCert(cert)
			s.ekRootList = append(s.ekRootList, cert)
		default:
			s.ekIntermediates = append(s.ekIntermediates, cert)
		}
	}
	return nil
}

// isRoot reports whether a CA certificate is signed by itself.
func isRoot(c *x509.Certificate) bool {
	return bytes.Equal(c.RawSubject, c.RawIssuer) && c.CheckSignature(c.SignatureAlgorithm, c.RawTBSCertificate, c.Signature) == nil
}

func (s *Set) addRevoked(src *Source) error {
	for _, r := range src.Revoked {
		hash, err := hex.DecodeString(r.Hash)
		if err != nil || len(hash) == 0 || len(hash) > 64 {
			return fmt.Errorf("revoked %q is not a hash", r.Hash)
		}
		r.Hash = strings.ToLower(r.Hash)
		i, ok := s.revokedBy[string(hash)]
		switch {
		case !ok:
			s.revokedBy[string(hash)] = len(s.revoked)
			s.revoked, s.revokedFrom = append(s.revoked, r), append(s.revokedFrom, displayName(src))
		case s.revoked[i].Name == "": // the other list knows its name
			s.revoked[i].Name = r.Name
		}
	}
	return nil
}

func (s *Set) addSBAT(src *Source) error {
	if src.SBAT == "" {
		return nil
	}
	l, err := uefi.ParseSBATLevel([]byte(src.SBAT))
	if err != nil {
		return err
	}
	s.sbat = append(s.sbat, SBATLevel{Source: displayName(src), Level: l})
	return nil
}

// finish orders the files for look-ups, and what is listed to callers.
func (s *Set) finish() error {
	var err error
	if s.files, err = newFileTable(s.named); err != nil {
		return err
	}
	s.named = nil
	order := make([]int, len(s.revoked))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int { return cmp.Compare(s.revoked[a].Hash, s.revoked[b].Hash) })
	revoked, from := make([]Revoked, len(order)), make([]string, len(order))
	for to, i := range order {
		revoked[to], from[to] = s.revoked[i], s.revokedFrom[i]
		hash, _ := hex.DecodeString(revoked[to].Hash) // decoded before
		s.revokedBy[string(hash)] = to
	}
	s.revoked, s.revokedFrom = revoked, from
	slices.SortStableFunc(s.sbat, func(a, b SBATLevel) int { return cmp.Compare(a.Level.Date, b.Level.Date) })
	return nil
}

func summarize(src *Source) Summary {
	return Summary{
		Kind: src.Kind, Name: src.Name, Version: src.Version, Arch: src.Arch, File: src.File, SHA256: src.SHA256,
		Imported: src.Imported, Note: src.Note, Images: len(src.Images), Files: len(src.Files), Modules: len(src.Modules),
		ModuleKeys: len(src.ModuleKeys), VendorKeys: len(src.VendorKeys), Firmware: len(src.Firmware), Keys: src.Keys != nil,
		Revoked: len(src.Revoked), SBAT: src.SBAT != "", CAs: len(src.CAs),
	}
}

func sha256Key(text string) (key [sha256.Size]byte, err error) {
	if len(text) != 2*sha256.Size {
		return key, fmt.Errorf("%q is not a SHA-256", text)
	}
	if _, err := hex.Decode(key[:], []byte(text)); err != nil {
		return key, fmt.Errorf("%q is not a SHA-256", text)
	}
	return key, nil
}
