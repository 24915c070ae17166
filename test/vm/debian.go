package vm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// debianPackages make an initramfs that opens encrypted disks by clevis.
var debianPackages = []string{"initramfs-tools", "busybox", "cryptsetup-initramfs", "clevis-initramfs", "zstd"}

// debianModules are what such an initramfs needs in a machine of ours.
var debianModules = []string{"virtio_pci", "virtio_blk", "virtio_net", "dm_mod", "dm_crypt", "aesni_intel", "xts", "algif_skcipher", "ext4"}

// diskTools are the Debian packages whose programs make an encrypted disk on the host.
var diskTools = []string{"debootstrap", "cryptsetup-bin", "clevis-luks", "e2fsprogs", "curl"}

// debianRoot returns a folder with a small Debian system that has the kernel's modules. It takes minutes to make, and is kept.
func (l *Lab) debianRoot(ctx context.Context, k *Kernel) (string, error) {
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
	key := digest([]byte("debian 1"), []byte(suite), []byte(strings.Join(debianPackages, " ")), []byte(k.Package))
	dir, err := l.cached(ctx, "debian", key, func(ctx context.Context, dir string) error {
		root := filepath.Join(dir, "root")
		l.log("making a Debian system: this takes minutes")
		if err := l.run(ctx, dir, "debootstrap", "--variant=minbase", "--include="+strings.Join(debianPackages, ","), suite, root); err != nil {
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
func (l *Lab) debianInitrd(ctx context.Context, root string, k *Kernel) ([]byte, error) {
	for name, text := range map[string]string{
		"etc/initramfs-tools/conf.d/vm": "MODULES=list\n",
		"etc/initramfs-tools/modules":   strings.Join(debianModules, "\n") + "\n",
		"etc/crypttab":                  "root /dev/disk/by-id/virtio-root none luks,initramfs\n",
		"etc/fstab":                     "/dev/mapper/root / ext4 defaults 0 1\n",
	} {
		if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o644); err != nil {
			return nil, err
		}
	}
	// It looks for the disks of this host in /proc, which the folder has not, and says so.
	if err := l.run(ctx, "", "chroot", root, "mkinitramfs", "-o", "/tmp/initrd.img", k.Release); err != nil {
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
		{"truncate", "-s", "96M", image},
		{"mke2fs", "-q", "-t", "ext4", "-L", "root", "-d", tree, image, "64M"},
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
