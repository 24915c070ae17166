package claims

import (
	"bytes"
	"slices"
	"strings"

	"touchstone.dev/touchstone/internal/eventlog"
)

func (b *Boot) readGRUB(e *eventlog.Event) {
	if e.Type == eventlog.EventTag && e.PCR == 9 {
		b.readStubTag(e)
		return
	}
	t, err := e.IPL()
	if err != nil {
		b.problem(e, "event cannot be read: %v", err)
		return
	}
	if e.PCR == 9 {
		if len(b.StubTags) > 0 {
			// The kernel's stub runs after GRUB: a file behind its events may be one that was retyped to hide it from GRUB's files.
			b.problem(e, "GRUB read a file after the kernel's EFI stub had started")
			return
		}
		b.Files = append(b.Files, Named{Event: e, Name: t.Text, Digest: e.Digest(b.Bank)})
		return
	}
	switch t.Kind {
	case eventlog.KindGRUBKernelCmdline:
		b.CommandLines = append(b.CommandLines, Text{Event: e, Text: dropFirst(t.Text)}) // the kernel's path
	case eventlog.KindSystemd:
		b.CommandLines = append(b.CommandLines, Text{Event: e, Text: t.Text})
	default:
		b.Commands = append(b.Commands, Text{Event: e, Text: t.Text})
	}
}

// readStubTag reads what the kernel's EFI stub measured into PCR 9.
func (b *Boot) readStubTag(e *eventlog.Event) {
	t, err := e.TaggedEvent()
	switch {
	case err != nil:
		b.problem(e, "tagged event cannot be read: %v", err)
	case tagNames[t.ID] == "":
		b.problem(e, "tagged event of unknown tag %#x", t.ID)
	default:
		b.StubTags = append(b.StubTags, Named{Event: e, Name: tagNames[t.ID], Digest: e.Digest(b.Bank)})
	}
}

func (b *Boot) readStub(e *eventlog.Event) {
	t, err := e.IPL()
	if err != nil {
		b.problem(e, "event cannot be read: %v", err)
		return
	}
	n := Named{Event: e, Name: t.Text, Digest: e.Digest(b.Bank)}
	if e.PCR != 11 {
		b.StubExtra = append(b.StubExtra, n)
		return
	}
	b.Sections = append(b.Sections, n)
}

// Names of what the kernel's EFI stub measures into PCR 9.
const (
	StubInitrd      = "initrd"
	StubLoadOptions = "load options"
)

var tagNames = map[uint32]string{eventlog.TagInitrd: StubInitrd, eventlog.TagLoadOptions: StubLoadOptions}

// GRUBLoad is what GRUB loaded and started last: proven by the order of its commands in PCR 8 and of its files in PCR 9, not by the
// names in the log.
type GRUBLoad struct {
	Command  Text    // the linux command
	Kernel   Named   // file of the kernel
	Initrds  []Named // files of the initrd command, in order
	Attempts []Text  // linux commands before it: kernels that were refused or replaced
	Problem  string  // why files and commands cannot be brought together; then Kernel and Initrds are empty
}

// readNoFile are GRUB commands that read no file. Any other command after the kernel's could add files to PCR 9, behind which another
// initrd could hide.
var readNoFile = []string{"boot", "echo", "set", "unset", "export", "true", "false", "sleep", "clear", "return", "}", "{", "fi", "then", "else", "if", "setparams"}

// GRUBLoad lines GRUB's commands up with the files that it measured. The last files of PCR 9 are those of the last linux command of PCR 8
// and the initrd commands behind it, because GRUB measures a file when it reads it; the names in the log must agree with that. It
// returns nil when GRUB loaded no kernel.
func (b *Boot) GRUBLoad() *GRUBLoad {
	last, initrdBefore := -1, false
	load := new(GRUBLoad)
	for i, c := range b.Commands {
		if isLinux(verb(c.Text)) {
			if last >= 0 {
				load.Attempts = append(load.Attempts, b.Commands[last])
				initrdBefore = initrdBefore || slices.ContainsFunc(b.Commands[last+1:i], isInitrd)
			}
			last = i
		}
	}
	if last < 0 {
		return nil
	}
	load.Command = b.Commands[last]
	if initrdBefore {
		// A linux command that fails leaves the kernel and initrd before it in place.
		load.Problem = "GRUB loaded an initrd before its last linux command: what was started cannot be told"
		return load
	}
	want := []string{arg(load.Command.Text)}
	for _, c := range b.Commands[last+1:] {
		switch {
		case isInitrd(c):
			want = append(want, initrdArgs(c.Text)...)
		case !slices.Contains(readNoFile, verb(c.Text)):
			load.Problem = "GRUB ran " + short(c.Text) + " after the kernel was loaded: its files cannot be told apart"
			return load
		}
	}
	if len(b.Files) < len(want) {
		load.Problem = "GRUB's commands name more files than the log has for PCR 9"
		return load
	}
	tail := b.Files[len(b.Files)-len(want):]
	for i, f := range tail {
		if !samePath(f.Name, want[i]) {
			load.Problem = "the log names file " + short(f.Name) + " where GRUB's command names " + short(want[i])
			return load
		}
	}
	load.Kernel, load.Initrds = tail[0], tail[1:]
	return load
}

// AllCommandLines returns every text of PCR 8 that may be the kernel's command line, without the path of the kernel: those that GRUB handed
// over and the arguments of its linux commands. The log's word for which is which is covered by no digest, so a rule on
// command lines holds for all of them.
func (b *Boot) AllCommandLines() []Text {
	out := slices.Clone(b.CommandLines)
	for _, c := range b.Commands {
		if isLinux(verb(c.Text)) {
			out = append(out, Text{Event: c.Event, Text: dropFirst(dropFirst(c.Text))})
		}
	}
	return out
}

func dropFirst(s string) string {
	_, rest, _ := strings.Cut(strings.TrimSpace(s), " ")
	return rest
}

func isInitrd(c Text) bool {
	v := verb(c.Text)
	return v == "initrd" || v == "initrdefi" || v == "initrd16"
}

func verb(cmd string) string {
	v, _, _ := strings.Cut(strings.TrimSpace(cmd), " ")
	return v
}

func isLinux(v string) bool { return v == "linux" || v == "linuxefi" || v == "linux16" }

func arg(cmd string) string {
	f := strings.Fields(cmd)
	if len(f) < 2 {
		return ""
	}
	return f[1]
}

// initrdArgs are the files of an initrd command; "newc:NAME:" prefixes a file inside the archive that GRUB makes.
func initrdArgs(cmd string) []string {
	var out []string
	for _, f := range strings.Fields(cmd)[1:] {
		if rest, ok := strings.CutPrefix(f, "newc:"); ok {
			_, f, _ = strings.Cut(rest, ":")
		}
		out = append(out, f)
	}
	return out
}

// samePath compares two names of a file in GRUB, of which one may lack the device.
func samePath(a, b string) bool {
	strip := func(s string) string {
		if strings.HasPrefix(s, "(") {
			if _, rest, ok := strings.Cut(s, ")"); ok {
				return rest
			}
		}
		return s
	}
	return a == b || strip(a) == strip(b)
}

func short(s string) string {
	if len(s) > 80 {
		s = s[:80] + "..."
	}
	return s
}

// Words splits a kernel command line as the kernel does: at blanks outside of double quotes.
func Words(line string) []string {
	var out []string
	var w bytes.Buffer
	quoted := false
	flush := func() {
		if w.Len() > 0 {
			out = append(out, w.String())
			w.Reset()
		}
	}
	for i := range len(line) {
		switch c := line[i]; {
		case c == '"':
			quoted = !quoted
		case !quoted && (c == ' ' || c == '\t' || c == '\n' || c == '\v' || c == '\f' || c == '\r' || c == 0):
			flush()
		default:
			w.WriteByte(c)
		}
	}
	flush()
	return out
}
