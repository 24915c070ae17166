package vm

import (
	"context"
	"debug/pe"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
)

// diskMB is the size of the boot disk; FAT32 with sectors of 512 bytes needs about this much.
const diskMB = 96

// grubFailed is what GRUB says, before it switches the machine off, when there was nothing that it could boot.
const grubFailed = "GRUB: nothing to boot"

// bootDisk builds the disk that a machine boots from: one EFI system partition.
func (l *Lab) bootDisk(ctx context.Context, o *Options) (string, error) {
	k, err := l.Kernel(o.Kernel)
	if err != nil {
		return "", err
	}
	files, err := l.initrdFiles(k, o)
	if err != nil {
		return "", fmt.Errorf("initrd: %w", err)
	}
	initrd := o.Initrd
	if initrd == nil {
		initrd = packInitrd(files)
	}
	var esp map[string][]byte
	if o.UKI {
		esp, err = l.ukiFiles(ctx, k, initrd, o)
	} else {
		esp, err = l.grubFiles(ctx, k, initrd, o)
	}
	if err != nil {
		return "", err
	}
	parts := [][]byte{[]byte("disk 1")}
	for _, name := range slices.Sorted(maps.Keys(esp)) {
		parts = append(parts, []byte(name), esp[name])
	}
	dir, err := l.cached(ctx, "disks", digest(parts...), func(ctx context.Context, dir string) error {
		return l.makeDisk(ctx, filepath.Join(dir, "disk.img"), esp)
	})
	return filepath.Join(dir, "disk.img"), err
}

// grubFiles returns the partition's files for a boot by shim and GRUB, as Debian installs them for removable media.
func (l *Lab) grubFiles(ctx context.Context, k *Kernel, initrd []byte, o *Options) (map[string][]byte, error) {
	kernel := k.Image
	if o.KernelSigner != nil {
		var err error
		if kernel, err = l.sign(ctx, kernel, o.KernelSigner); err != nil {
			return nil, err
		}
	}
	esp := map[string][]byte{
		"initrd.img": initrd,
		"EFI/debian/grub.cfg": fmt.Appendf(nil,
			"set timeout=0\necho \"GRUB: loading\"\nlinux /vmlinuz %s\ninitrd /initrd.img\nboot\necho \"%s\"\nhalt\n", o.CommandLine, grubFailed),
	}
	for name, file := range map[string]string{
		"EFI/BOOT/BOOTX64.EFI": filepath.Join(l.packages["shim-signed"].Root, "usr/lib/shim/shimx64.efi.signed"),
		"EFI/BOOT/grubx64.efi": filepath.Join(l.packages["grub-efi-amd64-signed"].Root, "usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed"),
		"EFI/BOOT/mmx64.efi":   filepath.Join(l.packages["shim-helpers-amd64-signed"].Root, "usr/lib/shim/mmx64.efi.signed"),
		"vmlinuz":              kernel,
	} {
		b, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		esp[name] = b
	}
	return esp, nil
}

// ukiFiles returns the partition's files for a boot without boot loader: a unified kernel image, made of systemd's stub.
func (l *Lab) ukiFiles(ctx context.Context, k *Kernel, initrd []byte, o *Options) (map[string][]byte, error) {
	stub := filepath.Join(l.packages["systemd-boot-efi"].Root, "usr/lib/systemd/boot/efi/linuxx64.efi.stub")
	end, err := imageEnd(stub)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "vm-uki-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	kernel, err := os.ReadFile(k.Image)
	if err != nil {
		return nil, err
	}
	out := filepath.Join(dir, "uki.efi")
	var args []string
	for _, s := range []struct {
		name string
		data []byte
	}{
		{"osrel", []byte("ID=debian\nNAME=Touchstone lab\n")},
		{"cmdline", []byte(o.CommandLine)},
		{"uname", []byte(k.Release)},
		{"initrd", initrd},
		{"linux", kernel},
	} {
		f := filepath.Join(dir, s.name)
		if err := os.WriteFile(f, s.data, 0o644); err != nil {
			return nil, err
		}
		args = append(args, "--add-section", "."+s.name+"="+f, "--change-section-vma", fmt.Sprintf(".%s=%#x", s.name, end))
		end = pageUp(end + uint64(len(s.data)))
	}
	if err := l.run(ctx, dir, "objcopy", append(args, stub, out)...); err != nil {
		return nil, err
	}
	if o.KernelSigner != nil {
		if out, err = l.sign(ctx, out, o.KernelSigner); err != nil {
			return nil, err
		}
	}
	b, err := os.ReadFile(out)
	return map[string][]byte{"EFI/BOOT/BOOTX64.EFI": b}, err
}

// imageEnd returns the first free page after the sections of a PE image, as an absolute address.
func imageEnd(path string) (uint64, error) {
	f, err := pe.Open(path)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", path, err)
	}
	defer f.Close()
	h, ok := f.OptionalHeader.(*pe.OptionalHeader64)
	if !ok {
		return 0, fmt.Errorf("%s is no 64-bit image", path)
	}
	var end uint64
	for _, s := range f.Sections {
		end = max(end, h.ImageBase+uint64(s.VirtualAddress)+uint64(max(s.VirtualSize, s.Size)))
	}
	return pageUp(end), nil
}

func pageUp(n uint64) uint64 { return (n + 0xFFF) &^ 0xFFF }

// makeDisk writes a GPT disk with one partition. Its identifiers are fixed, because the firmware measures the GPT.
func (l *Lab) makeDisk(ctx context.Context, image string, esp map[string][]byte) error {
	if err := os.WriteFile(image, nil, 0o644); err != nil {
		return err
	}
	if err := os.Truncate(image, diskMB<<20); err != nil {
		return err
	}
	tree, err := os.MkdirTemp("", "vm-esp-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tree)
	for name, data := range esp {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(tree, name)), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(tree, name), data, 0o644); err != nil {
			return err
		}
	}
	tops, err := filepath.Glob(filepath.Join(tree, "*"))
	if err != nil {
		return err
	}
	const partition = "1M" // where the partition starts
	kb := strconv.Itoa((diskMB - 2) << 10)
	for _, c := range [][]string{
		{"sgdisk", "-o", "-U", "11111111-2222-3333-4444-555555555555", "-n", "1:2048:0", "-t", "1:ef00",
			"-u", "1:aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee", "-c", "1:ESP", image},
		{"mkfs.vfat", "-F", "32", "-s", "1", "-n", "ESP", "-i", "12345678", "--offset", "2048", image, kb},
		append([]string{"mcopy", "-s", "-i", image + "@@" + partition}, append(tops, "::")...),
	} {
		if err := l.run(ctx, tree, c[0], c[1:]...); err != nil {
			return err
		}
	}
	return nil
}
