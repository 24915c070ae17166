package demo

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"

	"touchstone.dev/touchstone/internal/eventlog"
	"touchstone.dev/touchstone/internal/ima"
	"touchstone.dev/touchstone/internal/tpm"
	"touchstone.dev/touchstone/test/boots"
)

// boot is one way to boot a worker: what its firmware, boot loaders and kernel measure, and what its kernel says of itself.
type boot struct {
	log   []byte            // firmware log, as the kernel publishes it
	list  []byte            // IMA list when the boot has ended
	files map[string][]byte // other files below the root of the host
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

const efivars = "sys/firmware/efi/efivars"

// captured reads one of the embedded boots: what a real machine wrote while it booted shim, GRUB and Debian's kernel under Secure Boot.
// In cmdline somebody added a word to the kernel command line.
func captured(name string) (*boot, error) {
	b := &boot{files: map[string][]byte{}}
	var errs []error
	read := func(file string) []byte {
		data, err := boots.Files.ReadFile(path.Join("corpus", name, file))
		errs = append(errs, err)
		return data
	}
	b.log, b.list = read("eventlog.bin"), read("ima.bin")
	for from, to := range factFiles {
		b.files[to] = read(from)
	}
	vars, err := boots.Files.ReadDir(path.Join("corpus", name, "efivars"))
	errs = append(errs, err)
	for _, v := range vars {
		b.files[path.Join(efivars, v.Name())] = read(path.Join("efivars", v.Name()))
	}
	return b, errors.Join(errs...)
}

// tampered is the boot of the second act: another kernel command line, and Secure Boot switched off in the firmware setup. No machine
// was booted so (Debian's GRUB leaves no log at all then), so the captured log with the other command line is changed: the event of the
// SecureBoot variable says 0, its digest follows, and the kernel's boot_aggregate covers the PCRs that result.
func tampered() (*boot, error) {
	b, err := captured("cmdline")
	if err != nil {
		return nil, err
	}
	if b.log, err = secureBootOff(b.log); err != nil {
		return nil, err
	}
	pcrs, err := replay(b.log)
	if err != nil {
		return nil, err
	}
	if b.list, err = withAggregate(b.list, pcrs); err != nil {
		return nil, err
	}
	for name, data := range b.files {
		if strings.HasPrefix(name, efivars+"/SecureBoot-") && len(data) == 5 {
			b.files[name] = append(append([]byte(nil), data[:4]...), 0)
		}
	}
	b.files["sys/kernel/security/lockdown"] = []byte("[none] integrity confidentiality\n")
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
func (b *boot) extensions() ([]extension, error) {
	var out []extension
	l, err := eventlog.Parse(b.log)
	if err != nil {
		return nil, fmt.Errorf("read the firmware log: %w", err)
	}
	for i := range l.Events {
		if e := &l.Events[i]; e.Extends() && e.PCR >= 0 {
			out = append(out, extension{e.PCR, e.Digest(tpm.AlgSHA256)})
		}
	}
	err = ima.Parse(b.list, func(e *ima.Entry) error {
		out = append(out, extension{e.PCR, templateDigest(e.Data)})
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the IMA list: %w", err)
	}
	return out, nil
}

// counts returns the number of events of the firmware log and of entries of the IMA list.
func (b *boot) counts() (events, entries int) {
	if l, err := eventlog.Parse(b.log); err == nil {
		events = len(l.Events)
	}
	return events, entryCount(b.list)
}

func entryCount(list []byte) (n int) {
	l := ima.NewList(list, ima.State{})
	for l.Next() {
		n++
	}
	return n
}

// write lays the files of the boot below root, as the kernel would publish them.
func (b *boot) write(root string) error {
	if err := os.RemoveAll(root); err != nil {
		return fmt.Errorf("clear %s: %w", root, err)
	}
	files := map[string][]byte{logFile: b.log, listFile: b.list, countFile: countText(b.list)}
	for name, data := range b.files {
		files[name] = data
	}
	for name, data := range files {
		to := filepath.Join(root, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
			return fmt.Errorf("write the files of a worker: %w", err)
		}
		if err := os.WriteFile(to, data, 0o600); err != nil {
			return fmt.Errorf("write the files of a worker: %w", err)
		}
	}
	return nil
}

func countText(list []byte) []byte { return []byte(strconv.Itoa(entryCount(list)) + "\n") }

// appendList adds an entry to the list of a running worker.
func appendList(root string, entry []byte) error {
	name := filepath.Join(root, filepath.FromSlash(listFile))
	f, err := os.OpenFile(name, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("append to the IMA list: %w", err)
	}
	_, err = f.Write(entry)
	return errors.Join(err, f.Close())
}

// recount makes the count of a worker's list true: the kernel keeps it so, here it is a file.
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
