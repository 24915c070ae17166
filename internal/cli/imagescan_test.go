package cli

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"touchstone.dev/touchstone/internal/compliance/content"
)

const (
	smallContent = "../compliance/oscap/testdata/small-ds.xml"
	smallProfile = "xccdf_dev.touchstone_profile_all"
)

// debian makes an image of a Debian 12 with some packages, all of version 1.0-3.
func debian(t *testing.T, packages ...string) v1.Image {
	t.Helper()
	var status strings.Builder
	for _, p := range packages {
		fmt.Fprintf(&status, "Package: %s\nStatus: install ok installed\nMaintainer: x <x@example.org>\nArchitecture: amd64\nVersion: 1.0-3\nDescription: x\n\n", p)
	}
	return imageOf(t, map[string]string{
		"etc/debian_version": "12.15\n", "usr/lib/os-release": "ID=debian\nVERSION_CODENAME=bookworm\n", "var/lib/dpkg/status": status.String(),
	})
}

// imageOf makes an image of files.
func imageOf(t *testing.T, files map[string]string) v1.Image {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for path, text := range files {
		if err := w.WriteHeader(&tar.Header{Name: path, Mode: 0o644, Size: int64(len(text))}); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, text); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.Bytes())), nil })
	if err != nil {
		t.Fatal(err)
	}
	img, err := mutate.ConfigFile(empty.Image, &v1.ConfigFile{OS: "linux", Architecture: "amd64", RootFS: v1.RootFS{Type: "layers"}})
	if err == nil {
		img, err = mutate.AppendLayers(img, l)
	}
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// places writes an image to where images are: a registry, a layout, an archive.
func places(t *testing.T, img v1.Image) []string {
	t.Helper()
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(server.Close)
	ref := strings.TrimPrefix(server.URL, "http://") + "/team/app:1"
	tag, err := name.NewTag(ref, name.Insecure)
	if err == nil {
		err = remote.Write(tag, img)
	}
	dir := t.TempDir()
	if err == nil {
		err = tarball.WriteToFile(filepath.Join(dir, "a.tar"), tag, img)
	}
	if err == nil {
		_, err = layout.Write(filepath.Join(dir, "l"), mutate.AppendManifests(empty.Index, mutate.IndexAddendum{Add: img}))
	}
	if err != nil {
		t.Fatal(err)
	}
	return []string{ref, "oci:" + filepath.Join(dir, "l"), "docker-archive:" + filepath.Join(dir, "a.tar")}
}

// scanFor runs image scan and returns its exit code and what it printed as JSON.
func scanFor(t *testing.T, args ...string) (int, map[string]any, string) {
	t.Helper()
	var out, errs bytes.Buffer
	app := &App{Out: &out, Err: &errs, Now: time.Now}
	code := app.Run(t.Context(), append([]string{"touchstone", "image", "scan", "-o", "json", "--plain-http", "--temp", t.TempDir()}, args...))
	got := map[string]any{}
	if code != ExitUnreadable {
		if err := json.Unmarshal(out.Bytes(), &got); err != nil {
			t.Fatalf("%v: %s %s", err, out.String(), errs.String())
		}
	}
	return code, got, errs.String()
}

// TestImageScan: a clean image passes wherever it is, one with telnet fails by that rule and by no other, by the installed oscap.
func TestImageScan(t *testing.T) {
	policy := filepath.Join(t.TempDir(), "policy.yaml")
	// The rule "not in a container" is there to see that oscap knows that it is in one.
	text := "apiVersion: touchstone.dev/v1alpha1\nkind: TrustPolicy\nmetadata: {name: x}\nspec: {runtime: {compliance: {maxFailed: {low: -1}}}}\n"
	if err := os.WriteFile(policy, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	content := []string{"--content", smallContent, "--profile", smallProfile, "--policy", policy}
	clean := debian(t, "base-files", "apparmor")
	digest, err := clean.Digest()
	if err != nil {
		t.Fatal(err)
	}
	for i, place := range places(t, clean) {
		code, got, said := scanFor(t, append(content, place)...)
		if code != ExitOK || got["passed"] != true {
			t.Errorf("%s: got %d, %v %s, want 0", place, code, got["problems"], said)
		}
		if i < 2 && got["digest"] != digest.String() {
			t.Errorf("%s: got digest %v, want %s", place, got["digest"], digest)
		}
	}
	code, got, _ := scanFor(t, append(content, places(t, debian(t, "base-files", "apparmor", "telnet"))[1])...)
	problems := fmt.Sprint(got["problems"])
	if code != ExitNotTrusted || strings.Count(problems, "expected") != 1 || !strings.Contains(problems, "high rule telnet") {
		t.Errorf("with telnet: got %d, %s", code, problems)
	}
}

// TestImageScanByDefault: without content an image is held against the baseline; one of another system is no pass.
func TestImageScanByDefault(t *testing.T) {
	code, got, said := scanFor(t, places(t, debian(t, "base-files"))[1])
	if code != ExitOK || got["passed"] != true || !strings.Contains(fmt.Sprint(got["Scan"]), content.Digest()) {
		t.Errorf("a sound image: got %d, %v %s", code, got, said)
	}
	place := places(t, debian(t, "base-files", "telnet"))[1]
	for _, args := range [][]string{{place}, {"--content", content.Name, place}, {"--profile", content.Image, place}} {
		if code, got, said := scanFor(t, args...); code != ExitNotTrusted || !strings.Contains(fmt.Sprint(got["problems"]), "no_telnet") {
			t.Errorf("%v, with telnet: got %d, %v %s", args, code, got["problems"], said)
		}
	}
	for name, files := range map[string]map[string]string{
		"rpm": {"etc/os-release": "ID=fedora\n", "var/lib/rpm/rpmdb.sqlite": "x"}, "apk": {"etc/os-release": "ID=alpine\n", "lib/apk/db/installed": "x"}, "no system": {"app": "x"},
	} {
		if code, got, said := scanFor(t, places(t, imageOf(t, files))[1]); code != ExitUnreadable {
			t.Errorf("%s: got %d, %v %s, want that it could not be scanned", name, code, got, said)
		}
	}
}

// feedFor says that base-files before 1.0-4 has a flaw.
const feedFor = `<oval_definitions><generator><timestamp>%s</timestamp></generator><definitions><definition class="vulnerability" id="d"><metadata>
<reference ref_id="CVE-2026-1" source="CVE"/><advisory><severity>High</severity></advisory></metadata><criteria><criterion test_ref="t"/></criteria></definition></definitions>
<tests><dpkginfo_test id="t" check="all"><object object_ref="o"/><state state_ref="s"/></dpkginfo_test></tests>
<objects><dpkginfo_object id="o"><name>base-files</name></dpkginfo_object></objects>
<states><dpkginfo_state id="s"><evr datatype="debian_evr_string" operation="less than">0:1.0-4</evr></dpkginfo_state></states></oval_definitions>`

func TestImageScanFeed(t *testing.T) {
	dir := t.TempDir()
	write := func(made time.Time) {
		if err := os.WriteFile(filepath.Join(dir, "oval-definitions-bookworm.xml"), fmt.Appendf(nil, feedFor, made.UTC().Format(time.RFC3339)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(time.Now().Add(-time.Hour))
	place := places(t, debian(t, "base-files"))[1]
	code, got, said := scanFor(t, "--feed", dir, place)
	if code != ExitNotTrusted || !strings.Contains(fmt.Sprint(got["problems"]), "1 vulnerability of severity high") {
		t.Errorf("got %d, %v %s", code, got, said)
	}
	if code, got, said = scanFor(t, "--feed", dir, "--max-flaws", "high=1", place); code != ExitOK {
		t.Errorf("within the budget: got %d, %v %s", code, got, said)
	}
	write(time.Now().AddDate(0, -1, 0))
	if code, _, said = scanFor(t, "--feed", dir, place); code != ExitUnreadable || !strings.Contains(said, "fetch a new one") {
		t.Errorf("an old feed: got %d, %s", code, said)
	}
	for _, args := range [][]string{{"--content", smallContent, place}, {"--feed", t.TempDir(), place}, {"--feed", dir, "oci:/nowhere"}, {"--profile", "x", place}} {
		if code, _, said := scanFor(t, args...); code != ExitUnreadable {
			t.Errorf("%v: got %d, %s, want %d", args, code, said, ExitUnreadable)
		}
	}
}
