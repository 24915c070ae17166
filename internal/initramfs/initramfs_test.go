package initramfs

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"touchstone.dev/touchstone/internal/agent"
)

// system is a folder that looks like the root of a machine.
func system(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		put(t, filepath.Join(root, name), text)
	}
	return root
}

func put(t *testing.T, name, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
}

// enrolled is the configuration of an agent that is.
func enrolled(t *testing.T, life time.Duration) agent.Config {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "w"}, NotAfter: time.Now().Add(life)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	cfg := agent.Defaults()
	cfg.Server, cfg.StateDir, cfg.TokenFile = "https://aias.example:8443", t.TempDir(), "/etc/secret-token"
	cfg.AssetTags = map[string]string{"site": "muc"}
	if err := (&agent.Identity{Node: "w", Server: cfg.Server, Certificate: cert, CA: cert}).Save(cfg.StateDir); err != nil {
		t.Fatal(err)
	}
	return cfg
}

func TestInstall(t *testing.T) {
	for _, tc := range []struct {
		tool, command string
		files         []string
	}{
		{"initramfs-tools", "usr/sbin/mkinitramfs", []string{
			"etc/initramfs-tools/hooks/trust-agent", "etc/initramfs-tools/scripts/init-premount/trust-agent", "etc/initramfs-tools/scripts/local-bottom/trust-agent"}},
		{"dracut", "usr/bin/dracut", []string{
			"usr/lib/dracut/modules.d/60trust-agent/module-setup.sh", "usr/lib/dracut/modules.d/60trust-agent/attest.sh",
			"usr/lib/dracut/modules.d/60trust-agent/latch.sh", "etc/dracut.conf.d/60-trust-agent.conf"}},
	} {
		root := system(t, map[string]string{tc.command: ""})
		tool, err := Find(root)
		if err != nil || tool.Name != tc.tool {
			t.Errorf("Find(): got %s, %v, want %s", tool.Name, err, tc.tool)
			continue
		}
		changed, err := tool.Install(root)
		if err != nil || len(changed) != len(tc.files) {
			t.Errorf("Install(%s): got %q, %v, want %q", tc.tool, changed, err, tc.files)
		}
		for _, name := range tc.files {
			file := filepath.Join(root, name)
			if out, err := exec.Command("bash", "-n", file).CombinedOutput(); err != nil {
				t.Errorf("bash -n %s: %v\n%s", name, err, out)
			}
		}
		if changed, err := tool.Install(root); err != nil || len(changed) != 0 {
			t.Errorf("Install(%s) again: wrote %q, %v, want nothing", tc.tool, changed, err)
		}
		broken := filepath.Join(root, tc.files[0])
		put(t, broken, "exit 1")
		if c := tool.checkFiles(root); c.Err == nil {
			t.Errorf("%s: a changed hook is not noticed", tc.tool)
		}
		if changed, err := tool.Install(root); err != nil || len(changed) != 1 || changed[0] != broken {
			t.Errorf("Install(%s) over a changed hook: wrote %q, %v, want it", tc.tool, changed, err)
		}
	}
	if _, err := Find(t.TempDir()); !errors.Is(err, ErrNoTool) {
		t.Errorf("Find() without a tool: got %v, want %v", err, ErrNoTool)
	}
}

// TestStage: what goes into an initramfs is enough for an agent, and holds no token.
func TestStage(t *testing.T) {
	cfg := enrolled(t, time.Hour)
	dir := t.TempDir()
	var warned strings.Builder
	away := func(context.Context, *agent.Config, *agent.Identity) (*agent.Identity, error) {
		return nil, errors.New("AIAS is away")
	}
	if err := Stage(t.Context(), dir, cfg, away, &warned); err != nil || !strings.Contains(warned.String(), "AIAS is away") {
		t.Fatalf("Stage() while AIAS is away: got %v, said %q; want a warning", err, warned.String())
	}
	boot, err := agent.LoadConfig(filepath.Join(dir, configPath))
	if err != nil {
		t.Fatal(err)
	}
	if boot.Server != cfg.Server || boot.Node != "w" || boot.TokenFile != "" || boot.StatusFile != "" || boot.StateDir != stateDir || len(boot.AssetTags) != 0 {
		t.Errorf("configuration: got %+v", boot)
	}
	if id, err := agent.LoadIdentity(filepath.Join(dir, stateDir)); err != nil || id.Node != "w" {
		t.Errorf("enrolment: got %+v, %v", id, err)
	}
	long := func(_ context.Context, _ *agent.Config, id *agent.Identity) (*agent.Identity, error) {
		out := *id
		out.AKCertificate = "long"
		return &out, nil
	}
	if err := Stage(t.Context(), dir, cfg, long, &warned); err != nil {
		t.Fatal(err)
	}
	if id, err := agent.LoadIdentity(filepath.Join(dir, stateDir)); err != nil || id.AKCertificate != "long" {
		t.Errorf("enrolment: got %+v, %v, want that of the initramfs", id, err)
	}
	cfg.StateDir = t.TempDir()
	if err := Stage(t.Context(), t.TempDir(), cfg, long, &warned); !errors.Is(err, agent.ErrNotEnrolled) {
		t.Errorf("Stage() of a worker that is not enrolled: got %v, want %v", err, agent.ErrNotEnrolled)
	}
}

func TestCheck(t *testing.T) {
	now := time.Now()
	good := map[string]string{
		"usr/sbin/mkinitramfs": "", "usr/bin/trust-agent": "", "usr/share/initramfs-tools/hooks/clevis": "", "boot/initrd.img-6.1": "",
		"proc/cmdline": "ip=:::::eth0:dhcp ima_policy=tcb\n",
	}
	later := now.Add(time.Hour)
	for _, tc := range []struct {
		name   string
		change func(t *testing.T, root string, cfg *agent.Config)
		want   string // in what is missing; "" is nothing
	}{
		{"good", func(*testing.T, string, *agent.Config) {}, ""},
		{"no tool", func(t *testing.T, root string, _ *agent.Config) { remove(t, root, "usr/sbin/mkinitramfs") }, "neither initramfs-tools nor dracut"},
		{"hook missing", func(t *testing.T, root string, _ *agent.Config) {
			remove(t, root, "etc/initramfs-tools/hooks/trust-agent")
		}, "trust-agent initramfs install"},
		{"clevis missing", func(t *testing.T, root string, _ *agent.Config) {
			remove(t, root, "usr/share/initramfs-tools/hooks/clevis")
		}, "clevis-initramfs"},
		{"no image", func(t *testing.T, root string, _ *agent.Config) { remove(t, root, "boot/initrd.img-6.1") }, "no initramfs in /boot"},
		{"image is old", func(t *testing.T, root string, _ *agent.Config) {
			if err := os.Chtimes(filepath.Join(root, "usr/bin/trust-agent"), later, later.Add(time.Hour)); err != nil {
				t.Fatal(err)
			}
		}, "older than /usr/bin/trust-agent: update-initramfs -u"},
		{"not enrolled", func(t *testing.T, _ string, cfg *agent.Config) { cfg.StateDir = t.TempDir() }, "not enrolled"},
		{"certificate ends", func(t *testing.T, _ string, cfg *agent.Config) { *cfg = enrolled(t, 24*time.Hour) }, "the certificate ends"},
		{"ip=dhcp", func(t *testing.T, root string, _ *agent.Config) {
			put(t, filepath.Join(root, "proc/cmdline"), "ip=dhcp ima_policy=tcb")
		}, "ip=:::::eth0:dhcp"},
		{"no IMA", func(t *testing.T, root string, _ *agent.Config) { put(t, filepath.Join(root, "proc/cmdline"), "quiet") }, "ima_policy=tcb"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			root, cfg := system(t, good), enrolled(t, 30*24*time.Hour)
			if _, err := tools[0].Install(root); err != nil {
				t.Fatal(err)
			}
			if err := os.Chtimes(filepath.Join(root, "boot/initrd.img-6.1"), later, later); err != nil {
				t.Fatal(err)
			}
			tc.change(t, root, &cfg)
			var missing []string
			for _, c := range Check(root, &cfg, now) {
				if c.Err != nil {
					missing = append(missing, c.Err.Error())
				}
			}
			if got := strings.Join(missing, "; "); !strings.Contains(got, tc.want) || (tc.want == "") != (got == "") {
				t.Errorf("Check(): missing is %q, want %q", got, tc.want)
			}
		})
	}
}

func remove(t *testing.T, root, name string) {
	t.Helper()
	if err := os.Remove(filepath.Join(root, name)); err != nil {
		t.Fatal(err)
	}
}
