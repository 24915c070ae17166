package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
)

// providerWatch looks at the runtime's configuration again and again, for a pod: what is wrong is in its log, and `check` as its readiness probe
// makes an event of it.
type providerWatch struct {
	providerFlags
	from    decoderFlags
	install bool
	every   time.Duration
	said    string
}

func providerWatchCmd() *cobra.Command {
	var w providerWatch
	cmd := &cobra.Command{
		Use:   "watch",
		Short: "Check the container runtime's configuration again and again, and with --install write it; it never restarts the runtime",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			socket, err := w.where()
			if err != nil {
				return err
			}
			if w.every < time.Second {
				return fmt.Errorf("--every %s: want a second at least: %w", w.every, errUsage)
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			for {
				w.look(ctx, cmd.OutOrStdout(), socket)
				select {
				case <-ctx.Done():
					return nil
				case <-time.After(w.every):
				}
			}
		},
	}
	w.add(cmd)
	w.from.add(cmd)
	cmd.Flags().BoolVar(&w.install, "install", false, "write the configuration and the decoder when they are not there")
	cmd.Flags().DurationVar(&w.every, "every", time.Minute, "time between two looks")
	return cmd
}

// look installs and checks once, and says what is new.
func (w *providerWatch) look(ctx context.Context, out io.Writer, socket string) {
	var words strings.Builder
	if w.install {
		wrote, next, err := install(ctx, &w.providerFlags, &w.from, socket)
		for _, file := range wrote {
			fmt.Fprintln(out, "wrote", file)
		}
		if err != nil {
			fmt.Fprintln(&words, "-", err)
		}
		if next != "" {
			fmt.Fprintln(&words, "-", next)
		}
	}
	problems, err := check(ctx, &w.providerFlags, socket)
	if err == nil {
		err = tell(&words, w.runtime, problems)
	}
	if err != nil {
		fmt.Fprintln(&words, err)
	}
	if words.String() == w.said || ctx.Err() != nil {
		return
	}
	w.said = words.String()
	fmt.Fprintf(out, "%s:\n%s", time.Now().UTC().Format(time.RFC3339), w.said)
}
