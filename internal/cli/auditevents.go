package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"touchstone.dev/touchstone/internal/audit/chain"
	"touchstone.dev/touchstone/internal/audit/record"
	"touchstone.dev/touchstone/internal/audit/shown"
	"touchstone.dev/touchstone/internal/cli/render"
	"touchstone.dev/touchstone/internal/operator"
)

// auditFilter says which entries are shown.
type auditFilter struct {
	since, until               string
	key, kind, user, pod, text string
	recordType, format         string
}

func (f *auditFilter) flags(cmd *cobra.Command) {
	s := cmd.Flags()
	s.StringVar(&f.key, "key", "", "only events of rules with this `KEY`")
	s.StringVar(&f.recordType, "type", "", "only events with a record of this `TYPE`, such as EXECVE")
	s.StringVar(&f.kind, "kind", "", "only entries of this `KIND`: event, gap, status or start")
	s.StringVar(&f.user, "user", "", "only events of this login (`NAME` or uid)")
	s.StringVar(&f.pod, "pod", "", "only events of this pod (`NAME` or NAMESPACE/NAME)")
	s.StringVar(&f.text, "text", "", "only events whose records, decoded, hold this `TEXT`")
	s.StringVar(&f.format, "format", "", "syslog: RFC 5424 lines; otlp: JSON of OpenTelemetry logs; raw: records as the kernel wrote them")
}

// takes reports whether an entry passes.
func (f *auditFilter) takes(v *shown.Entry) bool {
	e, ev := v.Entry, v.Event
	if f.kind != "" && e.Kind.String() != f.kind {
		return false
	}
	if f.key+f.recordType+f.user+f.pod+f.text == "" {
		return true
	}
	if ev == nil {
		return false
	}
	if f.key != "" && !hasKey(ev, f.key) {
		return false
	}
	if f.recordType != "" {
		t, ok := record.ParseType([]byte(strings.ToUpper(f.recordType)))
		if !ok || ev.Find(t) == nil {
			return false
		}
	}
	if f.user != "" && e.Context.User != f.user && v.Login() != f.user {
		return false
	}
	if f.pod != "" && e.Context.Pod != f.pod && e.Context.Namespace+"/"+e.Context.Pod != f.pod {
		return false
	}
	return f.text == "" || strings.Contains(v.Words(), f.text) || bytes.Contains(e.Body, []byte(f.text))
}

func hasKey(ev *record.Event, key string) bool {
	for _, k := range ev.Keys() {
		if string(k) == key {
			return true
		}
	}
	return false
}

// query reads the times.
func (f *auditFilter) query(now time.Time) (q operator.AuditQuery, err error) {
	for _, t := range []struct {
		text string
		to   *time.Time
	}{{f.since, &q.Since}, {f.until, &q.Until}} {
		if t.text == "" {
			continue
		}
		if d, derr := time.ParseDuration(t.text); derr == nil {
			*t.to = now.Add(-d)
			continue
		}
		if *t.to, err = time.Parse(time.RFC3339, t.text); err != nil {
			return q, fmt.Errorf("time %q: write 15m (ago) or 2026-11-24T12:00:00Z", t.text)
		}
	}
	return q, nil
}

func (a *App) auditTailCmd() *cobra.Command {
	var f auditFilter
	cmd := &cobra.Command{
		Use:     "tail NODE",
		Short:   "Show audit events of a worker as they come",
		Example: "  touchstone audit tail worker-1 --key ts-container\n  touchstone audit tail worker-1 -o json | jq .argv",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.auditEvents(cmd, args[0], &f, operator.AuditQuery{Last: 1, Follow: true})
		},
	}
	f.flags(cmd)
	return cmd
}

func (a *App) auditSearchCmd() *cobra.Command {
	var f auditFilter
	cmd := &cobra.Command{
		Use:     "search NODE",
		Short:   "Show audit events of a worker that AIAS keeps",
		Example: "  touchstone audit search worker-1 --since 15m --user ann --type EXECVE\n  touchstone audit search worker-1 --kind gap",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			q, err := f.query(a.Now())
			if err != nil {
				return usage(cmd, err)
			}
			return a.auditEvents(cmd, args[0], &f, q)
		},
	}
	f.flags(cmd)
	cmd.Flags().StringVar(&f.since, "since", "", "only events after this `TIME`: 15m (ago), or 2026-11-24T12:00:00Z")
	cmd.Flags().StringVar(&f.until, "until", "", "only events before this `TIME`")
	return cmd
}

// auditEvents shows events; it has no time limit, as there may be many, and tail does not end.
func (a *App) auditEvents(cmd *cobra.Command, node string, f *auditFilter, q operator.AuditQuery) error {
	show := shown.Text
	switch {
	case a.asJSON():
		show = shown.JSON
	case f.format == "syslog":
		show = shown.Syslog
	case f.format == "otlp":
		show = shown.OTLP
	case f.format == "raw":
		show = shown.Raw
	case f.format != "":
		return usage(cmd, fmt.Errorf("format %q: use syslog, otlp or raw, or -o json", f.format))
	}
	c, err := a.online()
	if err != nil {
		return err
	}
	defer c.Close()
	err = c.AuditEvents(cmd.Context(), node, q, func(_ time.Time, b *chain.Batch) error {
		for _, raw := range b.Entries {
			e, err := chain.Parse(raw)
			if err != nil {
				return err
			}
			if !q.Since.IsZero() && e.Time.Before(q.Since) || !q.Until.IsZero() && e.Time.After(q.Until) {
				continue
			}
			v := shown.New(node, &e)
			v.ID = fmt.Sprintf("%s/%v/%d", node, b.Before.Chain, e.Seq)
			if !f.takes(v) {
				continue
			}
			if _, err := fmt.Fprintln(a.Out, show(v)); err != nil {
				return err
			}
		}
		return nil
	})
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

func (a *App) auditAcceptCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "accept NODE",
		Short: "Take responsibility for what is odd about the audit chain of a worker (fork, hole, new chain): it no longer counts",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.ask(cmd, func(ctx context.Context, c *operator.Client) error {
				r, err := c.AcceptAudit(ctx, args[0])
				if err != nil {
					return err
				}
				return a.show(r, render.AuditFindings(r))
			})
		},
	}
}
