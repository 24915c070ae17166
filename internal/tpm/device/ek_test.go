package device

import (
	"bytes"
	"context"
	"errors"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-tpm/tpm2"

	"touchstone.dev/touchstone/internal/swtpm"
)

func TestSplitCertificates(t *testing.T) {
	one, two := append([]byte{0x30, 0x82, 1, 4}, make([]byte, 260)...), []byte{0x30, 3, 2, 1, 5}
	both := append(bytes.Clone(one), two...)
	for _, tt := range []struct {
		name  string
		in    []byte
		certs [][]byte
		rest  []byte
	}{
		{"empty", nil, nil, nil},
		{"padding only", []byte{0xff, 0xff, 0xff, 0xff, 0xff}, nil, nil},
		{"two", both, [][]byte{one, two}, nil},
		{"two with padding", append(bytes.Clone(both), 0, 0, 0, 0, 0), [][]byte{one, two}, nil},
		{"second goes on", append(bytes.Clone(two), one[:100]...), [][]byte{two}, one[:100]},
	} {
		certs, rest := splitCertificates(tt.in)
		if diff := cmp.Diff(tt.certs, certs); diff != "" || !bytes.Equal(rest, tt.rest) {
			t.Errorf("splitCertificates(%s): rest %x, want %x; (-want +got):\n%s", tt.name, rest, tt.rest, diff)
		}
	}
}

// TestNoCertificate opens a TPM that has none, and gives it a chain that runs over two NV indices.
func TestNoCertificate(t *testing.T) {
	p, err := swtpm.Start(context.Background(), swtpm.Options{Dir: filepath.Join(t.TempDir(), "bare")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Stop() })
	dev, err := Open(p.Address())
	if err != nil {
		t.Fatal(err)
	}
	ek, err := dev.EndorsementKey(context.Background())
	if err != nil || len(ek.Certs) != 0 || len(ek.Public) == 0 || ek.Problem != nil {
		t.Errorf("EndorsementKey: got %d certificates, %v, want none", len(ek.Certs), err)
	}
	define(t, dev, 0x01c00002, []byte("not a certificate"))
	if ek, err := dev.EndorsementKey(context.Background()); err != nil || len(ek.Certs) != 0 || ek.Problem == nil {
		t.Errorf("EndorsementKey with a damaged certificate: got %+v, %v, want a problem", ek, err)
	}
	cert := append([]byte{0x30, 0x82, 3, 0x84}, bytes.Repeat([]byte{0xff}, 900)...)
	define(t, dev, chainFirst, cert[:600])
	define(t, dev, chainFirst+1, append(bytes.Clone(cert[600:]), 0xff, 0xff, 0xff))
	chain, err := dev.chain(context.Background())
	if diff := cmp.Diff([][]byte{cert}, chain); err != nil || diff != "" {
		t.Errorf("chain: %v (-want +got):\n%s", err, diff)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := dev.EndorsementKey(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("EndorsementKey, cancelled: got %v, want %v", err, context.Canceled)
	}
}

func define(t *testing.T, dev *TPM, index uint32, data []byte) {
	t.Helper()
	owner := tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Auth: tpm2.PasswordAuth(nil)}
	public := tpm2.TPMSNVPublic{
		NVIndex: tpm2.TPMHandle(index), NameAlg: tpm2.TPMAlgSHA256, DataSize: uint16(len(data)),
		Attributes: tpm2.TPMANV{OwnerWrite: true, OwnerRead: true, NoDA: true, NT: tpm2.TPMNTOrdinary},
	}
	if _, err := (tpm2.NVDefineSpace{AuthHandle: owner, PublicInfo: tpm2.New2B(public)}).Execute(dev.link); err != nil {
		t.Fatal(err)
	}
	for offset := 0; offset < len(data); offset += 512 {
		read, err := tpm2.NVReadPublic{NVIndex: tpm2.TPMHandle(index)}.Execute(dev.link) // the Name changes by the first write
		if err != nil {
			t.Fatal(err)
		}
		_, err = tpm2.NVWrite{
			AuthHandle: owner, NVIndex: tpm2.NamedHandle{Handle: tpm2.TPMHandle(index), Name: read.NVName},
			Data: tpm2.TPM2BMaxNVBuffer{Buffer: data[offset:min(len(data), offset+512)]}, Offset: uint16(offset),
		}.Execute(dev.link)
		if err != nil {
			t.Fatal(err)
		}
	}
}
