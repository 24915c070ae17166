package device

import (
	"bytes"
	"crypto/rand"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"

	"touchstone.dev/touchstone/internal/swtpm"
	"touchstone.dev/touchstone/internal/tpm"
)

const (
	testIndex      uint32 = 0x01a7a601
	testAttributes        = tpm.NVOwnerWrite | tpm.NVWriteAll | tpm.NVOwnerRead | tpm.NVAuthRead | tpm.NVNoDA
)

func record(fill byte) []byte { return bytes.Repeat([]byte{fill}, 184) }

// cleared opens the TPM without the test's index, and removes it at the end.
func cleared(t testing.TB) *TPM {
	t.Helper()
	dev := open(t)
	remove := func() {
		if _, err := dev.nvPublic(testIndex); errors.Is(err, ErrNoIndex) {
			return
		}
		public, err := dev.nvPublic(testIndex)
		if err == nil {
			_, err = tpm2.NVUndefineSpace{AuthHandle: ownerAuth(nil), NVIndex: public.handle()}.Execute(dev.link)
		}
		if err != nil {
			t.Error(err)
		}
	}
	remove()
	t.Cleanup(remove)
	return dev
}

func TestNVStoreAndCertify(t *testing.T) {
	dev := cleared(t)
	ak := mustAK(t, dev, "ecc")
	nonce := []byte("0123456789abcdef0123456789abcdef")
	if _, _, _, err := dev.NVCertify(ak, testIndex, nonce); !errors.Is(err, ErrNoIndex) {
		t.Errorf("NVCertify without an index: got %v, want %v", err, ErrNoIndex)
	}
	for _, content := range [][]byte{record(1), record(2), record(2)} {
		if err := dev.NVStore(testIndex, testAttributes, content, nil); err != nil {
			t.Fatalf("NVStore: %v", err)
		}
		public, message, signature, err := dev.NVCertify(ak, testIndex, nonce)
		if err != nil {
			t.Fatalf("NVCertify: %v", err)
		}
		p, got, err := tpm.VerifyNV(mustPublic(t, ak.Public()), nonce, public, message, signature)
		if err != nil || !bytes.Equal(got, content) {
			t.Fatalf("VerifyNV: got %x, %v, want %x", got, err, content)
		}
		if p.Index != testIndex || p.Attributes != testAttributes|tpm.NVWritten || int(p.DataSize) != len(content) {
			t.Errorf("index: got %+v", p)
		}
		named, err := dev.nvPublic(testIndex)
		if err != nil || !bytes.Equal(named.name.Buffer, p.Name()) {
			t.Errorf("Name: got %x, the TPM says %x, %v", p.Name(), named.name.Buffer, err)
		}
	}
	if err := dev.NVDelete(testIndex, testAttributes, 184, nil); err != nil {
		t.Errorf("NVDelete: %v", err)
	}
	if err := dev.NVDelete(testIndex, testAttributes, 184, nil); err != nil {
		t.Errorf("NVDelete of no index: %v", err)
	}
}

func TestNVCertifyRSA(t *testing.T) {
	dev := cleared(t)
	ak, nonce := mustAK(t, dev, "rsa"), []byte("nonce")
	if err := dev.NVStore(testIndex, testAttributes, record(7), nil); err != nil {
		t.Fatal(err)
	}
	public, message, signature, err := dev.NVCertify(ak, testIndex, nonce)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := tpm.VerifyNV(mustPublic(t, ak.Public()), nonce, public, message, signature); err != nil {
		t.Errorf("VerifyNV: %v", err)
	}
	other := mustPublic(t, mustAK(t, dev, "ecc").Public())
	if _, _, err := tpm.VerifyNV(other, nonce, public, message, signature); !errors.Is(err, tpm.ErrNV) {
		t.Errorf("VerifyNV by another key: got %v, want %v", err, tpm.ErrNV)
	}
}

// TestNVStoreStopped: whoever defined the index was stopped before the write, or the write was refused.
func TestNVStoreStopped(t *testing.T) {
	dev := cleared(t)
	if err := dev.nvDefine(testIndex, testAttributes, 184, nil); err != nil {
		t.Fatal(err)
	}
	if _, _, _, err := dev.NVCertify(mustAK(t, dev, "ecc"), testIndex, []byte("n")); !errors.Is(err, ErrNoIndex) {
		t.Errorf("NVCertify of an index that was never written: got %v, want %v", err, ErrNoIndex)
	}
	if err := dev.NVStore(testIndex, testAttributes, record(3), nil); err != nil {
		t.Fatalf("NVStore after a stop: %v", err)
	}
	if got, err := dev.NVRead(testIndex); err != nil || !bytes.Equal(got, record(3)) {
		t.Errorf("NVRead: got %x, %v", got, err)
	}
}

// TestNVStoreLeavesOthersAlone: an index of another program is neither written nor removed.
func TestNVStoreLeavesOthersAlone(t *testing.T) {
	for name, other := range map[string]struct {
		attributes uint32
		size       int
	}{
		"other attributes": {testAttributes | 1<<2, 184}, // AUTHWRITE
		"other size":       {testAttributes, 32},
	} {
		t.Run(name, func(t *testing.T) {
			dev := cleared(t)
			if err := dev.nvDefine(testIndex, other.attributes, other.size, nil); err != nil {
				t.Fatal(err)
			}
			if err := dev.NVStore(testIndex, testAttributes, record(1), nil); !errors.Is(err, ErrIndexTaken) {
				t.Errorf("NVStore: got %v, want %v", err, ErrIndexTaken)
			}
			if err := dev.NVDelete(testIndex, testAttributes, 184, nil); !errors.Is(err, ErrIndexTaken) {
				t.Errorf("NVDelete: got %v, want %v", err, ErrIndexTaken)
			}
		})
	}
	dev := cleared(t)
	if err := dev.NVStore(testIndex, testAttributes, make([]byte, maxWrite+1), nil); err == nil {
		t.Error("NVStore of too much: got nil")
	}
}

// TestNVStoreOwnerAuth: on a TPM whose owner hierarchy has a secret, that secret is needed.
func TestNVStoreOwnerAuth(t *testing.T) {
	process, err := swtpm.Start(t.Context(), swtpm.Options{Dir: filepath.Join(t.TempDir(), "owned")})
	if err != nil {
		t.Fatal(err)
	}
	defer process.Stop() //nolint:errcheck // the test is over
	dev, err := Open(process.Address())
	if err != nil {
		t.Fatal(err)
	}
	defer dev.Close() //nolint:errcheck // the test is over
	secret := []byte("owner secret")
	_, err = tpm2.HierarchyChangeAuth{AuthHandle: ownerAuth(nil), NewAuth: tpm2.TPM2BAuth{Buffer: secret}}.Execute(dev.link)
	if err != nil {
		t.Fatal(err)
	}
	for _, wrong := range [][]byte{nil, []byte("wrong")} {
		if err := dev.NVStore(testIndex, testAttributes, record(1), wrong); err == nil {
			t.Errorf("NVStore with owner secret %q: got nil, want an error", wrong)
		}
	}
	for _, content := range [][]byte{record(1), record(2)} {
		if err := dev.NVStore(testIndex, testAttributes, content, secret); err != nil {
			t.Errorf("NVStore with the owner secret: %v", err)
		}
	}
	if got, err := dev.NVRead(testIndex); err != nil || !bytes.Equal(got, record(2)) {
		t.Errorf("NVRead: got %x, %v", got, err)
	}
	if err := dev.NVDelete(testIndex, testAttributes, 184, secret); err != nil {
		t.Errorf("NVDelete: %v", err)
	}
}

const envWriter = "TOUCHSTONE_TEST_NV_WRITER"

// writeForever is what the process does that TestNVStoreKilled kills: it writes one record after another, and removes the index now and then.
func writeForever(address string) int {
	dev, err := Open(address)
	for i := byte(1); err == nil; i++ {
		if i%5 == 0 {
			err = dev.NVDelete(testIndex, testAttributes, 184, nil)
		} else {
			err = dev.NVStore(testIndex, testAttributes, record(i), nil)
		}
	}
	println(err.Error())
	return 1
}

// TestNVStoreKilled: kill -9 at any moment leaves no half content, and the next call repairs what is left.
func TestNVStoreKilled(t *testing.T) {
	dev := cleared(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	left := map[string]int{}
	for i := range 12 {
		cmd := exec.Command(self)
		cmd.Env = append(os.Environ(), envWriter+"="+shared.process.Address())
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		var extra [1]byte
		_, _ = rand.Read(extra[:])
		time.Sleep(40*time.Millisecond + time.Duration(extra[0])*time.Millisecond/4)
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		switch got, err := dev.NVRead(testIndex); {
		case errors.Is(err, ErrNoIndex):
			left["absent"]++
		case err != nil:
			t.Fatalf("NVRead after a kill: %v", err)
		case len(got) != 184 || bytes.Count(got, got[:1]) != 184:
			t.Fatalf("NV content after a kill: got %x, want one whole record", got)
		default:
			left["whole"]++
		}
		want := record(byte(200 + i))
		if err := dev.NVStore(testIndex, testAttributes, want, nil); err != nil {
			t.Fatalf("NVStore after a kill: %v", err)
		}
		if got, err := dev.NVRead(testIndex); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("NVRead after a repair: got %x, %v", got, err)
		}
	}
	if left["whole"] == 0 {
		t.Errorf("left behind by kills: %v, want whole records among them", left)
	}
}

func BenchmarkNVCertify(b *testing.B) {
	dev := cleared(b)
	ak := mustAK(b, dev, "ecc")
	if err := dev.NVStore(testIndex, testAttributes, record(1), nil); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, _, _, err := dev.NVCertify(ak, testIndex, []byte("nonce")); err != nil {
			b.Fatal(err)
		}
	}
}
