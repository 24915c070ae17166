package images

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"path"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
)

// Limits of credentials.
const (
	MaxKeyring  = 1 << 20 // bytes of one configuration
	maxAttempts = 4       // logins tried for one repository
)

// Keyring holds credentials for registries.
type Keyring []login

// login is one entry: for which host, and which part of it.
type login struct {
	host, path string
	auth       authn.AuthConfig
}

// ParseKeyring reads the configuration of a container client (~/.docker/config.json, Secrets of type kubernetes.io/dockerconfigjson): its auths, not its
// credential helpers, which are programs.
func ParseKeyring(b []byte) (Keyring, error) {
	var c struct {
		Auths map[string]entry `json:"auths"`
	}
	if err := parse(b, &c); err != nil {
		return nil, err
	}
	return keyring(c.Auths)
}

// ParseOldKeyring reads Secrets of type kubernetes.io/dockercfg: the same without "auths" around it.
func ParseOldKeyring(b []byte) (Keyring, error) {
	var c map[string]entry
	if err := parse(b, &c); err != nil {
		return nil, err
	}
	return keyring(c)
}

type entry struct {
	Auth          string `json:"auth"`
	Username      string `json:"username"`
	Password      string `json:"password"`
	IdentityToken string `json:"identitytoken"`
	RegistryToken string `json:"registrytoken"`
}

// parse does not repeat what it could not read: it is secret.
func parse(b []byte, v any) error {
	if len(b) > MaxKeyring {
		return fmt.Errorf("credentials for registries have more than %d bytes", MaxKeyring)
	}
	if json.Unmarshal(b, v) != nil {
		return errors.New("credentials for registries are not the JSON of a container client's configuration")
	}
	return nil
}

func keyring(entries map[string]entry) (Keyring, error) {
	var k Keyring
	for _, at := range slices.Sorted(maps.Keys(entries)) {
		e := entries[at]
		l := login{auth: authn.AuthConfig{Username: e.Username, Password: e.Password, IdentityToken: e.IdentityToken, RegistryToken: e.RegistryToken}}
		if e.Auth != "" {
			pair, err := base64.StdEncoding.DecodeString(strings.TrimRight(e.Auth, "\x00"))
			user, password, ok := strings.Cut(string(pair), ":")
			if err != nil || !ok {
				return nil, fmt.Errorf("credentials for %s: auth is not the base64 of USER:PASSWORD", at)
			}
			l.auth.Username, l.auth.Password = user, strings.TrimRight(password, "\x00")
		}
		l.host, l.path = place(at)
		k = append(k, l)
	}
	return k, nil
}

// place reads what credentials are for: a host, or a part of one; the addresses "https://HOST/v1/" of old clients mean the host.
func place(at string) (host, below string) {
	at = strings.TrimPrefix(strings.TrimPrefix(at, "https://"), "http://")
	host, below, _ = strings.Cut(strings.TrimSuffix(at, "/"), "/")
	if below == "v1" || below == "v2" {
		below = ""
	}
	switch host = strings.ToLower(host); host {
	case "docker.io", "registry-1.docker.io":
		host = name.DefaultRegistry
	}
	return host, below
}

// find returns the logins for a repository, the most exact first. As for the kubelet, a host may have "*" in each of its parts.
func (k Keyring) find(repo name.Repository) []authn.AuthConfig {
	var fit []login
	for _, l := range k {
		if matches(l.host, repo.RegistryStr()) && (l.path == "" || l.path == repo.RepositoryStr() || strings.HasPrefix(repo.RepositoryStr(), l.path+"/")) {
			fit = append(fit, l)
		}
	}
	slices.SortStableFunc(fit, func(a, b login) int { return len(b.path) - len(a.path) })
	var out []authn.AuthConfig
	for _, l := range fit {
		if !slices.Contains(out, l.auth) {
			out = append(out, l.auth)
		}
	}
	return out
}

// Resolve returns the most exact login for a repository, as a keychain of a client that asks with one login only.
func (k Keyring) Resolve(r authn.Resource) (authn.Authenticator, error) {
	repo, ok := r.(name.Repository)
	if !ok {
		return authn.Anonymous, nil
	}
	if found := k.find(repo); len(found) > 0 {
		return authn.FromConfig(found[0]), nil
	}
	return authn.Anonymous, nil
}

func matches(pattern, host string) bool {
	p, h := strings.Split(pattern, "."), strings.Split(host, ".")
	if len(p) != len(h) {
		return false
	}
	for i := range p {
		if ok, err := path.Match(p[i], h[i]); err != nil || !ok {
			return false
		}
	}
	return true
}

// login opens a repository with the first credentials with which the registry shows the image, without any if there are none.
func (c *Checker) login(ctx context.Context, repo name.Repository, digest string, want Demand) (*source, error) {
	var all Keyring
	if want.Credentials != nil {
		k, err := want.Credentials(ctx)
		if err != nil {
			return nil, err
		}
		all = k
	}
	if c.policy.keyring != nil {
		k, err := c.policy.keyring()
		if err != nil {
			return nil, err
		}
		all = append(slices.Clip(all), k...)
	}
	logins := all.find(repo)
	if len(logins) == 0 {
		logins = append(logins, authn.AuthConfig{})
	}
	var last error
	for _, a := range logins[:min(len(logins), maxAttempts)] {
		s, err := open(ctx, c.guard, repo, authn.FromConfig(a))
		if err == nil {
			err = s.has(ctx, digest)
		}
		if err == nil {
			return s, nil
		}
		if last = err; !refused(err) {
			break
		}
	}
	if refused(last) {
		return nil, fmt.Errorf("%w: of the credentials for %s that are known here (%d) none is accepted", last, repo.RepositoryStr(), len(all.find(repo)))
	}
	return nil, last
}

// refused tells whether a registry wants other credentials.
func refused(err error) bool {
	var status statusError
	return errors.As(err, &status) && (status == http.StatusUnauthorized || status == http.StatusForbidden)
}
