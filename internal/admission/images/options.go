package images

import (
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
)

// AnyRegistry in Options.Registries stands for every registry with a public address.
const AnyRegistry = "*"

// Options say which registries are asked, and how.
type Options struct {
	// Registries are the hosts ("registry.example", "registry.example:5000", "docker.io") that are asked beside those that a Demand names, or AnyRegistry.
	Registries []string
	// Insecure are hosts that are asked without TLS. They need not be named again in Registries.
	Insecure []string
	// Mirrors are asked in place of a host: "docker.io" to "mirror.example/hub".
	Mirrors map[string]string
	// CA are root certificates (PEM) beside those of the system.
	CA []byte
	// Keyring returns credentials that hold for every Demand. Nil: none.
	Keyring func() (Keyring, error)
}

// policy is Options, checked.
type policy struct {
	named, insecure map[string]bool
	any             bool
	mirrors         map[string]string
	roots           *x509.CertPool // nil: the system's
	keyring         func() (Keyring, error)
}

func (o Options) policy() (*policy, error) {
	p := &policy{named: map[string]bool{}, insecure: map[string]bool{}, mirrors: map[string]string{}, keyring: o.Keyring}
	for _, h := range o.Registries {
		if h == AnyRegistry {
			p.any = true
			continue
		}
		host, err := canonical(h)
		if err != nil {
			return nil, err
		}
		p.named[host] = true
	}
	for _, h := range o.Insecure {
		host, err := canonical(h)
		if err != nil {
			return nil, err
		}
		p.named[host], p.insecure[host] = true, true
	}
	for _, from := range slices.Sorted(maps.Keys(o.Mirrors)) {
		host, err := canonical(from)
		if err != nil {
			return nil, err
		}
		to := strings.TrimSuffix(o.Mirrors[from], "/")
		mirror, err := canonical(strings.SplitN(to, "/", 2)[0])
		if err != nil {
			return nil, err
		}
		p.mirrors[host], p.named[mirror] = to, true
	}
	if len(o.CA) > 0 {
		roots, err := x509.SystemCertPool()
		if err != nil {
			return nil, fmt.Errorf("root certificates of the system: %w", err)
		}
		if !roots.AppendCertsFromPEM(o.CA) {
			return nil, errors.New("the CA bundle for registries has no certificate (PEM)")
		}
		p.roots = roots
	}
	return p, nil
}

// canonical is how a registry's host is called everywhere: Docker Hub has several names.
func canonical(host string) (string, error) {
	r, err := name.NewRegistry(strings.ToLower(host), name.StrictValidation)
	if err != nil || strings.ContainsAny(host, "/@ ") {
		return "", fmt.Errorf("registry %q: want HOST or HOST:PORT", host)
	}
	return r.RegistryStr(), nil
}

// Host returns the registry's host in an image name.
func Host(image string) string {
	if ref, err := name.ParseReference(image); err == nil {
		return ref.Context().RegistryStr()
	}
	return hostOf(image)
}

// hostOf returns the host of an image name, or of a prefix of one: what comes before the first slash, if it looks like a host, else Docker Hub.
func hostOf(image string) string {
	host, _, found := strings.Cut(image, "/")
	if found && (strings.ContainsAny(host, ".:") || host == "localhost") {
		return host
	}
	return name.DefaultRegistry
}

// asks returns the hosts that may be asked for a demand: those of the options and of prefixes that the class names. A prefix that ends within a
// host's name names none.
func (p *policy) asks(prefixes []string) map[string]bool {
	if len(prefixes) == 0 {
		return p.named
	}
	hosts := maps.Clone(p.named)
	for _, prefix := range prefixes {
		if !strings.Contains(prefix, "/") {
			prefix += "/"
		}
		if host, err := canonical(hostOf(prefix)); err == nil {
			hosts[host] = true
		}
	}
	return hosts
}

// locate returns the repository that is asked for an image: the image's own, or that of a mirror.
func (p *policy) locate(image name.Digest, hosts map[string]bool) (name.Repository, error) {
	repo := image.Context()
	if host := repo.RegistryStr(); !hosts[host] && !p.any {
		return repo, fmt.Errorf("registry %s is not one that is asked for signatures: name it in images.registries of the class, or in --registry of the trust-controller", host)
	}
	at := repo.Name()
	if to := p.mirrors[repo.RegistryStr()]; to != "" {
		at = to + "/" + repo.RepositoryStr()
	}
	return name.NewRepository(at, name.StrictValidation)
}
