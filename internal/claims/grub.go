package claims

import (
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
		// GRUB hands over the arguments of the command that it has just run. Any other text may be a command that was renamed to hide what it read.
		if n := len(b.Commands); n == 0 || plain(dropFirst(b.Commands[n-1].Text)) != plain(t.Text) {
			b.problem(e, "kernel command line that is not of the command before it: %s", short(t.Text))
		}
		b.CommandLines = append(b.CommandLines, Text{Event: e, Text: dropFirst(t.Text)}) // the kernel's path
	case eventlog.KindSystemd:
		if len(b.Commands) > 0 {
			b.problem(e, "command line of systemd-boot after commands of GRUB: %s", short(t.Text))
		}
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
var readNoFile = []string{"boot", "echo", "export", "true", "false", "sleep", "clear", "return", "}", "{", "fi", "then", "else", "if", "setparams"}

// harmless are variables whose setting makes GRUB read nothing. Setting others does: lang and locale_dir read catalogues, prefix reads lists of modules.
var harmless = []string{"timeout", "default", "fallback", "gfxpayload", "root"}

func readsNoFile(cmd string) bool {
	v := verb(cmd)
	if v == "set" || v == "unset" {
		name, _, _ := strings.Cut(arg(cmd), "=")
		return slices.Contains(harmless, name)
	}
	return slices.Contains(readNoFile, v)
}

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
		case !readsNoFile(c.Text):
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

// plain leaves out what GRUB adds to quote an argument when it hands over a command line.
func plain(s string) string {
	return strings.NewReplacer(`"`, "", "'", "", `\`, "").Replace(strings.TrimSpace(s))
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
