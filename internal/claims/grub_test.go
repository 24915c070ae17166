package claims

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"touchstone.dev/touchstone/internal/eventlog"
	"touchstone.dev/touchstone/internal/eventlog/eventlogtest"
	"touchstone.dev/touchstone/internal/tpm"
)

// grub writes a log of GRUB: a line is a command as the log shows it ("grub_cmd: linux /k"), or a file ("file: /k").
func grub(t *testing.T, lines ...string) *Boot {
	t.Helper()
	b := eventlogtest.New(tpm.AlgSHA256)
	for _, l := range lines {
		if name, ok := strings.CutPrefix(l, "file: "); ok {
			b.AddOver(9, eventlog.IPLType, []byte(name+"\x00"), []byte("content of "+name))
			continue
		}
		_, text, _ := strings.Cut(l, ": ")
		b.AddOver(8, eventlog.IPLType, []byte(l+"\x00"), []byte(text))
	}
	boot, err := ReadBoot(b.Bytes(), tpm.AlgSHA256)
	if err != nil {
		t.Fatal(err)
	}
	return boot
}

// TestGRUBLoad lines up commands and files.
func TestGRUBLoad(t *testing.T) {
	linux := []string{"grub_cmd: linux /k a b", "file: /k", "kernel_cmdline: /k a b"}
	for _, tt := range []struct {
		name    string
		log     []string
		initrds []string
		problem string
	}{
		{"kernel alone", linux, nil, ""},
		{"kernel and initrd", append(linux[:3:3], "grub_cmd: initrd /i", "file: /i"), []string{"/i"}, ""},
		{"two initrds", append(linux[:3:3], "grub_cmd: initrd /i (hd0)/j", "file: /i", "file: (hd0)/j"), []string{"/i", "(hd0)/j"}, ""},
		{"file in an archive that GRUB makes", append(linux[:3:3], "grub_cmd: initrd newc:etc/x:/i", "file: /i"), []string{"/i"}, ""},
		{"device in the log only", append(linux[:3:3], "grub_cmd: initrd /i", "file: (hd0,gpt1)/i", "grub_cmd: boot"), []string{"(hd0,gpt1)/i"}, ""},
		{"files before", append([]string{"file: /grub.cfg", "file: /font"}, linux...), nil, ""},
		{"harmless commands", append(linux[:3:3], "grub_cmd: echo x", "grub_cmd: set timeout=0", "grub_cmd: set root=hd0"), nil, ""},
		{"set that reads a catalogue", append(linux[:3:3], "grub_cmd: set lang=k", "file: /a/k.mo"), nil, "GRUB ran set lang=k"},
		{"unset that reads lists", append(linux[:3:3], "grub_cmd: unset prefix"), nil, "GRUB ran unset prefix"},
		{"assignment", append(linux[:3:3], "grub_cmd: lang=k"), nil, "GRUB ran lang=k"},
		{"command that reads", append(linux[:3:3], "grub_cmd: cat /i", "file: /i"), nil, "GRUB ran cat"},
		{"fewer files than commands", []string{"grub_cmd: linux /k"}, nil, "more files"},
		{"other name", []string{"grub_cmd: linux /k", "file: /l"}, nil, "/l where"},
		{"initrd before a linux that fails", append(linux[:3:3], "grub_cmd: initrd /i", "file: /i", "grub_cmd: linux /missing"), nil, "before its last"},
	} {
		l := grub(t, tt.log...).GRUBLoad()
		switch {
		case l == nil:
			t.Errorf("%s: got no load", tt.name)
		case tt.problem != "" && !strings.Contains(l.Problem, tt.problem):
			t.Errorf("%s: got problem %q, want %q", tt.name, l.Problem, tt.problem)
		case tt.problem == "" && (l.Problem != "" || !cmp.Equal(names(l.Initrds), tt.initrds) || !strings.HasSuffix(l.Kernel.Name, "/k")):
			t.Errorf("%s: got %+v, want initrds %v", tt.name, l, tt.initrds)
		}
	}
	if l := grub(t, "grub_cmd: set x=1").GRUBLoad(); l != nil {
		t.Errorf("no kernel: got %+v", l)
	}
}

// TestCommandLineIsOfItsCommand: a command that was renamed to a command line is not of the command before it. Without this, commands that read files
// could stand in the log as command lines, and another initrd behind them.
func TestCommandLineIsOfItsCommand(t *testing.T) {
	for name, tt := range map[string]struct {
		log  []string
		want int // problems
	}{
		"as GRUB does":       {[]string{"grub_cmd: linux /k a b", "kernel_cmdline: /k a b"}, 0},
		"quoted by GRUB":     {[]string{"grub_cmd: linux /k x=a b", `kernel_cmdline: /k "x=a b"`}, 0},
		"older GRUB's names": {[]string{"grub_cmd linux /k a", "grub_kernel_cmdline /k a"}, 0},
		"renamed initrd":     {[]string{"grub_cmd: linux /k a b", "kernel_cmdline: /k a b", "kernel_cmdline: initrd /i a b"}, 1},
		"renamed cat":        {[]string{"grub_cmd: linux /k a b", "kernel_cmdline: cat /i"}, 1},
		"nothing before":     {[]string{"kernel_cmdline: /k a"}, 1},
	} {
		b := eventlogtest.New(tpm.AlgSHA256)
		for _, l := range tt.log {
			text := l
			for _, p := range []string{"grub_cmd: ", "kernel_cmdline: ", "grub_cmd ", "grub_kernel_cmdline "} {
				if rest, ok := strings.CutPrefix(l, p); ok {
					text = rest
					break
				}
			}
			b.AddOver(8, eventlog.IPLType, []byte(l+"\x00"), []byte(text))
		}
		boot, err := ReadBoot(b.Bytes(), tpm.AlgSHA256)
		if err != nil {
			t.Fatal(err)
		}
		if len(boot.Problems) != tt.want {
			t.Errorf("%s: got problems %+v, want %d", name, boot.Problems, tt.want)
		}
	}
}
