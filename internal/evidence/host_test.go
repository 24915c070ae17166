package evidence

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// host builds the files of a worker below a folder.
func host(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, content := range files {
		p := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestReadHost(t *testing.T) {
	msr := strings.Repeat("\x00", msrBootGuard) + "\x01\x02\x03\x04\x05\x06\x07\x08" + "more"
	root := host(t, map[string]string{
		eventLogPath: "event log", imaPath: "ima list",
		"sys/kernel/security/lockdown": "none [integrity] confidentiality\n", "proc/sys/kernel/tainted": "0\n",
		"proc/cmdline": "ro quiet\n", "proc/modules": "", "proc/version": "Linux version 6.1\n",
		"sys/class/mei/mei0/fw_status": "94000245\n09F10506\n",
		msrPath:                        msr,
		efivarsPath + "/SecureBoot-" + globalGUID: "\x06\x00\x00\x00\x01", efivarsPath + "/Boot0000-" + globalGUID: "secret",
		efivarsPath + "/MokListXRT2-" + shimGUID: "more", efivarsPath + "/MokNew-" + shimGUID: "not mirrored",
		efivarsPath + "/MokListRT-" + shimGUID: "mok", efivarsPath + "/SbatLevelRT-" + shimGUID: "sbat",
	})
	h, err := ReadHost(root)
	if err != nil {
		t.Fatalf("ReadHost: %v", err)
	}
	if string(h.EventLog) != "event log" || string(h.IMA) != "ima list" {
		t.Errorf("ReadHost: got log %q, list %q", h.EventLog, h.IMA)
	}
	for fact, want := range map[string]string{
		FactLockdown: "none [integrity] confidentiality\n", FactTainted: "0\n", FactCommandLine: "ro quiet\n", FactModules: "",
		FactVersion: "Linux version 6.1\n", FactMEIStatus: "94000245\n09F10506\n", FactMSRBootGrd: "\x01\x02\x03\x04\x05\x06\x07\x08",
		FactEFIPrefix + "SecureBoot-" + globalGUID: "\x06\x00\x00\x00\x01", FactEFIPrefix + "MokListRT-" + shimGUID: "mok",
		FactEFIPrefix + "SbatLevelRT-" + shimGUID: "sbat", FactEFIPrefix + "MokListXRT2-" + shimGUID: "more",
	} {
		if got, ok := h.Facts[fact]; !ok || string(got) != want {
			t.Errorf("ReadHost: fact %s: got %q, %v, want %q", fact, got, ok, want)
		}
	}
	if got := len(h.Facts); got != 11 {
		t.Errorf("ReadHost: got %d facts, want 11", got)
	}
	absent := map[string]bool{}
	for _, a := range h.Absent {
		absent[a.Name] = a.Reason != "" && strings.HasPrefix(a.Path, "/")
	}
	for _, name := range []string{FactSigEnforce, FactMachine, FactEFIPrefix + "dbx-" + securityGUID} {
		if !absent[name] {
			t.Errorf("ReadHost: absence of %s is not told with path and reason: %+v", name, h.Absent)
		}
	}
}

// A host that has nothing is no error; every absence is told.
func TestReadEmptyHost(t *testing.T) {
	h, err := ReadHost(t.TempDir())
	if err != nil || len(h.Facts) != 0 || h.EventLog != nil || h.IMA != nil {
		t.Errorf("ReadHost(empty): got %+v, %v", h, err)
	}
	if want := 2 + len(factPaths) + 5; len(h.Absent) != want {
		t.Errorf("ReadHost(empty): got %d absent, want %d: %+v", len(h.Absent), want, h.Absent)
	}
	if b, err := ReadEventLog(t.TempDir()); b != nil || err != nil {
		t.Errorf("ReadEventLog(empty): got %q, %v", b, err)
	}
	if _, err := ReadIMA(t.TempDir(), 5); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("ReadIMA(empty): got %v, want ErrNotExist", err)
	}
	root := host(t, map[string]string{"proc/cmdline": strings.Repeat("x", MaxFact+1)})
	if _, _, err := ReadHostFacts(root); !errors.Is(err, ErrLimit) {
		t.Errorf("ReadHostFacts(large): got %v, want ErrLimit", err)
	}
}

// plain hides that a reader can seek.
type plain struct{ io.Reader }

// sequence is like the kernel's file: it can seek anywhere, beyond its end too.
type sequence struct{ *bytes.Reader }

func TestReadFrom(t *testing.T) {
	const list = "0123456789"
	for _, test := range []struct {
		offset uint64
		want   string
		err    error
	}{
		{0, list, nil}, {1, "123456789", nil}, {9, "9", nil}, {10, "", nil}, {11, "", ErrOffset}, {1 << 40, "", ErrOffset},
	} {
		for name, r := range map[string]io.Reader{"seek": sequence{bytes.NewReader([]byte(list))}, "pipe": plain{strings.NewReader(list)}} {
			got, err := readFrom(r, test.offset)
			if string(got) != test.want || !errors.Is(err, test.err) {
				t.Errorf("readFrom(%s, %d): got %q, %v, want %q, %v", name, test.offset, got, err, test.want, test.err)
			}
		}
	}
	root := host(t, map[string]string{imaPath: list})
	if got, err := ReadIMA(root, 4); err != nil || string(got) != "456789" {
		t.Errorf("ReadIMA(4): got %q, %v", got, err)
	}
	if _, err := ReadIMA(root, 11); !errors.Is(err, ErrOffset) {
		t.Errorf("ReadIMA(11): got %v, want ErrOffset", err)
	}
}

// TestReadMachine: the UUID comes from the file that a kubelet reads, the first that is there, and the boot by its own.
func TestReadMachine(t *testing.T) {
	files := map[string]string{}
	for _, path := range []string{"etc/machine-id", "proc/device-tree/vm,uuid", "sys/class/dmi/id/product_uuid"} {
		files[path] = path
		files["proc/sys/kernel/random/boot_id"] = "boot"
		h, err := ReadHost(host(t, files))
		if err != nil || string(h.Facts[FactMachine]) != path || string(h.Facts[FactBootID]) != "boot" {
			t.Errorf("ReadHost(%d files): got %q and %q, %v, want %q and boot", len(files), h.Facts[FactMachine], h.Facts[FactBootID], err, path)
		}
	}
}
