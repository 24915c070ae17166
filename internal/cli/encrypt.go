package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"touchstone.dev/touchstone/internal/admission/images"
	"touchstone.dev/touchstone/internal/cli/render"
	"touchstone.dev/touchstone/internal/imagecrypt"
	"touchstone.dev/touchstone/internal/operator"
	"touchstone.dev/touchstone/internal/protocol"
	"touchstone.dev/touchstone/internal/version"
)

// encryption is what `image encrypt` is asked.
type encryption struct {
	class, conditions string
	plainHTTP         bool
	ca, auth, temp    string
}

// encrypted is what it says when it is done.
type encrypted struct {
	Image   string            `json:"image"` // with its digest
	Key     protocol.ImageKey `json:"key"`
	Plan    imagecrypt.Plan   `json:"plan"`
	Seconds float64           `json:"seconds"`
}

func (a *App) imageEncryptCmd() *cobra.Command {
	var q encryption
	cmd := &cobra.Command{
		Use:   "encrypt SRC DST",
		Short: "Encrypt an image so that only workers that meet a trust class can open it",
		Long: `Encrypt every layer of an image, on all of its platforms, under a new key that AIAS keeps: a worker gets it only if it meets the trust
class, with what the class demands now and what it demands when the worker pulls. The key is bound to that in AIAS; nothing in the image can change it.

SRC is an image in a registry, oci:FOLDER[:TAG] or docker-archive:FILE[:NAME:TAG]; DST an image in a registry or oci:FOLDER[:TAG]. Layers may be plain or
compressed by gzip or zstd. What stays readable: the image's configuration (environment, command) and its manifests; and the plain image at SRC, if you
do not remove it. Sign the encrypted image, not the plain one: its digest is printed.

Logins for registries come from the file of a container client ($DOCKER_CONFIG/config.json or ~/.docker/config.json); credential helpers are not run.`,
		Example: `  touchstone image encrypt registry.example/team/app:1.4 registry.example/team/app-encrypted:1.4 --trust-class regulated
  touchstone image encrypt docker-archive:app.tar oci:app-encrypted --trust-class regulated`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if (q.class == "") == (q.conditions == "") {
				return usage(cmd, errors.New("who may open the image? Give --trust-class NAME, or --conditions FILE"))
			}
			if args[0] == args[1] {
				return usage(cmd, errors.New("SRC and DST are the same: the plain layers would stay in that place"))
			}
			start := time.Now()
			done, err := a.encryptImage(cmd, &q, args[0], args[1])
			if err != nil {
				return err
			}
			done.Seconds = time.Since(start).Seconds()
			return a.show(done, func(w io.Writer) { a.drawEncrypted(w, done) })
		},
	}
	f := cmd.Flags()
	f.StringVar(&q.class, "trust-class", "", "trust class that a worker must meet, `NAME`")
	f.StringVar(&q.conditions, "conditions", "", "`FILE` with what a worker must meet instead, as JSON: levels, warnings, softwareTPM, maxResultAge, tags")
	f.BoolVar(&q.plainHTTP, "plain-http", false, "ask the registries without TLS")
	f.StringVar(&q.ca, "ca", "", "`FILE` with root certificates of the registries, beside those of the system")
	f.StringVar(&q.auth, "auth", "", "`FILE` with logins for the registries (default: that of the container client)")
	f.StringVar(&q.temp, "temp", "", "`FOLDER` for the encrypted layers until they are written (default: that of the system)")
	return cmd
}

// maxConditions is how large a file of conditions may be, in bytes.
const maxConditions = 64 << 10

// conditions reads what a worker must meet. What it may say, AIAS knows.
func (a *App) conditions(file string) (json.RawMessage, error) {
	b, err := a.readFile(file, maxConditions)
	if err == nil && !json.Valid(b) {
		err = fmt.Errorf("%s is no JSON", file)
	}
	return b, err
}

func (a *App) encryptImage(cmd *cobra.Command, q *encryption, from, to string) (*encrypted, error) {
	ctx := cmd.Context()
	r, err := a.registry(q)
	if err != nil {
		return nil, unreadable(err)
	}
	if err := r.CheckWritable(to); err != nil {
		return nil, unreadable(fmt.Errorf("%s: %w", to, err))
	}
	src, err := r.Open(ctx, from)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", from, err)
	}
	plan, err := imagecrypt.Look(src)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", from, err)
	}
	req := protocol.ImageKeyRequest{Class: q.class, Image: to}
	if q.conditions != "" {
		if req.Conditions, err = a.conditions(q.conditions); err != nil {
			return nil, unreadable(err)
		}
	}
	var key *protocol.NewImageKey
	err = a.ask(cmd, func(ctx context.Context, c *operator.Client) (err error) {
		key, err = c.NewImageKey(ctx, req)
		return err
	})
	if err != nil {
		return nil, err
	}
	digest, err := a.encryptTo(ctx, r, q, key, src, plan, to)
	if err != nil {
		return nil, fmt.Errorf("%w; the key %s was made for nothing: touchstone image key revoke %s", err, key.ID, key.ID)
	}
	return &encrypted{Image: to + "@" + digest, Key: key.ImageKey, Plan: *plan}, nil
}

// encryptTo encrypts an image and writes it, and returns its digest.
func (a *App) encryptTo(ctx context.Context, r *imagecrypt.Registry, q *encryption, key *protocol.NewImageKey, src *imagecrypt.Source, plan *imagecrypt.Plan, to string) (string, error) {
	dir, err := os.MkdirTemp(q.temp, "touchstone-image-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // nothing in it is secret
	p := a.newProgress("encrypting")
	defer p.end()
	e := imagecrypt.New(key.ID, key.Key, dir)
	e.Progress = func(done int64) { p.update(done, plan.Bytes) }
	out, err := e.Encrypt(ctx, src)
	if err != nil {
		return "", err
	}
	p.title = "writing"
	if err := r.Write(ctx, to, out, p.update); err != nil {
		return "", fmt.Errorf("%s: %w", to, err)
	}
	digest, err := out.Digest()
	return digest.String(), err
}

// registry reads how to talk to registries.
func (a *App) registry(q *encryption) (*imagecrypt.Registry, error) {
	r := &imagecrypt.Registry{PlainHTTP: q.plainHTTP, UserAgent: "touchstone/" + version.String()}
	var err error
	if q.ca != "" {
		if r.CA, err = a.readFile(q.ca, maxCAFile); err != nil {
			return nil, fmt.Errorf("--ca: %w", err)
		}
	}
	file := q.auth
	if file == "" {
		if file = clientConfig(); file == "" {
			return r, nil
		}
	}
	b, err := a.readFile(file, images.MaxKeyring)
	if err != nil {
		return nil, fmt.Errorf("logins: %w", err)
	}
	keys, err := images.ParseKeyring(b)
	r.Keychain = keys
	return r, err
}

func (a *App) drawEncrypted(w io.Writer, e *encrypted) {
	fmt.Fprintf(w, "%s\n", render.Clean(e.Image))
	field := func(label, text string) { a.Style.Field(w, 2, label, render.Clean(text)) }
	field("key", e.Key.ID)
	if e.Key.Class != "" {
		field("class", e.Key.Class)
	}
	field("workers", string(e.Key.Conditions))
	field("layers", fmt.Sprintf("%d of %s, %.1f MiB, in %.1f s", e.Plan.Layers, render.Count(e.Plan.Images, "image"), float64(e.Plan.Bytes)/(1<<20), e.Seconds))
	if e.Plan.Skipped > 0 {
		field("left out", render.Count(e.Plan.Skipped, "attestation")+" of the builder: they describe the plain image")
	}
	field("next", "sign this image; remove the plain one where nobody must read it")
}
