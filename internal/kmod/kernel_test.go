package kmod_test

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"strings"
	"testing"

	"touchstone.dev/touchstone/internal/kmod"
	"touchstone.dev/touchstone/internal/kmod/kmodtest"
)

const vmlinuxSHA256 = "b4772b445f5a389c70b15be9883f28f647e0ead46cc5716f7b877359c15c93e7"

// withSize appends the unpacked size, as the build does.
func withSize(b []byte, size uint32) []byte {
	return binary.LittleEndian.AppendUint32(bytes.Clone(b), size)
}

func TestUnpackKernel(t *testing.T) {
	for _, name := range []string{"vmlinux.xz", "vmlinux.bz2", "vmlinux.zst", "vmlinux.lz4"} {
		payload := withSize(read(t, name), 4000)
		got, err := kmod.UnpackKernel(kmodtest.Kernel(release, payload))
		sum := sha256.Sum256(got)
		if err != nil || hex.EncodeToString(sum[:]) != vmlinuxSHA256 {
			t.Errorf("UnpackKernel(%s): got %d bytes, %v", name, len(got), err)
		}
		zboot := append([]byte("MZ\x00\x00zimg"), make([]byte, 56)...)
		binary.LittleEndian.PutUint32(zboot[8:], uint32(len(zboot)))
		binary.LittleEndian.PutUint32(zboot[12:], uint32(len(payload)))
		if _, err := kmod.UnpackKernel(append(zboot, payload...)); err != nil {
			t.Errorf("UnpackKernel(zboot with %s): %v", name, err)
		}
		for _, cut := range []int{5, 20, len(payload) / 2} {
			if _, err := kmod.UnpackKernel(kmodtest.Kernel(release, payload[:cut])); !errors.Is(err, kmod.ErrKernel) {
				t.Errorf("UnpackKernel(%s cut at %d): got %v, want ErrKernel", name, cut, err)
			}
		}
	}
}

func TestUnpackKernelErrors(t *testing.T) {
	good := kmodtest.Kernel(release, read(t, "vmlinux.xz"))
	edit := func(at int, v uint32) []byte {
		b := bytes.Clone(good)
		binary.LittleEndian.PutUint32(b[at:], v)
		return b
	}
	tests := []struct {
		name, want string
		in         []byte
	}{
		{"empty", "neither bzImage", nil},
		{"text", "neither bzImage", bytes.Repeat([]byte("text"), 200)},
		{"old boot protocol", "does not tell", edit(0x206, 0x0207)},
		{"payload outside", "payload of", edit(0x248, 1<<31)},
		{"payload too long", "payload of", edit(0x24c, 1<<31)},
		{"no payload", "payload of", edit(0x24c, 0)},
		{"unknown compression", "is not known", kmodtest.Kernel(release, []byte("not packed"))},
	}
	for _, tt := range tests {
		if _, err := kmod.UnpackKernel(tt.in); !errors.Is(err, kmod.ErrKernel) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("UnpackKernel(%s): got %v, want %q", tt.name, err, tt.want)
		}
	}
}

func TestKernelRelease(t *testing.T) {
	b := kmodtest.Kernel(release, []byte("x"))
	if got := kmod.KernelRelease(b); got != release || !kmod.IsKernel(b) {
		t.Errorf("KernelRelease: got %q, want %q", got, release)
	}
	binary.LittleEndian.PutUint16(b[0x20e:], 0xffff)
	if got := kmod.KernelRelease(b); got != "" {
		t.Errorf("KernelRelease(pointer outside): got %q, want none", got)
	}
	if kmod.KernelRelease(nil) != "" || kmod.IsKernel(nil) {
		t.Error("KernelRelease(nil), IsKernel(nil): want none")
	}
}

func TestModuleKeys(t *testing.T) {
	one, selfTest := newKey(t, "module key"), newKey(t, "Certificate verification self-testing key")
	build, err := x509.ParseCertificate(read(t, "build-key.der"))
	if err != nil {
		t.Fatal(err)
	}
	vmlinux := bytes.Repeat([]byte{0x30, 0x82, 0x05, 0x24, 0x30, 0x82}, 100)
	for _, c := range []*x509.Certificate{build, one.Cert, selfTest.Cert, build} {
		vmlinux = append(append(vmlinux, c.Raw...), make([]byte, 33)...)
	}
	vmlinux = append(vmlinux, build.Raw[:100]...)
	got := kmod.ModuleKeys(vmlinux)
	if len(got) != 2 || !got[0].Equal(build) || !got[1].Equal(one.Cert) {
		t.Errorf("ModuleKeys: got %d keys, want the build key and the module key", len(got))
	}
}

func FuzzKernel(f *testing.F) {
	for _, name := range []string{"vmlinux.xz", "vmlinux.bz2", "vmlinux.zst", "vmlinux.lz4"} {
		f.Add(kmodtest.Kernel(release, withSize(read(f, name), 4000)))
	}
	f.Add(read(f, "build-key.der"))
	f.Fuzz(func(_ *testing.T, b []byte) {
		kmod.KernelRelease(b)
		kmod.ModuleKeys(b)
		if len(b) > kmodtest.PayloadAt+1<<16 {
			return
		}
		_, _ = kmod.UnpackKernel(b)
	})
}
