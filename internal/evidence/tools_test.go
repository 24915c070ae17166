package evidence

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"touchstone.dev/touchstone/internal/tpm"
)

// tools runs tpm2-tools in a folder against a software TPM of its own.
type tools struct {
	t   *testing.T
	dir string
}

func newTools(t *testing.T) *tools {
	t.Helper()
	// Not t.TempDir: the path of a unix socket is at most 107 bytes long.
	dir, err := os.MkdirTemp("", "evidence")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket := filepath.Join(dir, "s")
	cmd := exec.Command("swtpm", "socket", "--tpm2", "--tpmstate", "dir="+dir, "--server", "type=unixio,path="+socket,
		"--ctrl", "type=unixio,path="+socket+".ctrl", "--flags", "not-need-init,startup-clear")
	if err := cmd.Start(); err != nil {
		t.Fatalf("start swtpm: %v (install the packages swtpm and tpm2-tools)", err)
	}
	t.Cleanup(func() {
		if err := cmd.Process.Kill(); err != nil {
			t.Errorf("stop swtpm: %v", err)
		}
		_ = cmd.Wait() // killed: its status says nothing
	})
	for range 200 {
		if c, err := net.Dial("unix", socket+".ctrl"); err == nil {
			c.Close()
			return &tools{t, dir}
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal("swtpm does not answer within 2 s")
	return nil
}

// run runs a tool, whose arguments are words, and returns what it prints.
func (x *tools) run(args string) string {
	x.t.Helper()
	words := strings.Fields(args)
	cmd := exec.Command(words[0], words[1:]...)
	cmd.Dir = x.dir
	cmd.Env = append(os.Environ(), "TPM2TOOLS_TCTI=swtpm:path="+filepath.Join(x.dir, "s"))
	out, err := cmd.CombinedOutput()
	if err != nil {
		x.t.Fatalf("%s: %v\n%s", args, err, out)
	}
	return string(out)
}

func (x *tools) path(name string) string { return filepath.Join(x.dir, name) }

// write puts text into a file.
func (x *tools) write(name, text string) {
	if err := os.WriteFile(x.path(name), []byte(text), 0o600); err != nil {
		x.t.Fatal(err)
	}
}

// key makes an attestation key.
func (x *tools) key(name, kind, scheme string) {
	x.run("tpm2_createak -C ek.ctx -c " + name + ".ctx -G " + kind + " -g sha256 -s " + scheme + " -u " + name + ".pub")
	x.run("tpm2_flushcontext -t")
	x.run("tpm2_readpublic -c " + name + ".ctx -o " + name + ".pem -f pem")
	x.run("tpm2_flushcontext -t")
	x.run("tpm2_readpublic -c " + name + ".ctx -o " + name + ".tpmt -f tpmt")
	x.run("tpm2_flushcontext -t")
	x.run("tpm2_readpublic -c " + name + ".ctx -o " + name + ".der -f der")
	x.run("tpm2_flushcontext -t")
}

func (x *tools) quote(args string) string {
	out := x.run("tpm2_quote -q a1b2c3 -g sha256 " + args)
	x.run("tpm2_flushcontext -t")
	return out
}

// Whatever tpm2-tools write becomes a document whose quotes verify.
func TestPackWhatToolsWrite(t *testing.T) {
	x := newTools(t)
	x.run("tpm2_createek -c ek.ctx -G ecc -u ek.pub")
	x.run("tpm2_flushcontext -t")
	x.key("ecc", "ecc", "ecdsa")
	x.key("rsa", "rsa", "rsassa")
	x.key("pss", "rsa", "rsapss")
	x.run("tpm2_pcrextend 10:sha1=" + strings.Repeat("12", 20) + ",sha256=" + strings.Repeat("34", 32))
	x.run("tpm2_pcrextend 7:sha384=" + strings.Repeat("56", 48))
	all := "sha1:0,10+sha256:0,1,2,3,4,5,6,7,8,9,10+sha384:7"

	x.write("ser.out", x.quote("-c ecc.ctx -l "+all+" -m ser.msg -s ser.sig -o ser.pcr"))
	x.quote("-c ecc.ctx -l " + all + " -m val.msg -s val.sig -o val.pcr -F values")
	x.quote("-c rsa.ctx -l sha256:0,10 -m rsa.msg -s rsa.sig -o rsa.pcr")
	x.quote("-c pss.ctx --scheme rsapss -l sha256:0,10 -m pss.msg -s pss.sig -o pss.pcr")
	x.quote("-c rsa.ctx -l sha256:0,10 -m rsaplain.msg -s rsaplain.sig -f plain")
	x.quote("-c ecc.ctx -l sha256:0,10 -m eccplain.msg -s eccplain.sig -f plain")
	x.quote("-c pss.ctx --scheme rsapss -l sha256:0,10 -m pssplain.msg -s pssplain.sig -f plain")
	x.run("tpm2_createak -C ek.ctx -c p384.ctx -G ecc384 -g sha384 -s ecdsa -u p384.pub")
	x.run("tpm2_flushcontext -t")
	x.run("tpm2_readpublic -c p384.ctx -o p384.pem -f pem")
	x.run("tpm2_flushcontext -t")
	x.run("tpm2_quote -q A1B2C3 -g sha384 -c p384.ctx -l sha256:0,10 -m p384.msg -s p384.sig -f plain")
	x.run("tpm2_flushcontext -t")
	x.quote("-c ecc.ctx -l sha1:0,10 -m sha1.msg -s sha1.sig")
	x.quote("-c ecc.ctx -l sha256:0,10 -m sha256.msg -s sha256.sig")
	x.write("read.yaml", x.run("tpm2_pcrread"))
	x.run("tpm2_pcrread -o read.val " + all)
	x.run("tpm2_pcrread -o read.ser -F serialized " + all)

	for _, test := range []struct {
		name, msg, pcrs, ak string // msg and pcrs: names joined by spaces
	}{
		{"serialized", "ser", "ser.pcr", "ecc.pub"},
		{"values", "val", "val.pcr", "ecc.pub"},
		{"printed by tpm2_quote", "ser", "ser.out", "ecc.pub"},
		{"printed by tpm2_pcrread", "ser", "read.yaml", "ecc.pub"},
		{"tpm2_pcrread values", "ser", "read.val", "ecc.pub"},
		{"tpm2_pcrread serialized", "ser", "read.ser", "ecc.pub"},
		{"TPMT_PUBLIC", "ser", "ser.pcr", "ecc.tpmt"},
		{"PEM", "ser", "ser.pcr", "ecc.pem"},
		{"DER", "ser", "ser.pcr", "ecc.der"},
		{"rsassa", "rsa", "rsa.pcr", "rsa.pub"},
		{"rsapss", "pss", "pss.pcr", "pss.pub"},
		{"rsa plain", "rsaplain", "rsa.pcr", "rsa.pub"},
		{"rsa plain, PEM", "rsaplain", "rsa.pcr", "rsa.pem"},
		{"rsapss plain, PEM", "pssplain", "rsa.pcr", "pss.pem"},
		{"P-384 with SHA-384 plain, PEM", "p384", "rsa.pcr", "p384.pem"},
		{"P-384 with SHA-384 plain", "p384", "rsa.pcr", "p384.pub"},
		{"ecdsa plain", "eccplain", "read.yaml", "ecc.pub"},
		{"ecdsa plain, PEM", "eccplain", "read.yaml", "ecc.pem"},
		{"two quotes", "sha1 sha256", "read.yaml", "ecc.pub"},
		{"two quotes, two files", "ser sha256", "ser.pcr rsa.pcr", "ecc.pub"},
	} {
		t.Run(test.name, func(t *testing.T) {
			o := PackOptions{AKPub: x.path(test.ak), Nonce: "A1B2C3"}
			for _, m := range strings.Fields(test.msg) {
				o.QuoteMsg, o.QuoteSig = append(o.QuoteMsg, x.path(m+".msg")), append(o.QuoteSig, x.path(m+".sig"))
			}
			for _, p := range strings.Fields(test.pcrs) {
				o.PCRs = append(o.PCRs, x.path(p))
			}
			d, err := Pack(o)
			if err != nil {
				t.Fatalf("Pack: %v", err)
			}
			verifyQuotes(t, d)
			b, err := d.Encode()
			if err != nil {
				t.Fatal(err)
			}
			again, err := Decode(b)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(d.Quotes, again.Quotes); diff != "" {
				t.Errorf("Decode(Encode(d)) (-want +got):\n%s", diff)
			}
			if v := d.View(); v.Quotes[0].Problem != "" || v.Quotes[0].Nonce != "a1b2c3" || v.AK.Type == "" {
				t.Errorf("View: got %+v", v.Quotes[0])
			}
		})
	}

	// The serialized form with some bytes changed or missing is not taken for values.
	ser, err := os.ReadFile(x.path("ser.pcr"))
	if err != nil {
		t.Fatal(err)
	}
	for _, change := range []func([]byte) []byte{
		func(b []byte) []byte { return b[:len(b)-1] },
		func(b []byte) []byte { b[0] = 17; return b },
		func(b []byte) []byte { b[0] = 0; return b },
		func(b []byte) []byte { b[6] = 9; return b },
		func(b []byte) []byte { b[7] ^= 4; return b },
		func(b []byte) []byte { b[7] = 0; return b },
		func(b []byte) []byte { b[cHead-4]++; return b },
		func(b []byte) []byte { b[cHead] = 9; return b },
		func(b []byte) []byte { b[cHead+4] = 65; return b },
		func(b []byte) []byte { b[cHead+4] = 19; return b },
	} {
		b := change(append([]byte(nil), ser...))
		if got, err := ParsePCRs(b, []tpm.Selection{{Alg: tpm.AlgSHA256, PCRs: tpm.PCRs(0)}}); err == nil {
			t.Errorf("ParsePCRs(serialized, damaged): got %v, want an error", got)
		}
	}
}
