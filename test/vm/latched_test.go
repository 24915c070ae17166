//go:build vm

package vm

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"touchstone.dev/touchstone/internal/protocol"
)

// agentPath is where an administrator installs the agent; it is not where /init looks for one to start.
const agentPath = "/usr/bin/trust-agent"

// ask is the body of a recovery: a point on the curve of the node's key.
func (v *vault) ask(t *testing.T) string {
	t.Helper()
	resp, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/n/%s/adv", v.aias.disks, vaultName)) //nolint:noctx // a test
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var jws struct{ Payload string }
	if err := json.NewDecoder(resp.Body).Decode(&jws); err != nil {
		t.Fatal(err)
	}
	payload, err := base64.RawURLEncoding.DecodeString(jws.Payload)
	if err != nil {
		t.Fatal(err)
	}
	var set struct {
		Keys []struct{ Alg, Crv string }
	}
	if err := json.Unmarshal(payload, &set); err != nil {
		t.Fatal(err)
	}
	curve := elliptic.P521()
	name := "P-521"
	for _, k := range set.Keys {
		if k.Alg == "ECMR" && k.Crv == "P-256" {
			curve, name = elliptic.P256(), k.Crv
		}
	}
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	b, err := key.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	half := len(b) / 2
	encode := base64.RawURLEncoding.EncodeToString
	return fmt.Sprintf(`{"alg":"ECMR","crv":%q,"kty":"EC","x":%q,"y":%q}`, name, encode(b[1:1+half]), encode(b[1+half:]))
}

// checkLatched asks for the key once more, as clevis does, from the machine whose root is open: who takes it over gets nothing, though the machine attests as well as before.
func (v *vault) checkLatched(t *testing.T) {
	t.Helper()
	// For 15 minutes after disk bind clevis may try what it binds, latch or not. That a revocation ends, and nothing brings back but another bind.
	for _, act := range []string{protocol.DiskRevoke, protocol.DiskUnrevoke} {
		if _, err := v.aias.ActOnDisk(t.Context(), vaultName, act, protocol.DiskAct{}); err != nil {
			t.Fatal(err)
		}
	}
	// An attestation of the same boot makes no new lease; and AIAS has heard of the latch then, should it not have when it closed.
	out, exit, err := v.machine.Guest().Exec(t.Context(), agentPath, "boot", "attest", "--wait", "60s")
	if err != nil || exit == 0 || !strings.Contains(string(out), saysRefused) {
		t.Errorf("attested again in this boot: got %q, exit code %d, %v; want that the disks stay closed", out, exit, err)
	}
	if d := v.disk(t); d.Ready {
		t.Errorf("attested again in this boot: the disks would open: %s", d.Why)
	}
	d := v.disk(t)
	url := "http://" + net.JoinHostPort(HostAddress, strconv.Itoa(v.aias.disks)) + "/n/" + vaultName + "/rec/" + d.Keys[0].Thumbprint
	out, exit, err = v.machine.Guest().Exec(t.Context(), busyboxPath, "wget", "-O", "-", "--post-data", v.ask(t), url)
	if err != nil || exit == 0 || !strings.Contains(string(out), "403") {
		t.Errorf("second recovery in this boot: got %q, exit code %d, %v; want status 403", out, exit, err)
	}
	last := v.disk(t).Last
	if last == nil || last.Released || !strings.Contains(last.Reason, "PCR 15 says that the disks of this boot are open already") {
		t.Errorf("second recovery in this boot: an operator sees %+v, want it refused for the latch", last)
	}
	t.Logf("second recovery in this boot: %s", last.Reason)
	v.checkVolumes(t)
}

// checkStage makes what goes into an initramfs on the running machine, with its TPM and AIAS at hand: the certificate is one for the initramfs, and attests.
func (v *vault) checkStage(t *testing.T) {
	t.Helper()
	g := v.machine.Guest()
	out, exit, err := g.Exec(t.Context(), agentPath, "initramfs", "stage", "/run/staged")
	if err != nil || exit != 0 || strings.Contains(string(out), "W:") {
		t.Fatalf("trust-agent initramfs stage: got %q, exit code %d, %v; want no warning", out, exit, err)
	}
	raw, err := g.ReadFile(t.Context(), "/run/staged/var/lib/trust-agent/enrolment.json")
	if err != nil {
		t.Fatal(err)
	}
	var enrolment struct{ Certificate string }
	if err := json.Unmarshal(raw, &enrolment); err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode([]byte(enrolment.Certificate))
	if block == nil {
		t.Fatalf("staged certificate: got %q", enrolment.Certificate)
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	if days := time.Until(cert.NotAfter).Hours() / 24; days < 390 {
		t.Errorf("staged certificate: ends after %.0f days, want some 400", days)
	}
	// The staged configuration names the folder that it will be in.
	config, err := g.ReadFile(t.Context(), "/run/staged/etc/trust-agent.yaml")
	if err != nil {
		t.Fatal(err)
	}
	staged := strings.Replace(string(config), "stateDir: /var/lib/trust-agent", "stateDir: /run/staged/var/lib/trust-agent", 1)
	if staged == string(config) || strings.Contains(staged, "token") && strings.Contains(staged, "tokenFile: /") {
		t.Fatalf("staged configuration: got %s, want its own folder and no token", config)
	}
	if err := g.WriteFile(t.Context(), "/run/staged/agent.yaml", []byte(staged), 0o644); err != nil {
		t.Fatal(err)
	}
	out, exit, err = g.Exec(t.Context(), agentPath, "boot", "attest", "--config", "/run/staged/agent.yaml", "--wait", "60s")
	if err != nil || exit == 0 || !strings.Contains(string(out), saysRefused) { // a verdict, and the latch is closed
		t.Errorf("attested with the staged enrolment: got %q, exit code %d, %v; want a verdict", out, exit, err)
	}
	t.Logf("trust-agent initramfs stage: certificate until %s", cert.NotAfter.Format(time.DateOnly))
}

// checkKexec starts the same kernel anew by kexec, in the machine whose root is open: no firmware runs and the TPM is not reset, so it is the same boot, whose latch is closed.
func (v *vault) checkKexec(t *testing.T) {
	t.Helper()
	k, err := v.lab.Kernel("")
	if err != nil {
		t.Fatal(err)
	}
	before := v.disk(t).Last
	v.screen.clear()
	if err := v.machine.Kexec(t.Context(), readTestFile(t, k.Image), v.machine.Options().Initrd, v.line); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the console of the second kernel says that the disks stay closed", func() bool { return v.screen.shows(saysRefused) })
	eventually(t, "the console of the second kernel says why", func() bool { return v.screen.shows("PCR 15 says that the disks of this boot are open already") })
	eventually(t, "the second kernel's clevis was refused", func() bool {
		l := v.disk(t).Last
		return l != nil && l.At.After(before.At) && !l.Released && strings.Contains(l.Reason, "PCR 15 says")
	})
	if v.screen.shows(saysOpen) {
		t.Error("kexec: the console says that the disk opens")
	}
	n, err := v.aias.Node(t.Context(), vaultName)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("kexec: AIAS: %s, %+v", n.Trust, n.Levels)
	v.machine.Kill()
}

// checkVolumes looks at what the agent told of the machine's volumes when it attested last, with a device-mapper that is no file of a test.
func (v *vault) checkVolumes(t *testing.T) {
	t.Helper()
	all, err := v.aias.Volumes(t.Context())
	if err != nil || len(all.Nodes) != 1 || len(all.Nodes[0].Volumes) != 1 {
		t.Fatalf("Volumes(): got %+v, %v; want the root of one node", all, err)
	}
	root := all.Nodes[0].Volumes[0]
	if strings.Join(root.Points, " ") != "/" || root.Device != "/dev/mapper/root" || root.Encrypted != "yes" || strings.Join(root.Layers, " on ") != "dm-crypt on disk" || len(root.Containers) != 1 {
		t.Fatalf("root: got %+v, want it encrypted by dm-crypt on a disk", root)
	}
	if c := root.Containers[0]; c.Format != "LUKS2" || !slices.Contains(c.Bindings, "AIAS") || !slices.Contains(c.Bindings, "passphrase") {
		t.Errorf("root: got %+v, want LUKS2 that AIAS and a passphrase open", c)
	}
	t.Logf("volumes: %+v", root)
}
