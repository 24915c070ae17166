package image

import (
	"archive/tar"
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// FuzzLayer: whatever a layer is, it ends in an error or in a tree whose links lead nowhere else, and nothing is left when it was closed.
func FuzzLayer(f *testing.F) {
	f.Add(tarOf(f, file{name: "a/b", body: "x"}, file{name: "l", link: "/a", kind: tar.TypeSymlink}, file{name: "l/../.wh.a"}))
	f.Add(tarOf(f, file{name: "w", link: "a/../../x", kind: tar.TypeSymlink}, file{name: "w/y"}, file{name: "h", link: "w", kind: tar.TypeLink}))
	f.Fuzz(func(t *testing.T, b []byte) {
		temp, outside := t.TempDir(), t.TempDir()
		h, err := newHome(temp)
		if err != nil {
			t.Fatal(err)
		}
		tr, err := openTree(h.root())
		if err != nil {
			t.Fatal(err)
		}
		l := newLayers(tr, Limits{Bytes: 1 << 16, Files: 200}, &Facts{})
		for range 2 {
			if l.apply(context.Background(), bytes.NewReader(b)) != nil {
				break
			}
		}
		if err := tr.settle(l.links); err == nil {
			inside(t, h.root())
		}
		tr.close()
		if err := h.remove(); err != nil {
			t.Fatal(err)
		}
		for _, dir := range []string{temp, outside} {
			if left, _ := os.ReadDir(dir); len(left) > 0 {
				t.Fatalf("%v is left", left)
			}
		}
	})
}

// inside fails when a link of a tree leads out of it.
func inside(t *testing.T, root string) {
	t.Helper()
	_ = filepath.WalkDir(root, func(p string, d os.DirEntry, err error) error {
		if err != nil || d.Type()&os.ModeSymlink == 0 {
			return nil //nolint:nilerr // a fuzzed tree may be unreadable
		}
		if to, err := filepath.EvalSymlinks(p); err == nil {
			if rel, err := filepath.Rel(root, to); err != nil || len(rel) > 1 && rel[:2] == ".." {
				t.Fatalf("%s leads to %s", p, to)
			}
		}
		return nil
	})
}

// TestKilled: what a process that was killed left is gone after the next Sweep; what a living one uses stays.
func TestKilled(t *testing.T) {
	if temp := os.Getenv("TOUCHSTONE_TEST_UNPACK"); temp != "" {
		img, err := FromManifest(imageOf(t, plain(tarOf(t, file{name: "a/b"}))))
		if err == nil {
			_, err = Unpack(context.Background(), img, Options{Temp: temp})
		}
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute) // until it is killed
	}
	temp := t.TempDir()
	cmd := exec.Command(os.Args[0], "-test.run=^TestKilled$") //nolint:gosec // this test
	cmd.Env = append(os.Environ(), "TOUCHSTONE_TEST_UNPACK="+temp)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if found, _ := filepath.Glob(filepath.Join(temp, "*", "root", "a", "b")); len(found) == 1 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the other process unpacks nothing")
		}
	}
	time.Sleep(1100 * time.Millisecond) // a folder of this second is being made
	if n, err := Sweep(temp); n != 0 || err != nil {
		t.Errorf("Sweep took %d of a living process, %v", n, err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if n, err := Sweep(temp); n != 1 || err != nil {
		t.Errorf("Sweep took %d of a killed process, want 1; %v", n, err)
	}
	if left, _ := os.ReadDir(temp); len(left) > 0 {
		t.Errorf("%v is left", left)
	}
}
