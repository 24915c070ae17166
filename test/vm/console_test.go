package vm

import (
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestConsole(t *testing.T) {
	for _, c := range []struct {
		name   string
		writes []string
		want   []string
		fatal  bool
	}{
		{"a good boot", []string{"\x1b[2J\x1b[01;01HBdsDxe: starting Boot0001\r\n", "init: 3.1 up\n"}, nil, false},
		{
			"GRUB refuses the kernel", []string{"error: bad shim signature.\r\nerror: you need to load the ker", "nel first.\r\n\r\nPress any ", "key to continue..."},
			[]string{"error: bad shim signature.", "Press any key to continue..."}, true,
		},
		{
			"GRUB gives up", []string{"error: bad shim signature.\nGRUB: nothing to ", "boot\n"},
			[]string{"error: bad shim signature.", "GRUB: nothing to boot"}, true,
		},
		{
			"firmware refuses shim", []string{"BdsDxe: failed to load Boot0001: Access Denied\r\n", "BdsDxe: No bootable option or device was found.\r\n"},
			[]string{"BdsDxe: failed to load Boot0001: Access Denied", "BdsDxe: No bootable option or device was found."}, true,
		},
		{"a refusal with a way out", []string{"error: bad shim signature.\nrefused, falling back\n"}, []string{"error: bad shim signature."}, false},
	} {
		dir := t.TempDir()
		f, err := os.Create(filepath.Join(dir, "log"))
		if err != nil {
			t.Fatal(err)
		}
		l, err := net.Listen("unix", filepath.Join(dir, "s"))
		if err != nil {
			t.Fatal(err)
		}
		con := newConsole(f, io.Discard)
		go con.serve(l)
		conn, err := net.Dial("unix", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		for _, w := range c.writes {
			if _, err := conn.Write([]byte(w)); err != nil {
				t.Fatal(err)
			}
		}
		conn.Close()
		<-con.done
		l.Close()
		if diff := cmp.Diff(c.want, con.refusals()); diff != "" {
			t.Errorf("%s: refusals differ (-want +got):\n%s", c.name, diff)
		}
		fatal := false
		select {
		case <-con.refused:
			fatal = true
		default:
		}
		if fatal != c.fatal {
			t.Errorf("%s: got fatal %v, want %v", c.name, fatal, c.fatal)
		}
	}
}
