package reference

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"path"
	"strings"

	"golang.org/x/sync/errgroup"

	"touchstone.dev/touchstone/internal/kmod"
)

// verifiers is how many signatures are verified at a time. One takes about 0.2 ms (RSA-4096).
const verifiers = 2

// pendingModule is a module whose signature waits for the keys: the kernel may come later in the archive.
type pendingModule struct {
	Module
	sig    *kmod.Signature // nil when unsigned or unreadable
	digest []byte          // what sig is over
}

func isModule(name string) bool {
	if !strings.Contains(name, "/lib/modules/") {
		return false
	}
	switch base := path.Base(name); {
	case strings.HasSuffix(base, ".ko"), strings.HasSuffix(base, ".ko.xz"), strings.HasSuffix(base, ".ko.zst"), strings.HasSuffix(base, ".ko.gz"):
		return true
	}
	return false
}

// readModule reads a module as far as it goes without keys.
func readModule(name string, b []byte, o *Options) (pendingModule, error) {
	m := pendingModule{Module: Module{Path: name, SHA256: hexSHA256(b), Name: kmod.NameFromPath(name), Kernel: releaseFromPath(name)}}
	if !strings.HasSuffix(name, ".ko") {
		u, err := unpack(bytes.NewReader(b), name)
		if err != nil {
			return m, err
		}
		defer u.Close()
		if b, err = readAll(u, kmod.MaxModule); err != nil {
			return m, err
		}
		m.Content = hexSHA256(b)
	}
	sig, content, err := kmod.Parse(b)
	switch {
	case errors.Is(err, kmod.ErrUnsigned):
	case err != nil:
		o.warn("%s: %v", name, err)
		content = b
	default:
		m.sig, m.digest = sig, sig.Digest(content)
	}
	info, err := kmod.ReadModinfo(content)
	if err != nil {
		o.warn("%s: %v", name, err)
	}
	if info.Name != "" {
		m.Name = info.Name
	}
	if info.Kernel != "" {
		m.Kernel = info.Kernel
	}
	if m.Kernel == "" {
		return m, errors.New("neither the module nor its path names a kernel release")
	}
	return m, nil
}

// releaseFromPath returns RELEASE of ".../lib/modules/RELEASE/...".
func releaseFromPath(name string) string {
	_, after, _ := strings.Cut(name, "/lib/modules/")
	release, _, _ := strings.Cut(after, "/")
	return release
}

// verifyModules names the signer of each module that a key verifies. A module with a bad signature is refused: no honest package has one.
func verifyModules(pending []pendingModule, keys []*x509.Certificate) ([]Module, error) {
	subjects := make(map[*x509.Certificate]string, len(keys))
	for _, k := range keys {
		subjects[k] = k.Subject.String()
	}
	var g errgroup.Group
	g.SetLimit(verifiers)
	const batch = 64
	for start := 0; start < len(pending); start += batch {
		part := pending[start:min(start+batch, len(pending))]
		g.Go(func() error {
			for i := range part {
				m := &part[i]
				if m.sig == nil {
					continue
				}
				key, err := kmod.VerifyDigest(m.digest, m.sig, keys)
				if err == nil {
					m.Signer = subjects[key]
				} else if !errors.Is(err, kmod.ErrUnknownKey) {
					return fmt.Errorf("%s: %w", m.Path, err)
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	out := make([]Module, len(pending))
	for i := range pending {
		out[i] = pending[i].Module
	}
	return out, nil
}
