package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"touchstone.dev/touchstone/internal/admission/images"
	"touchstone.dev/touchstone/internal/appraisal"
	"touchstone.dev/touchstone/internal/cli/render"
)

// imageCmd is the parent of the commands on container images.
func (a *App) imageCmd() *cobra.Command {
	cmd := &cobra.Command{Use: "image", Short: "Container images as trust classes demand them"}
	cmd.AddCommand(a.imageEncryptCmd(), a.imageProviderCmd(), a.imageKeyCmd(), a.imageVerifyCmd(), a.imageScanCmd())
	return cmd
}

// Limits of the files that an image is verified with, in bytes.
const (
	maxKeyFile = 16 << 10
	maxCAFile  = 4 << 20
)

// imageTime bounds the questions to a registry.
const imageTime = 30 * time.Second

// imageQuestion is what `image verify` is asked.
type imageQuestion struct {
	keys      []string
	encrypted bool
	plainHTTP bool
	ca, auth  string
}

func (a *App) imageVerifyCmd() *cobra.Command {
	var q imageQuestion
	cmd := &cobra.Command{
		Use:   "verify IMAGE",
		Short: "Tell whether an image is signed and encrypted, as admission would",
		Long: `Tell whether an image is signed by one of some keys, and encrypted, as the admission of pods with a trust class would: the image's registry
is asked for signatures in cosign's formats. Exit code 0: it is; 1: it is not, or that cannot be found out; 2: the command was used wrongly.

Credentials for the registry come from the file of a container client ($DOCKER_CONFIG/config.json or ~/.docker/config.json); credential helpers are not run.`,
		Example: "  touchstone image verify registry.example/shop/web@sha256:7173b809... --key cosign.pub --encrypted",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			want, err := a.imageDemand(&q, args[0])
			if err != nil {
				return unreadable(err)
			}
			checker, err := a.imageChecker(&q, args[0])
			if err != nil {
				return unreadable(err)
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), imageTime)
			defer cancel()
			report, err := checker.Check(ctx, args[0], want)
			if err != nil {
				return fmt.Errorf("image %s: %w", args[0], err)
			}
			return a.show(report, func(w io.Writer) { a.drawImage(w, report) })
		},
	}
	f := cmd.Flags()
	f.StringArrayVar(&q.keys, "key", nil, "public key `FILE` (PEM, as cosign.pub); several: one of them must have signed")
	f.BoolVar(&q.encrypted, "encrypted", false, "every layer must be encrypted")
	f.BoolVar(&q.plainHTTP, "plain-http", false, "ask the registry without TLS")
	f.StringVar(&q.ca, "ca", "", "`FILE` with root certificates of the registry, beside those of the system")
	f.StringVar(&q.auth, "auth", "", "`FILE` with credentials for the registry (default: that of the container client)")
	return cmd
}

func (a *App) imageDemand(q *imageQuestion, image string) (images.Demand, error) {
	want := images.Demand{Encrypted: q.encrypted, Registries: []string{images.Host(image) + "/"}}
	if len(q.keys) == 0 && !q.encrypted {
		return want, errors.New("what is it to be? Want --key FILE, --encrypted, or both")
	}
	for _, file := range q.keys {
		b, err := a.readFile(file, maxKeyFile)
		if err != nil {
			return want, fmt.Errorf("--key: %w", err)
		}
		want.SignedBy = append(want.SignedBy, string(b))
	}
	return want, nil
}

func (a *App) imageChecker(q *imageQuestion, image string) (*images.Checker, error) {
	var o images.Options
	var err error
	if q.plainHTTP {
		o.Insecure = []string{images.Host(image)}
	}
	if q.ca != "" {
		if o.CA, err = a.readFile(q.ca, maxCAFile); err != nil {
			return nil, fmt.Errorf("--ca: %w", err)
		}
	}
	auth := q.auth
	if auth == "" {
		if auth = clientConfig(); auth == "" {
			return images.New(o)
		}
	}
	o.Keyring = func() (images.Keyring, error) {
		b, err := a.readFile(auth, images.MaxKeyring)
		if err != nil {
			return nil, err
		}
		return images.ParseKeyring(b)
	}
	return images.New(o)
}

func (a *App) drawImage(w io.Writer, r *images.Report) {
	fmt.Fprintf(w, "%s  %s\n", a.Style.Status(appraisal.Pass, "verified"), render.Clean(r.Image))
	if r.Signer != "" {
		fmt.Fprintf(w, "  signed by the key with SHA-256 %s (%s)\n", r.Signer, r.Form)
	}
	if r.EncryptedLayers > 0 {
		fmt.Fprintf(w, "  encrypted: %s\n", render.Count(r.EncryptedLayers, "layer"))
	}
}

// clientConfig returns the configuration file of the container client; "" when there is none.
func clientConfig() string {
	dir := os.Getenv("DOCKER_CONFIG")
	if dir == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return ""
		}
		dir = filepath.Join(home, ".docker")
	}
	file := filepath.Join(dir, "config.json")
	if _, err := os.Stat(file); err != nil {
		return ""
	}
	return file
}
