package vm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// initramfs is a tool that makes an initramfs which opens encrypted disks by clevis.
type initramfs struct {
	packages []string          // of Debian
	files    map[string]string // that tell it what to make, below the root folder
	mounts   string            // what it needs to be mounted, for a shell whose $0 is the root folder
	command  string            // for a shell in the root folder, given the kernel's release
	open     string            // words of the command line by which the disk with a LUKS UUID becomes /dev/mapper/root
}

var (
	initramfsTools = &initramfs{
		packages: []string{"initramfs-tools", "busybox", "cryptsetup-initramfs", "clevis-initramfs", "zstd"},
		files: map[string]string{
			"etc/initramfs-tools/conf.d/vm": "MODULES=list\n",
			"etc/initramfs-tools/modules":   strings.Join(debianModules, "\n") + "\n",
			"etc/crypttab":                  "root /dev/disk/by-id/virtio-root none luks,initramfs\n",
			"etc/fstab":                     "/dev/mapper/root / ext4 defaults 0 1\n",
		},
		// It looks for the disks of this host in /proc, which the folder has not, and says so.
		command: "mkinitramfs -o /tmp/initrd.img %s",
	}
	// dracut has systemd in the initramfs, which clevis-dracut asks for.
	dracut = &initramfs{
		packages: []string{"dracut", "dracut-network", "clevis-dracut", "cryptsetup", "systemd", "systemd-sysv", "udev", "zstd", "isc-dhcp-client", "iproute2", "curl", "dmsetup", "kbd", "procps"},
		files: map[string]string{"etc/dracut.conf.d/vm.conf": "hostonly=no\ncompress=zstd\nadd_dracutmodules+=\" network-legacy crypt clevis clevis-pin-tang \"\n" +
			"omit_dracutmodules+=\" ifcfg dbus systemd-networkd plymouth nfs iscsi lvm multipath dmraid mdraid btrfs \"\n" +
			"drivers+=\" " + strings.Join(debianModules, " ") + " \"\n"},
		mounts:  "mount -t proc proc $0/proc && mount --bind /dev $0/dev && ",
		command: "dracut --force --kver %s /tmp/initrd.img",
		open:    "rd.luks.name=%s=root ",
	}
)

// debianModules are what such an initramfs needs in a machine of ours.
var debianModules = []string{"virtio_pci", "virtio_blk", "virtio_net", "dm_mod", "dm_crypt", "aesni_intel", "xts", "algif_skcipher", "ext4"}

// diskTools are the Debian packages whose programs make an encrypted disk on the host.
var diskTools = []string{"debootstrap", "cryptsetup-bin", "clevis-luks", "e2fsprogs", "curl"}

// debianRoot returns a folder with a small Debian system that has the kernel's modules. It takes minutes to make, and is kept.
func (l *Lab) debianRoot(ctx context.Context, k *Kernel, m *initramfs) (string, error) {
	if os.Getuid() != 0 {
		return "", errors.New("a Debian system is made by debootstrap and chroot: run as root")
	}
	if err := l.install(ctx, diskTools); err != nil {
		return "", err
	}
	release, err := os.ReadFile("/etc/os-release")
	if err != nil {
		return "", err
	}
	_, suite, _ := strings.Cut(string(release), "VERSION_CODENAME=")
	suite, _, _ = strings.Cut(suite, "\n")
	key := digest([]byte("debian 1"), []byte(suite), []byte(strings.Join(m.packages, " ")), []byte(k.Package))
	dir, err := l.cached(ctx, "debian", key, func(ctx context.Context, dir string) error {
		root := filepath.Join(dir, "root")
		l.log("making a Debian system: this takes minutes")
		if err := l.run(ctx, dir, "debootstrap", "--variant=minbase", "--include="+strings.Join(m.packages, ","), suite, root); err != nil {
			return err
		}
		if err := os.MkdirAll(filepath.Join(root, "lib", "modules"), 0o755); err != nil {
			return err
		}
		return errors.Join(
			l.run(ctx, dir, "cp", "-a", k.modules, filepath.Join(root, "lib", "modules")+"/"),
			l.run(ctx, dir, "cp", filepath.Join(filepath.Dir(k.Image), "config-"+k.Release), filepath.Join(root, "boot")+"/"))
	})
	return filepath.Join(dir, "root"), err
}

// debianInitrd makes an initrd with Debian's own tools in a system whose root folder is root, for a root file system in the encrypted disk that the
// machine has as [Options.RootDisk].
func (l *Lab) debianInitrd(ctx context.Context, root string, k *Kernel, m *initramfs) ([]byte, error) {
	for name, text := range m.files {
		if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o644); err != nil {
			return nil, err
		}
	}
	if err := l.run(ctx, "", "unshare", "--mount", "sh", "-c", m.mounts+"exec chroot $0 "+fmt.Sprintf(m.command, k.Release), root); err != nil {
		return nil, err
	}
	return os.ReadFile(filepath.Join(root, "tmp", "initrd.img"))
}

// encryptedDisk makes a LUKS disk in dir whose root file system has files, bound by clevis to a Tang server that is url for the machine and whose
// advertisement is in the file adv. No device-mapper is needed for that.
func (l *Lab) encryptedDisk(ctx context.Context, dir string, files map[string]File, passphrase, url, adv string) (string, error) {
	tree, image, pw := filepath.Join(dir, "tree"), filepath.Join(dir, "root.img"), filepath.Join(dir, "passphrase")
	for name, f := range files {
		file := filepath.Join(tree, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return "", err
		}
		if err := os.WriteFile(file, f.Data, os.FileMode(f.Mode)); err != nil {
			return "", err
		}
	}
	for _, d := range []string{"proc", "sys", "dev", "run", "tmp", "etc"} {
		if err := os.MkdirAll(filepath.Join(tree, d), 0o755); err != nil {
			return "", err
		}
	}
	if err := os.WriteFile(pw, []byte(passphrase), 0o600); err != nil {
		return "", err
	}
	for _, c := range [][]string{
		{"truncate", "-s", "128M", image},
		{"mke2fs", "-q", "-t", "ext4", "-L", "root", "-d", tree, image, "96M"},
		{"cryptsetup", "reencrypt", "--encrypt", "--type", "luks2", "--reduce-device-size", "32M", "--sector-size", "512", "--pbkdf", "pbkdf2",
			"--pbkdf-force-iterations", "1000", "--force-offline-reencrypt", "--key-file", pw, "-q", image},
		{"clevis", "luks", "bind", "-f", "-y", "-k", pw, "-d", image, "tang", fmt.Sprintf(`{"url":%q,"adv":%q}`, url, adv)},
	} {
		if err := l.run(ctx, dir, c[0], c[1:]...); err != nil {
			return "", err
		}
	}
	return image, nil
}
