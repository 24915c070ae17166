package machine

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"strconv"

	"touchstone.dev/touchstone/internal/eventlog"
	"touchstone.dev/touchstone/internal/ima"
	"touchstone.dev/touchstone/internal/tpm"
)

// Boot is one way to boot a machine: what its firmware, boot loaders and kernel measured, and what its kernel said of itself.
type Boot struct {
	Log   []byte            // firmware log, as the kernel publishes it
	List  []byte            // IMA list when the boot has ended
	Files map[string][]byte // other files below the root of the host
}

// Where the kernel publishes what a boot left behind.
const (
	logFile   = "sys/kernel/security/tpm0/binary_bios_measurements"
	listFile  = "sys/kernel/security/ima/binary_runtime_measurements"
	countFile = "sys/kernel/security/ima/runtime_measurements_count"
)

// factFiles maps the names in a captured boot to paths of the host.
var factFiles = map[string]string{
	"lockdown":     "sys/kernel/security/lockdown",
	"tainted":      "proc/sys/kernel/tainted",
	"sig_enforce":  "sys/module/module/parameters/sig_enforce",
	"proc_cmdline": "proc/cmdline",
	"proc_modules": "proc/modules",
	"proc_version": "proc/version",
}

// Files that tell machines, and boots of one machine, apart.
const (
	UUIDFile   = "sys/class/dmi/id/product_uuid"
	BootIDFile = "proc/sys/kernel/random/boot_id"
)

const efivars = "sys/firmware/efi/efivars"

// Read reads a boot from a folder of the golden corpus. With after it is the boot some time later: what the machine did since is in
// the folder's own folder "after".
func Read(fsys fs.FS, dir string, after bool) (*Boot, error) {
	b := &Boot{Files: map[string][]byte{}}
	var errs []error
	read := func(file string) []byte {
		if after {
			if data, err := fs.ReadFile(fsys, path.Join(dir, "after", file)); err == nil {
				return data
			}
		}
		data, err := fs.ReadFile(fsys, path.Join(dir, file))
		errs = append(errs, err)
		return data
	}
	b.Log, b.List = read("eventlog.bin"), read("ima.bin")
	for from, to := range factFiles {
		b.Files[to] = read(from)
	}
	vars, err := fs.ReadDir(fsys, path.Join(dir, "efivars"))
	errs = append(errs, err)
	for _, v := range vars {
		b.Files[path.Join(efivars, v.Name())] = read(path.Join("efivars", v.Name()))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("read the boot %s: %w", dir, err)
	}
	return b, nil
}

// replay computes the PCRs of the sha256 bank that a log leaves.
func replay(log []byte) (*tpm.Bank, error) {
	l, err := eventlog.Parse(log)
	if err != nil {
		return nil, fmt.Errorf("read the firmware log: %w", err)
	}
	bank, err := l.Replay(tpm.AlgSHA256)
	return &bank, err
}

// extension is one TPM2_PCR_Extend.
type extension struct {
	pcr    int
	digest []byte
}

// extensions lists what the boot extends into the sha256 bank, in order: firmware log, then IMA list.
func (b *Boot) extensions() ([]extension, error) {
	var out []extension
	l, err := eventlog.Parse(b.Log)
	if err != nil {
		return nil, fmt.Errorf("read the firmware log: %w", err)
	}
	for i := range l.Events {
		if e := &l.Events[i]; e.Extends() && e.PCR >= 0 {
			out = append(out, extension{e.PCR, e.Digest(tpm.AlgSHA256)})
		}
	}
	err = ima.Parse(b.List, func(e *ima.Entry) error {
		out = append(out, extension{e.PCR, templateDigest(e.Data)})
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the IMA list: %w", err)
	}
	return out, nil
}

// Counts returns the number of events of the firmware log and of entries of the IMA list.
func (b *Boot) Counts() (events, entries int) {
	if l, err := eventlog.Parse(b.Log); err == nil {
		events = len(l.Events)
	}
	return events, entryCount(b.List)
}

func entryCount(list []byte) (n int) {
	l := ima.NewList(list, ima.State{})
	for l.Next() {
		n++
	}
	return n
}

// write lays the files of the boot below root, as the kernel would publish them. Files of another boot that root has go first.
func (b *Boot) write(root string) error {
	for _, kernel := range []string{"sys", "proc"} {
		if err := os.RemoveAll(filepath.Join(root, kernel)); err != nil {
			return fmt.Errorf("clear %s: %w", root, err)
		}
	}
	files := map[string][]byte{logFile: b.Log, listFile: b.List, countFile: countText(b.List)}
	maps.Copy(files, b.Files)
	for name, data := range files {
		if err := writeFile(root, name, data); err != nil {
			return err
		}
	}
	return nil
}

func writeFile(root, name string, data []byte) error {
	to := filepath.Join(root, filepath.FromSlash(name))
	err := os.MkdirAll(filepath.Dir(to), 0o700)
	if err == nil {
		err = os.WriteFile(to, data, 0o600)
	}
	if err != nil {
		return fmt.Errorf("write the files of a machine: %w", err)
	}
	return nil
}

func countText(list []byte) []byte { return []byte(strconv.Itoa(entryCount(list)) + "\n") }

// appendList adds an entry to the list of a running machine.
func appendList(root string, entry []byte) error {
	name := filepath.Join(root, filepath.FromSlash(listFile))
	f, err := os.OpenFile(name, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("append to the IMA list: %w", err)
	}
	_, err = f.Write(entry)
	return errors.Join(err, f.Close())
}

// recount makes the count of a machine's list true: the kernel keeps it so, here it is a file.
func recount(root string) error {
	list, err := fs.ReadFile(os.DirFS(root), listFile)
	if err != nil {
		return fmt.Errorf("read the IMA list: %w", err)
	}
	name := filepath.Join(root, filepath.FromSlash(countFile))
	if err := os.WriteFile(name+".new", countText(list), 0o600); err != nil {
		return fmt.Errorf("write the count of the IMA list: %w", err)
	}
	return os.Rename(name+".new", name)
}
