package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"touchstone.dev/touchstone/internal/cli/render"
	"touchstone.dev/touchstone/internal/operator"
	"touchstone.dev/touchstone/internal/protocol"
)

func (a *App) tagCmd() *cobra.Command {
	cmd := &cobra.Command{Use: "tag", Aliases: []string{"tags"}, Short: "Asset tags: what you say of a worker, and its TPM proves to hold"}
	cmd.AddCommand(a.tagSetCmd(), a.tagListCmd(), a.tagClearCmd())
	return cmd
}

func (a *App) tagSetCmd() *cobra.Command {
	var wait time.Duration
	cmd := &cobra.Command{
		Use:     "set NODE NAME=VALUE...",
		Short:   "Give a worker asset tags; they replace those that it had, and count when its TPM has certified them",
		Example: "  touchstone tag set worker-1 country=de site=muc",
		Args:    cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			tags, err := parseTags(args[1:])
			if err != nil {
				return usage(cmd, err)
			}
			if wait < 0 {
				return usage(cmd, errors.New("--wait must not be negative"))
			}
			return a.ask(cmd, func(ctx context.Context, c *operator.Client) error {
				s, err := c.SetTags(ctx, args[0], tags)
				if err == nil && wait > 0 {
					s, err = a.proven(ctx, c, s, wait)
				}
				if err != nil {
					return err
				}
				return a.show(s, func(w io.Writer) { a.Style.Tags(w, []protocol.TagState{*s}) })
			})
		},
	}
	cmd.Flags().DurationVar(&wait, "wait", 0, "wait so long until the TPM has certified them, and fail when it has not")
	return cmd
}

// parseTags reads NAME=VALUE. What names and values may be, AIAS says.
func parseTags(words []string) (map[string]string, error) {
	tags := make(map[string]string, len(words))
	for _, word := range words {
		name, value, ok := strings.Cut(word, "=")
		if !ok || name == "" || value == "" {
			return nil, fmt.Errorf("%q is no tag: want NAME=VALUE", word)
		}
		if _, twice := tags[name]; twice {
			return nil, fmt.Errorf("tag %q is there twice", name)
		}
		tags[name] = value
	}
	return tags, nil
}

// proven waits until the TPM of a node has certified tags.
func (a *App) proven(ctx context.Context, c *operator.Client, s *protocol.TagState, wait time.Duration) (*protocol.TagState, error) {
	waiting, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for serial := s.Serial; !s.Proven; {
		select {
		case <-waiting.Done():
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			return nil, fmt.Errorf("the tags of %s are not proven after %s: %s; see `touchstone why %s`", s.Node, wait, s.Reason, s.Node)
		case <-tick.C:
		}
		next, err := c.Tags(ctx, s.Node)
		if err != nil {
			return nil, err
		}
		if next.Serial != serial {
			return nil, fmt.Errorf("the tags of %s were changed by somebody else meanwhile", s.Node)
		}
		s = next
	}
	return s, nil
}

func (a *App) tagListCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the workers that have asset tags, and whether their TPMs have proven them",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.ask(cmd, func(ctx context.Context, c *operator.Client) error {
				nodes, err := c.Nodes(ctx)
				if err != nil {
					return err
				}
				states := []protocol.TagState{}
				for i := range nodes {
					if n := &nodes[i]; len(n.Tags) > 0 {
						states = append(states, protocol.TagState{Node: n.Name, Tags: n.Tags, Serial: n.TagSerial, Proven: n.TagsProven})
					}
				}
				return a.show(states, func(w io.Writer) { a.Style.Tags(w, states) })
			})
		},
	}
}

func (a *App) tagClearCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "clear NODE",
		Short: "Take the asset tags of a worker away, at once",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.ask(cmd, func(ctx context.Context, c *operator.Client) error {
				s, err := c.ClearTags(ctx, args[0])
				if err != nil {
					return err
				}
				return a.show(s, func(w io.Writer) { fmt.Fprintf(w, "%s has no asset tags\n", render.Clean(args[0])) })
			})
		},
	}
}
