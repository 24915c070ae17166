package main

import (
	"fmt"
	"io"
	"os"

	"github.com/spf13/pflag"

	"touchstone.dev/touchstone/internal/admission/images"
)

// registry says which registries are asked for signatures of images, and how.
type registry struct {
	hosts, insecure []string
	mirrors         map[string]string
	ca, auth        string
	pullSecrets     bool
}

func (r *registry) flags(f *pflag.FlagSet) {
	f.StringSliceVar(&r.hosts, "registry", nil, "`HOST` of a registry that may be asked for signatures of images, beside those in images.registries of the class; * for each with a public address")
	f.StringSliceVar(&r.insecure, "registry-insecure", nil, "`HOST` of a registry that is asked without TLS")
	f.StringToStringVar(&r.mirrors, "registry-mirror", nil, "`HOST=MIRROR` that is asked in place of a registry (docker.io=mirror.example/hub)")
	f.StringVar(&r.ca, "registry-ca", "", "`FILE` with root certificates of registries, beside those of the system")
	f.StringVar(&r.auth, "registry-auth", "", "`FILE` with credentials for registries (config.json of a container client), read again as it changes")
	f.BoolVar(&r.pullSecrets, "registry-pull-secrets", false, "ask with the imagePullSecrets of the pod, which the controller must be allowed to read")
}

// maxBundle of root certificates, in bytes.
const maxBundle = 4 << 20

func (r *registry) checker() (*images.Checker, error) {
	o := images.Options{Registries: r.hosts, Insecure: r.insecure, Mirrors: r.mirrors}
	if r.ca != "" {
		b, err := readAtMost(r.ca, maxBundle)
		if err != nil {
			return nil, fmt.Errorf("--registry-ca: %w", err)
		}
		o.CA = b
	}
	if r.auth != "" {
		o.Keyring = func() (images.Keyring, error) {
			b, err := readAtMost(r.auth, images.MaxKeyring)
			if err != nil {
				return nil, fmt.Errorf("--registry-auth: %w", err)
			}
			return images.ParseKeyring(b)
		}
		if _, err := o.Keyring(); err != nil {
			return nil, err
		}
	}
	return images.New(o)
}

func readAtMost(file string, limit int64) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, limit+1)) // who reads it refuses what is too long
}
