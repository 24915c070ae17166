package agent

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestBackoffIsBounded(t *testing.T) {
	b := backoff{initial: 100 * time.Millisecond, max: time.Second}
	for i, millis := range []int{100, 200, 400, 800, 1000, 1000, 1000} {
		bound := time.Duration(millis) * time.Millisecond
		if got := b.next(); got <= 0 || got > bound+time.Millisecond {
			t.Errorf("wait %d: got %v, want at most %v", i, got, bound)
		}
	}
	b.reset()
	if got := b.next(); got > 101*time.Millisecond {
		t.Errorf("wait after reset: got %v, want at most the initial bound", got)
	}
}

func TestReadModules(t *testing.T) {
	path := filepath.Join(t.TempDir(), "modules")
	read := func(content string) uint64 {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		n, err := readModules(path)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	base := read("dm_mod 1 0 - Live 0x0\nloop 2 1 - Live 0x0\n")
	if got := read("dm_mod 1 5 - Live 0x0\nloop 2 0 - Live 0x0\n"); got != base {
		t.Error("use counts changed the hash, want names only")
	}
	if got := read("dm_mod 1 0 - Live 0x0\n"); got == base {
		t.Error("a module went and the hash did not change")
	}
	if got := read("dm_mod 1 0 - Live 0x0\nloop 2 1 - Live 0x0\nevil 1 0 - Live 0x0 (OE)\n"); got == base {
		t.Error("a module came and the hash did not change")
	}
}

func TestReadCount(t *testing.T) {
	path := filepath.Join(t.TempDir(), "count")
	for content, want := range map[string]uint64{"12\n": 12, "0": 0, "18446744073709551615\n": 1<<64 - 1} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := readCount(path); err != nil || got != want {
			t.Errorf("readCount(%q): got %d, %v, want %d", content, got, err, want)
		}
	}
	for _, content := range []string{"", "x", "-1", "1 2"} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := readCount(path); err == nil {
			t.Errorf("readCount(%q): no error, want one", content)
		}
	}
}

// BenchmarkWatch is one look at the count of the IMA list and at 150 modules: the agent does the first four times a second, the second
// once. The files lie on disk here and are cached; the kernel makes them anew for each reader, which costs it some microseconds more.
func BenchmarkWatch(b *testing.B) {
	count, modules := filepath.Join(b.TempDir(), "count"), filepath.Join(b.TempDir(), "modules")
	list := strings.Repeat("nf_conntrack_netlink 57344 0 nfnetlink,nf_conntrack, Live 0xffffffffc0553000\n", 150)
	for name, text := range map[string]string{count: "123456\n", modules: list} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := readCount(count); err != nil {
			b.Fatal(err)
		}
		if _, err := readModules(modules); err != nil {
			b.Fatal(err)
		}
	}
}
