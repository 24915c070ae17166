package oscap_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"touchstone.dev/touchstone/internal/compliance/oscap"
	"touchstone.dev/touchstone/internal/compliance/xccdf"
)

const (
	small   = "testdata/small-ds.xml"
	profile = "xccdf_dev.touchstone_profile_all"
	rule    = "xccdf_dev.touchstone_rule_"
	ssg     = "/usr/share/xml/scap/ssg/content/ssg-debian11-ds.xml"
)

// needOscap tells what is missing; `make test` installs it.
func needOscap(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Fatal("scans need root: mounts")
	}
	if _, err := exec.LookPath("oscap"); err != nil {
		t.Fatal("oscap is not installed: scripts/need test")
	}
}

// image makes the root of an image with some packages as dpkg keeps them, and files.
func image(t *testing.T, packages []string, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	var status strings.Builder
	for _, p := range packages {
		fmt.Fprintf(&status, "Package: %s\nStatus: install ok installed\nPriority: optional\nSection: net\nInstalled-Size: 10\nMaintainer: Nobody <nobody@example.org>\nArchitecture: amd64\nVersion: 1.0-1\nDescription: a package\n\n", p)
	}
	all := map[string]string{"var/lib/dpkg/status": status.String(), "etc/debian_version": "12.5\n", "etc/os-release": "ID=debian\nVERSION_ID=12\n"}
	for name, content := range files {
		all[name] = content
	}
	for name, content := range all {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// fingerprint is a hash over names, modes and contents below root.
func fingerprint(t *testing.T, root string) string {
	t.Helper()
	h := sha256.New()
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		i, err := d.Info()
		if err != nil {
			return err
		}
		fmt.Fprintln(h, path, i.Mode(), i.Size(), i.ModTime().UnixNano())
		if d.Type().IsRegular() {
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			h.Write(b)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(h.Sum(nil))
}

func outcomes(r *xccdf.TestResult) map[string]xccdf.Outcome {
	out := map[string]xccdf.Outcome{}
	for _, x := range r.Rules {
		out[strings.TrimPrefix(x.ID, rule)] = x.Outcome
	}
	return out
}

func scan(t *testing.T, r *oscap.Runner, s oscap.Scan) (*oscap.Outcome, error) {
	t.Helper()
	out, err := r.Scan(context.Background(), s)
	if err == nil {
		t.Logf("%s: %s, %d MB resident", s.Root, out.Took.Round(time.Millisecond), out.MaxRSS>>20)
	}
	return out, err
}

// TestTelnet: what the image has is seen, although this version of oscap calls each package absent under the apt configuration that images of
// Debian have, and runs the image's dpkg.
func TestTelnet(t *testing.T) {
	needOscap(t)
	trap(t)
	fake := "#!/bin/sh\ntouch /executed\n"
	root := image(t, []string{"base-files", "telnet", "apparmor"}, map[string]string{"usr/bin/dpkg": fake, "var/cache/apt/pkgcache.bin": "poisoned"})
	before := fingerprint(t, root)
	var seen []string
	r := &oscap.Runner{Progress: func(rule string, o xccdf.Outcome, _ int) { seen = append(seen, rule+"="+string(o)) }}
	s := oscap.Scan{Content: small, Profile: profile, Root: root, Container: true, Target: "oci://test@sha256:00", Environment: []string{"A=b"}}
	out, err := scan(t, r, s)
	if err != nil {
		t.Fatal(err)
	}
	got := outcomes(out.Result)
	for name, want := range map[string]xccdf.Outcome{"telnet": xccdf.Fail, "apparmor": xccdf.Pass, "machine": xccdf.Fail} {
		if got[name] != want {
			t.Errorf("with telnet and apparmor: rule %s: got %q, want %q", name, got[name], want)
		}
	}
	if len(seen) != 3 {
		t.Errorf("progress: got %q, want three rules", seen)
	}
	if after := fingerprint(t, root); after != before {
		t.Error("the root is not as it was before the scan")
	}
	if sum := digest(t, small); out.Content != sum || out.Version == "" {
		t.Errorf("content %s by oscap %q, want %s and a version", out.Content, out.Version, sum)
	}
	s.Root, s.Container = image(t, []string{"base-files"}, nil), false
	if out, err = scan(t, r, s); err != nil {
		t.Fatal(err)
	}
	got = outcomes(out.Result)
	for name, want := range map[string]xccdf.Outcome{"telnet": xccdf.Pass, "apparmor": xccdf.Fail, "machine": xccdf.Pass} {
		if got[name] != want {
			t.Errorf("without them, and no container: rule %s: got %q, want %q", name, got[name], want)
		}
	}
}

func digest(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// trap makes sure that the machine has the configuration of apt that misleads oscap 1.3.7, in a file of its own.
func trap(t *testing.T) {
	t.Helper()
	const path = "/etc/apt/apt.conf.d/zz-touchstone-test"
	if err := os.WriteFile(path, []byte("Dir::Cache::pkgcache \"\";\nDir::Cache::srcpkgcache \"\";\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(path) })
}

// TestCanary: oscap as it is installed, without our configuration and mount, is caught.
func TestCanary(t *testing.T) {
	needOscap(t)
	trap(t)
	root := image(t, []string{"base-files", "telnet"}, nil)
	wrapper := script(t, `unset APT_CONFIG; export OSCAP_PROBE_ROOT=`+root+`; exec oscap "$@"`)
	_, err := scan(t, &oscap.Runner{Program: wrapper}, oscap.Scan{Content: small, Profile: profile, Root: root, Container: true})
	wantKind(t, err, oscap.CanaryDied)
	// One that says nothing on stderr is caught by its answers.
	wrapper = script(t, `unset APT_CONFIG; export OSCAP_PROBE_ROOT=`+root+`; exec oscap "$@" 2>/dev/null`)
	_, err = scan(t, &oscap.Runner{Program: wrapper}, oscap.Scan{Content: small, Profile: profile, Root: root, Container: true})
	wantKind(t, err, oscap.CanaryDied)
}

func script(t *testing.T, body string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "oscap")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+body+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func wantKind(t *testing.T, err error, want oscap.Kind) {
	t.Helper()
	var e *oscap.Error
	if !errors.As(err, &e) || e.Kind != want {
		t.Errorf("Scan: %v, want an error of kind %s", err, want)
	} else {
		t.Log(err)
	}
}

// TestNeverAPass: what must not pass is an error with its reason.
func TestNeverAPass(t *testing.T) {
	needOscap(t)
	root := image(t, []string{"base-files"}, nil)
	whole := oscap.Scan{Content: small, Profile: profile, Root: root, Container: true}
	with := func(f func(s *oscap.Scan)) oscap.Scan {
		s := whole
		f(&s)
		return s
	}
	file := func(content string) string {
		path := filepath.Join(t.TempDir(), "content.xml")
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	eval := func(what string) string { return `case "$1" in xccdf) ` + what + `;; *) exec oscap "$@";; esac` }
	b, err := os.ReadFile(small)
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name string
		s    oscap.Scan
		r    oscap.Runner
		want oscap.Kind
	}{
		{"unknown profile", with(func(s *oscap.Scan) { s.Profile = "xccdf_x_profile_y" }), oscap.Runner{}, oscap.NoProfile},
		{"no content", with(func(s *oscap.Scan) { s.Content = "/nowhere" }), oscap.Runner{}, oscap.BadContent},
		{"content is no data stream", with(func(s *oscap.Scan) { s.Content = file("<a/>") }), oscap.Runner{}, oscap.BadContent},
		{"truncated content", with(func(s *oscap.Scan) { s.Content = file(string(b[:len(b)/2])) }), oscap.Runner{}, oscap.BadContent},
		{"content of a checklist only", with(func(s *oscap.Scan) {
			s.Content = file(string(b[strings.Index(string(b), "<Benchmark"):strings.Index(string(b), "</Benchmark>")]) + "</Benchmark>")
		}), oscap.Runner{}, oscap.NothingJudged},
		{"another system", with(func(s *oscap.Scan) {
			s.Root = image(t, []string{"base-files"}, nil)
			if err := os.Remove(filepath.Join(s.Root, "etc/debian_version")); err != nil {
				t.Fatal(err)
			}
		}), oscap.Runner{}, oscap.NothingJudged},
		{"malformed tailoring", with(func(s *oscap.Scan) { s.Tailoring = []byte("<a") }), oscap.Runner{}, oscap.BadTailoring},
		{"too slow", whole, oscap.Runner{Time: time.Second, Program: script(t, "sleep 60 & sleep 60")}, oscap.Timeout},
		{"not there", whole, oscap.Runner{Program: "/nowhere"}, oscap.NoTool},
		{"too much memory", whole, oscap.Runner{Program: script(t, eval("kill -9 $$"))}, oscap.ToolError},
		{"error on stderr", whole, oscap.Runner{Program: script(t, eval(`oscap "$@"; r=$?; echo "x E: y" >&2; exit $r`))}, oscap.ToolError},
		{"exit code", whole, oscap.Runner{Program: script(t, eval(`oscap "$@"; exit 1`))}, oscap.ToolError},
		{"no results", whole, oscap.Runner{Program: script(t, eval("exit 0"))}, oscap.BadOutput},
		{"truncated results", whole, oscap.Runner{Program: script(t, eval(`oscap "$@"; r=$?; truncate -s -100 "$8"; exit $r`))}, oscap.BadOutput},
		{"results with another outcome", whole, oscap.Runner{Program: script(t, eval(`oscap "$@"; r=$?; sed -i 's/<result>fail/<result>pass/' "$8"; exit $r`))}, oscap.BadOutput},
		{"packages of Alpine", with(func(s *oscap.Scan) {
			s.Root = image(t, nil, map[string]string{"lib/apk/db/installed": "P:musl\n", "var/lib/dpkg/status": ""})
		}), oscap.Runner{}, oscap.Packages},
		{"distroless", with(func(s *oscap.Scan) {
			s.Root = image(t, nil, map[string]string{"var/lib/dpkg/status.d/base": "Package: base\n"})
		}), oscap.Runner{}, oscap.Packages},
		{"nothing there", with(func(s *oscap.Scan) { s.Root = t.TempDir() }), oscap.Runner{}, oscap.Packages},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			start := time.Now()
			_, err := test.r.Scan(context.Background(), test.s)
			wantKind(t, err, test.want)
			if took := time.Since(start); took > 20*time.Second {
				t.Errorf("took %v", took)
			}
		})
	}
	left, err := filepath.Glob("/var/tmp/touchstone-oscap-*")
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %q, %v", left, err)
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil || strings.Contains(string(mounts), "touchstone-oscap") {
		t.Errorf("a mount is left behind, or /proc/self/mounts cannot be read: %v", err)
	}
}

// TestPackagePatterns: oscap 1.3.7 takes each package for absent that is asked for by a pattern. Content that does so comes to no result.
func TestPackagePatterns(t *testing.T) {
	needOscap(t)
	b, err := os.ReadFile(small)
	if err != nil {
		t.Fatal(err)
	}
	content := filepath.Join(t.TempDir(), "content.xml")
	pattern := strings.Replace(string(b), "<linux:name>telnet<", `<linux:name operation="pattern match">^telnet$<`, 1)
	if err := os.WriteFile(content, []byte(pattern), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := scan(t, &oscap.Runner{}, oscap.Scan{Content: content, Profile: profile, Root: image(t, []string{"base-files", "telnet"}, nil)})
	if err == nil && outcomes(out.Result)["telnet"] == xccdf.Fail {
		return // a version that knows how
	}
	wantKind(t, err, oscap.CanaryDied)
}

// TestOtherRelease: content for Debian 11 says nothing of a Debian 12, and does not pass it.
func TestOtherRelease(t *testing.T) {
	needOscap(t)
	if _, err := os.Stat(ssg); err != nil {
		t.Fatal("ssg-debian is not installed: scripts/need test")
	}
	s := oscap.Scan{Content: ssg, Profile: "xccdf_org.ssgproject.content_profile_standard"}
	_, err := scan(t, &oscap.Runner{}, s)
	wantKind(t, err, oscap.NothingJudged)
	s.Root, s.Container = image(t, []string{"base-files"}, nil), true
	_, err = scan(t, &oscap.Runner{}, s)
	wantKind(t, err, oscap.NothingJudged)
}

// TestHost: the host itself is scanned with its own packages.
func TestHost(t *testing.T) {
	needOscap(t)
	trap(t)
	dir := t.TempDir()
	s := oscap.Scan{Content: small, Profile: profile, ARF: dir + "/arf.xml", HTML: dir + "/report.html"}
	out, err := scan(t, &oscap.Runner{}, s)
	if err != nil {
		t.Fatal(err)
	}
	want := xccdf.Fail
	if b, err := exec.Command("dpkg-query", "-W", "-f", "${Status}", "apparmor").Output(); err == nil && strings.HasSuffix(string(b), " ok installed") {
		want = xccdf.Pass
	}
	if got := outcomes(out.Result)["apparmor"]; got != want {
		t.Errorf("apparmor on this host: got %s, want %s", got, want)
	}
	arf, err := os.Open(s.ARF)
	if err != nil {
		t.Fatal(err)
	}
	defer arf.Close()
	b, err := xccdf.Extract(arf)
	if err != nil {
		t.Fatal(err)
	}
	if r, err := xccdf.Parse(b); err != nil || outcomes(r)["apparmor"] != want {
		t.Errorf("the ARF has another result: %v", err)
	}
	if i, err := os.Stat(s.HTML); err != nil || i.Size() < 1000 {
		t.Errorf("report: %v", err)
	}
}
