package vm

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Places of files in an initrd that come from a package.
const (
	busyboxPath = "/bin/busybox"
	modulesPath = "/modules/"
)

// initrdFiles are /init, busybox, the kernel's modules and the machine's own files.
func (l *Lab) initrdFiles(k *Kernel, o *Options) (map[string]File, error) {
	files, err := k.initrdModules()
	if err != nil {
		return nil, err
	}
	busybox, err := os.ReadFile(filepath.Join(l.packages["busybox-static"].Root, "bin", "busybox"))
	if err != nil {
		return nil, err
	}
	files["/init"] = File{Mode: 0o755, Data: l.init}
	files[busyboxPath] = File{Mode: 0o755, Data: busybox}
	if len(o.IMARules) > 0 {
		files["/etc/ima/rules"] = File{Mode: 0o644, Data: []byte(strings.Join(o.IMARules, "\n") + "\n")}
	}
	maps.Copy(files, o.Files)
	return files, nil
}

// packInitrd packs the files of an initrd, with the folders that /init expects.
func packInitrd(files map[string]File) []byte {
	return cpioArchive(files, "/proc", "/sys", "/tmp", "/run", "/root", "/var/lib")
}

// Checksums lists the initrd and those files in it that come from no package, as sha256sum writes it: with the packages
// of [Lab.Packages], it makes everything known that the machine boots and runs.
func (m *Machine) Checksums() ([]byte, error) {
	k, err := m.lab.Kernel(m.opts.Kernel)
	if err != nil {
		return nil, err
	}
	files, err := m.lab.initrdFiles(k, &m.opts)
	if err != nil {
		return nil, err
	}
	if m.opts.Initrd != nil {
		return fmt.Appendf(nil, "%x  /initrd.img\n", sha256.Sum256(m.opts.Initrd)), nil
	}
	list := fmt.Appendf(nil, "%x  /initrd.img\n", sha256.Sum256(packInitrd(files)))
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if name != busyboxPath && !strings.HasPrefix(name, modulesPath) {
			list = fmt.Appendf(list, "%x  %s\n", sha256.Sum256(files[name].Data), name)
		}
	}
	return list, nil
}
