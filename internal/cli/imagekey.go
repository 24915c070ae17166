package cli

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"touchstone.dev/touchstone/internal/cli/render"
	"touchstone.dev/touchstone/internal/imagekey"
	"touchstone.dev/touchstone/internal/operator"
	"touchstone.dev/touchstone/internal/protocol"
)

func (a *App) imageKeyCmd() *cobra.Command {
	cmd := &cobra.Command{Use: "key", Aliases: []string{"keys"}, Short: "Keys of encrypted images: which there are, who gets them, revoke them"}
	cmd.AddCommand(a.imageKeyListCmd(), a.imageKeyChangeCmd(), a.imageKeyRevokeCmd(true), a.imageKeyRevokeCmd(false), a.imageKeyImportCmd())
	return cmd
}

func (a *App) imageKeyListCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the keys of encrypted images, newest first",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.ask(cmd, func(ctx context.Context, c *operator.Client) error {
				keys, err := c.ImageKeys(ctx)
				if err != nil {
					return err
				}
				return a.show(protocol.ImageKeyList{Keys: keys}, func(w io.Writer) { a.Style.ImageKeys(w, keys, a.Now()) })
			})
		},
	}
}

func (a *App) imageKeyChangeCmd() *cobra.Command {
	var class, file string
	cmd := &cobra.Command{
		Use:   "change ID",
		Short: "Change who gets the key of an image: another trust class, or the same one as it is now",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			change, err := a.demand(class, file)
			if err != nil {
				return usage(cmd, err)
			}
			return a.changeKey(cmd, args[0], *change)
		},
	}
	demandFlags(cmd, &class, &file)
	return cmd
}

func demandFlags(cmd *cobra.Command, class, file *string) {
	cmd.Flags().StringVar(class, "trust-class", "", "trust class that a worker must meet, `NAME`")
	cmd.Flags().StringVar(file, "conditions", "", "`FILE` with what a worker must meet instead, as JSON: levels, warnings, softwareTPM, maxResultAge, tags")
}

// demand reads what a worker must meet: one of the two is given.
func (a *App) demand(class, file string) (*protocol.ImageKeyChange, error) {
	if (class == "") == (file == "") {
		return nil, fmt.Errorf("give --trust-class NAME or --conditions FILE")
	}
	out := &protocol.ImageKeyChange{Class: class}
	var err error
	if file != "" {
		out.Conditions, err = a.conditions(file)
	}
	return out, err
}

func (a *App) changeKey(cmd *cobra.Command, id string, change protocol.ImageKeyChange) error {
	return a.ask(cmd, func(ctx context.Context, c *operator.Client) error {
		k, err := c.ChangeImageKey(ctx, id, change)
		if err != nil {
			return err
		}
		return a.show(k, func(w io.Writer) { a.Style.ImageKeys(w, []protocol.ImageKey{*k}, a.Now()) })
	})
}

func (a *App) imageKeyRevokeCmd(revoke bool) *cobra.Command {
	cmd := &cobra.Command{Use: "revoke ID", Short: "Give the key of an image to nobody any more; workers that have decrypted the image remove it"}
	if !revoke {
		cmd = &cobra.Command{Use: "restore ID", Short: "Take a revocation back"}
	}
	cmd.Args = cobra.ExactArgs(1)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return a.changeKey(cmd, args[0], protocol.ImageKeyChange{Revoked: &revoke})
	}
	return cmd
}

func (a *App) imageKeyImportCmd() *cobra.Command {
	var class, file, image string
	cmd := &cobra.Command{
		Use:   "import ID KEYFILE",
		Short: "Bring the key of an image that was encrypted for a key broker of Confidential Containers",
		Long: `Bring the key of an image that was encrypted for a key broker of Confidential Containers, so that workers can open it. ID is the one in the image,
kbs:///REPOSITORY/TYPE/TAG; KEYFILE holds its 32 bytes.`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			change, err := a.demand(class, file)
			if err != nil {
				return usage(cmd, err)
			}
			key, err := a.readFile(args[1], imagekey.KeySize)
			if err != nil {
				return unreadable(err)
			}
			return a.ask(cmd, func(ctx context.Context, c *operator.Client) error {
				k, err := c.NewImageKey(ctx, protocol.ImageKeyRequest{ID: args[0], Key: key, Class: change.Class, Conditions: change.Conditions, Image: image})
				if err != nil {
					return err
				}
				return a.show(k.ImageKey, func(w io.Writer) { a.Style.ImageKeys(w, []protocol.ImageKey{k.ImageKey}, a.Now()) })
			})
		},
	}
	demandFlags(cmd, &class, &file)
	cmd.Flags().StringVar(&image, "image", "", "what it is for, `TEXT`")
	return cmd
}

func (a *App) classCmd() *cobra.Command {
	cmd := &cobra.Command{Use: "class", Aliases: []string{"classes"}, Short: "Trust classes that AIAS gives keys by; in a cluster the controller brings each TrustClass"}
	list := &cobra.Command{
		Use:   "list",
		Short: "List the trust classes that AIAS knows",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.ask(cmd, func(ctx context.Context, c *operator.Client) error {
				classes, err := c.Classes(ctx)
				if err != nil {
					return err
				}
				return a.show(protocol.ClassList{Classes: classes}, func(w io.Writer) { a.Style.Classes(w, classes) })
			})
		},
	}
	set := &cobra.Command{
		Use:     "set NAME FILE",
		Short:   "Say what a trust class demands of a worker: JSON of levels, warnings, softwareTPM, maxResultAge and tags, as a TrustClass has them",
		Example: `  echo '{"tags":{"country":["de"]},"maxResultAge":"10m"}' | touchstone class set regulated -`,
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			conditions, err := a.conditions(args[1])
			if err != nil {
				return unreadable(err)
			}
			return a.ask(cmd, func(ctx context.Context, c *operator.Client) error {
				class, err := c.SetClass(ctx, protocol.Class{Name: args[0], Conditions: conditions})
				if err != nil {
					return err
				}
				return a.show(class, func(w io.Writer) { a.Style.Classes(w, []protocol.Class{*class}) })
			})
		},
	}
	remove := &cobra.Command{
		Use:   "delete NAME",
		Short: "Remove a trust class; keys keep what it said when they were made",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.ask(cmd, func(ctx context.Context, c *operator.Client) error {
				if err := c.DeleteClass(ctx, args[0]); err != nil {
					return err
				}
				return a.show(map[string]string{"deleted": args[0]}, func(w io.Writer) { fmt.Fprintf(w, "trust class %s is removed\n", render.Clean(args[0])) })
			})
		},
	}
	cmd.AddCommand(list, set, remove)
	return cmd
}
