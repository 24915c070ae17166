// Package shown is how audit events look outside of Touchstone: a line for people, JSON, RFC 5424, the fields of OTLP. Texts of workers are in it, and get
// nowhere out of their place.
package shown

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"touchstone.dev/touchstone/internal/audit/chain"
	"touchstone.dev/touchstone/internal/audit/record"
)

// Entry is an entry of an audit chain, with its event when it is one that can be read.
type Entry struct {
	Node  string
	ID    string // the same whenever the entry is sent somewhere; "": it is only shown
	Entry *chain.Entry
	Event *record.Event
}

// New reads an entry.
func New(node string, e *chain.Entry) *Entry {
	v := &Entry{Node: node, Entry: e}
	if e.Kind == chain.KindEvent {
		v.Event, _ = record.Parse(e.Body)
	}
	return v
}

// Login is the login that did it, a number; "" when there is none.
func (v *Entry) Login() string {
	if v.Event == nil {
		return ""
	}
	p, ok := v.Event.Process()
	if !ok || p.AUID == record.Unset {
		return ""
	}
	return strconv.FormatUint(uint64(p.AUID), 10)
}

// Keys are the keys of the rules that caused it.
func (v *Entry) Keys() []string {
	var out []string
	if v.Event != nil {
		for _, k := range v.Event.Keys() {
			out = append(out, string(k))
		}
	}
	return out
}

// field is what the first record says under a name, decoded.
func (v *Entry) field(name string) string {
	for _, r := range v.Event.Records {
		if b, ok := r.Text(name); ok {
			return string(b)
		}
	}
	return ""
}

// Words says in one line what happened; texts of the worker are in it as they are.
func (v *Entry) Words() string {
	e := v.Entry
	switch e.Kind {
	case chain.KindGap:
		var g chain.Gap
		if err := chain.DecodeBody(e.Body, &g); err != nil {
			return err.Error()
		}
		return Gap(e.Seq, &g)
	case chain.KindStatus:
		var s chain.Status
		if err := chain.DecodeBody(e.Body, &s); err != nil {
			return err.Error()
		}
		return fmt.Sprintf("audit enabled %d, auditd %d, lost %d, backlog %d of %d %s %s", s.Enabled, s.PID, s.Lost, s.Backlog, s.Limit, s.Alarm, s.Drift)
	case chain.KindStart:
		var b chain.Begin
		if err := chain.DecodeBody(e.Body, &b); err != nil {
			return err.Error()
		}
		return fmt.Sprintf("agent %s begins to read (%s), boot %s %s", b.Agent, b.Source, b.BootID, b.Why)
	case chain.KindEvent:
	}
	if v.Event == nil {
		return "records that cannot be read: " + string(e.Body)
	}
	return v.eventWords()
}

func (v *Entry) eventWords() string {
	var out []string
	add := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	if len(v.Event.Records) > 0 {
		add("%s", v.Event.Records[0].Type)
	}
	if keys := v.Keys(); len(keys) > 0 {
		add("[%s]", strings.Join(keys, ","))
	}
	if exe := v.field("exe"); exe != "" {
		add("%s", exe)
	}
	if argv, ok := v.Event.Argv(); ok {
		var args []string
		for _, a := range argv.Args {
			args = append(args, string(a))
		}
		add("ran: %s", strings.Join(args, " "))
	}
	for _, p := range v.Event.Paths() {
		if len(p.Name) > 0 && string(p.Kind) != "PARENT" {
			add("%s %s", strings.ToLower(string(p.Kind)), p.Name)
		}
	}
	if s, ok := v.Event.Sockaddr(); ok && (s.Addr.IsValid() || len(s.Path) > 0) {
		if s.Addr.IsValid() {
			add("to %s", s.Addr)
		} else {
			add("to %s", s.Path)
		}
	}
	if p, ok := v.Event.Process(); ok {
		add("pid %d uid %d", p.PID, p.UID)
		if p.Failed {
			add("failed (%d)", p.Exit)
		}
	}
	for _, r := range v.Event.Records {
		if c := r.Claim(); len(c) > 0 {
			add("claims: %s", c)
		}
	}
	return strings.Join(out, " ")
}

// where says where an event comes from.
func (v *Entry) where() string {
	c := &v.Entry.Context
	var out []string
	if c.Pod != "" {
		out = append(out, "pod "+c.Namespace+"/"+c.Pod+" ("+c.Container+" "+c.ImageDigest+")")
	} else if c.Unit != "" {
		out = append(out, "unit "+c.Unit)
	}
	if c.User != "" {
		out = append(out, "login "+c.User)
	} else if l := v.Login(); l != "" {
		out = append(out, "login "+l)
	}
	if c.Partial {
		out = append(out, "partial")
	}
	return strings.Join(out, ", ")
}

// Gap says in one line what is missing.
func Gap(seq uint64, g *chain.Gap) string {
	what := "an unknown number of events"
	if g.Events > 0 {
		what = fmt.Sprintf("%d events", g.Events)
		if g.Records {
			what = fmt.Sprintf("%d records", g.Events)
		}
		if g.AtLeast {
			what = "at least " + what
		}
	}
	s := fmt.Sprintf("entry %d: %s are missing (%s)", seq, what, g.Why)
	if g.First != "" {
		s += ", from " + g.First + " to " + g.Last
	}
	if g.From > 0 {
		s += ", noticed " + time.UnixMilli(g.From).UTC().Format(time.RFC3339)
	}
	if g.Detail != "" {
		s += ": " + g.Detail
	}
	return Clean(s)
}

// Text is the form for people: one line.
func Text(v *Entry) string {
	s := v.Entry.Time.Format("2006-01-02T15:04:05.000Z") + " " + v.Words()
	if w := v.where(); w != "" {
		s += " (" + w + ")"
	}
	return strings.ReplaceAll(Clean(s), "\n", " ")
}

// Raw are the records as the kernel wrote them; other entries in words.
func Raw(v *Entry) string {
	if v.Entry.Kind != chain.KindEvent {
		return Text(v)
	}
	return Clean(strings.TrimRight(string(v.Entry.Body), "\n"))
}

// line is an entry as JSON.
type line struct {
	Node    string         `json:"node"`
	Seq     uint64         `json:"seq"`
	Time    time.Time      `json:"time"`
	Kind    string         `json:"kind"`
	ID      string         `json:"id,omitempty"`
	Types   []string       `json:"types,omitempty"`
	Keys    []string       `json:"keys,omitempty"`
	Exe     string         `json:"exe,omitempty"`
	Argv    []string       `json:"argv,omitempty"`
	Paths   []string       `json:"paths,omitempty"`
	PID     *uint32        `json:"pid,omitempty"`
	UID     *uint32        `json:"uid,omitempty"`
	AUID    *uint32        `json:"auid,omitempty"`
	Success *bool          `json:"success,omitempty"`
	Context *chain.Context `json:"context,omitempty"`
	Message string         `json:"message"`
	Raw     string         `json:"raw,omitempty"`
}

// JSON is one line of JSON.
func JSON(v *Entry) string {
	e := v.Entry
	l := line{Node: v.Node, Seq: e.Seq, Time: e.Time, Kind: e.Kind.String(), Message: v.Words()}
	if e.Context != (chain.Context{}) {
		l.Context = &e.Context
	}
	if v.Event != nil {
		l.Raw = string(e.Body)
		v.fill(&l)
	}
	b, err := json.Marshal(&l)
	if err != nil {
		return fmt.Sprintf("{%q:%q}", "error", err.Error())
	}
	return string(b)
}

func (v *Entry) fill(l *line) {
	l.ID, l.Keys, l.Exe = v.Event.ID.String(), v.Keys(), v.field("exe")
	for _, r := range v.Event.Records {
		l.Types = append(l.Types, r.Type.String())
	}
	if argv, ok := v.Event.Argv(); ok {
		for _, a := range argv.Args {
			l.Argv = append(l.Argv, string(a))
		}
	}
	for _, p := range v.Event.Paths() {
		l.Paths = append(l.Paths, string(p.Name))
	}
	if p, ok := v.Event.Process(); ok {
		l.PID, l.UID, l.AUID = &p.PID, &p.UID, &p.AUID
		if p.Success || p.Failed {
			l.Success = &p.Success
		}
	}
}

// Priorities of RFC 5424: facility 13 (log audit), severity 6 (informational) or 4 (warning).
const (
	syslogInfo    = 13*8 + 6
	syslogWarning = 13*8 + 4
)

// Syslog is one line of RFC 5424.
func Syslog(v *Entry) string {
	e := v.Entry
	pri := syslogInfo
	if e.Kind == chain.KindGap {
		pri = syslogWarning
	}
	quote := strings.NewReplacer(`\`, `\\`, `"`, `\"`, `]`, `\]`, "\n", " ")
	data := fmt.Sprintf(`[touchstone@%d seq="%d"`, 32473, e.Seq) // the number of examples (RFC 5612)
	for _, p := range [][2]string{{"id", v.ID}, {"pod", e.Context.Pod}, {"namespace", e.Context.Namespace}, {"container", e.Context.Container}, {"image", e.Context.ImageDigest},
		{"unit", e.Context.Unit}, {"user", e.Context.User}, {"keys", strings.Join(v.Keys(), ",")}} {
		if p[1] != "" {
			data += fmt.Sprintf(` %s="%s"`, p[0], quote.Replace(Clean(p[1])))
		}
	}
	return fmt.Sprintf("<%d>1 %s %s touchstone - %s %s] \ufeff%s", pri, e.Time.Format("2006-01-02T15:04:05.000000Z"), Clean(v.Node), e.Kind, data, strings.ReplaceAll(Clean(v.Words()), "\n", " "))
}
