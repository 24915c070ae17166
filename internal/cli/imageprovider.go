package cli

import (
	"context"
	"io"
	"log/slog"
	"os"

	"github.com/spf13/cobra"

	"touchstone.dev/touchstone/internal/imagekey"
	"touchstone.dev/touchstone/internal/keyprovider"
	"touchstone.dev/touchstone/internal/operator"
	"touchstone.dev/touchstone/internal/protocol"
)

// maxProviderInput is how much a client of ocicrypt may send, in bytes.
const maxProviderInput = 1 << 20

func (a *App) imageProviderCmd() *cobra.Command {
	var listen string
	cmd := &cobra.Command{
		Use:   "key-provider",
		Short: "Give keys to skopeo, buildah and other clients of ocicrypt that encrypt images by themselves",
		Long: `Be the ocicrypt key provider "` + imagekey.Provider + `" for clients that encrypt images by themselves. It makes keys at AIAS, as an operator, for the workers of a trust
class. The client says which: --encryption-key provider:` + imagekey.Provider + `:CLASS@IMAGE. What is missing or wrong ends the encryption; there is no class by default.

Without --listen it reads one request and answers it: the form "cmd" of ocicrypt, a key for each layer. With --listen it serves gRPC on a socket until it is
stopped, for processes of the same user; all layers of an IMAGE get one key, for ten minutes after the last one.

$OCICRYPT_KEYPROVIDER_CONFIG names a file for the client:
  {"key-providers":{"` + imagekey.Provider + `":{"cmd":{"path":"touchstone","args":["image","key-provider"]}}}}
  {"key-providers":{"` + imagekey.Provider + `":{"grpc":"unix:///run/user/1000/touchstone.sock"}}}`,
		Example: "  touchstone image key-provider --listen $XDG_RUNTIME_DIR/touchstone.sock",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			w := &keyprovider.Wrapper{Now: a.Now, New: func(_ context.Context, class, image string) (string, []byte, error) {
				return a.newImageKey(cmd, class, image) //nolint:contextcheck // ask has the time limit of a request, and ends with the command
			}}
			if listen != "" {
				return a.serveProvider(cmd.Context(), listen, w)
			}
			in, err := io.ReadAll(io.LimitReader(cmd.InOrStdin(), maxProviderInput))
			if err != nil {
				return err
			}
			out, err := w.Wrap(cmd.Context(), in)
			if err != nil {
				return err
			}
			_, err = a.Out.Write(out)
			return err
		},
	}
	cmd.Flags().StringVar(&listen, "listen", "", "serve gRPC on this `SOCKET`")
	return cmd
}

func (a *App) newImageKey(cmd *cobra.Command, class, image string) (id string, key []byte, err error) {
	err = a.ask(cmd, func(ctx context.Context, c *operator.Client) error {
		k, err := c.NewImageKey(ctx, protocol.ImageKeyRequest{Class: class, Image: image})
		if err == nil {
			id, key = k.ID, k.Key
		}
		return err
	})
	return id, key, err
}

func (a *App) serveProvider(ctx context.Context, socket string, w *keyprovider.Wrapper) error {
	l, err := keyprovider.Listen(ctx, socket)
	if err != nil {
		return err
	}
	defer os.Remove(socket) //nolint:errcheck // it is nobody's then
	s := &keyprovider.Server{Wrap: w.Wrap, Timeout: requestTimeout, UIDs: []uint32{uint32(os.Getuid())}, Log: slog.New(slog.NewTextHandler(a.Err, nil))}
	return s.Serve(ctx, l)
}
