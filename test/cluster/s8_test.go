//go:build cluster

package cluster

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	core "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"touchstone.dev/touchstone/api/v1alpha1"
	"touchstone.dev/touchstone/internal/compliance/content"
)

// gated is what the scenario of scanned images works with.
type gated struct {
	*tenant
	w        *Worker
	registry string // host:port, as the workers and the machine see it
	program  string // touchstone
	feeds    string // folder
}

const telnetRule = "xccdf_dev.touchstone_rule_no_telnet"

// TestS8: a class that asks for scans of images takes those that passed, and no others; a waiver lets one in until it ends.
func TestS8(t *testing.T) {
	s := installed(t)
	ctx := t.Context()
	g := &gated{w: s.Workers[1], feeds: filepath.Join(s.dir, "feeds")}
	must(t, s.Client.Create(ctx, &v1alpha1.TrustClass{ObjectMeta: objectMeta("", "scanned"), Spec: v1alpha1.TrustClassSpec{
		SoftwareTPM: v1alpha1.Allow, Images: v1alpha1.ImageRequirement{Compliance: &v1alpha1.ComplianceRequirement{
			Profile: content.Image, Content: []string{content.Name}, MaxAge: metav1.Duration{Duration: time.Hour},
		}},
	}}))
	t.Cleanup(func() {
		_ = s.Client.Delete(context.Background(), &v1alpha1.TrustClass{ObjectMeta: objectMeta("", "scanned")})
	})
	g.tenant = s.newTenant(t, "scans", "scanned")
	g.registry = s.openRegistry(t)
	must(t, g.w.pullsFrom(g.registry))
	var err error
	g.program, err = s.Build(ctx, "touchstone")
	must(t, err)
	sound, weak := g.push(t, "sound", "base-files"), g.push(t, "weak", "base-files", "telnet")

	t.Run("never scanned", func(t *testing.T) { g.never(t, sound) })
	t.Run("scanned", func(t *testing.T) { g.passes(t, sound) })
	t.Run("weakened", func(t *testing.T) { g.weakened(t, weak) })
	t.Run("vulnerable", func(t *testing.T) { g.vulnerable(t, sound) })
	t.Run("too old", func(t *testing.T) {
		g.ask(t, func(c *v1alpha1.ComplianceRequirement) { c.MaxAge.Duration = time.Second })
		g.no(t, "old", sound, "the compliance scan is too old")
		g.ask(t, func(c *v1alpha1.ComplianceRequirement) { c.MaxAge.Duration = time.Hour })
	})
	t.Run("its objects go", func(t *testing.T) {
		var all v1alpha1.ImageTrustList
		must(t, s.Client.List(ctx, &all))
		if len(all.Items) != 2 {
			t.Errorf("%d ImageTrusts, want that of the sound image and that of the weak one", len(all.Items))
		}
		began := time.Now()
		must(t, s.Client.DeleteAllOf(ctx, &core.Pod{}, client.InNamespace(g.name), client.GracePeriodSeconds(0)))
		must(t, until(ctx, "no ImageTrust is left", podTime, nil, func(ctx context.Context) error {
			if err := s.Client.List(ctx, &all); err != nil || len(all.Items) == 0 {
				return err
			}
			return fmt.Errorf("there are %d", len(all.Items))
		}))
		s.logf("S8 the ImageTrusts are gone %.2f s after the pods", time.Since(began).Seconds())
	})
}

// never: nobody has scanned the image. The refusal says what to do, and that is what passes does.
func (g *gated) never(t *testing.T, image string) {
	began := time.Now()
	g.no(t, "unknown", image, "touchstone image scan "+image+" --content baseline --submit")
	g.logf("S8 refused after %.3f s", time.Since(began).Seconds())
}

func (g *gated) passes(t *testing.T, image string) {
	must(t, g.scan(t, image, 0))
	began := time.Now()
	must(t, g.yes(t, "sound", image))
	g.logf("S8 admitted %.2f s after its scan", time.Since(began).Seconds())
	must(t, g.PodsReady(t.Context(), g.name, "sound"))
	it, err := g.image(t.Context(), image, metav1.ConditionTrue, "")
	must(t, err)
	if st := it.Status; st.Pods != 1 || st.Image != image || len(st.Scans) != 1 || st.Scans[0].Passed == 0 || st.FailedSummary != "0H 0M 0L" {
		t.Errorf("the ImageTrust says %+v", st)
	}
	forged := &v1alpha1.ImageTrust{ObjectMeta: objectMeta("", v1alpha1.ImageTrustName("sha256:"+strings.Repeat("0", 64)))}
	g.refused(t, "an ImageTrust made by an administrator", g.Client.Create(t.Context(), forged), "only the trust-controller writes imagetrusts")
}

// weakened: a rule fails; a waiver for the repository lets the image in, and ends.
func (g *gated) weakened(t *testing.T, image string) {
	ctx := t.Context()
	must(t, g.scan(t, image, 1))
	g.no(t, "weak", image, "high rule no_telnet: fails")
	ends := time.Now().Add(45 * time.Second).Truncate(time.Second)
	repository, _, _ := strings.Cut(image, "@")
	g.ask(t, func(c *v1alpha1.ComplianceRequirement) {
		c.Waivers = []v1alpha1.ImageWaiver{{Rule: telnetRule, Repository: repository, Reason: "ticket 4711", Owner: "ops", Until: metav1.NewTime(ends)}}
	})
	must(t, g.yes(t, "waived", image))
	must(t, g.PodsReady(ctx, g.name, "waived"))
	it, err := g.image(ctx, image, metav1.ConditionTrue, "")
	must(t, err)
	if c := it.Status.Classes; len(c) != 1 || c[0].Waived != 1 || c[0].Until == nil || !c[0].Until.Time.Equal(ends) {
		t.Errorf("the ImageTrust says of classes %+v, want a waiver until %s", c, ends)
	}
	time.Sleep(time.Until(ends))
	g.no(t, "late", image, "the waiver of ops for "+telnetRule+" ended")
	_, err = g.image(ctx, image, metav1.ConditionFalse, "the waiver of ops")
	must(t, err)
	g.logf("S8 the waiver ended, and the ImageTrust says so %.2f s later", time.Since(ends).Seconds())
	running, err := g.running(ctx, g.name, "waived")
	if len(running[g.w.Name]) != 1 {
		t.Errorf("the pod that ran under the waiver: got %v (%v), want it still there", running, err)
	}
}

// vulnerable: a class that asks for vulnerabilities wants them looked for, and none there that a fix mends.
func (g *gated) vulnerable(t *testing.T, image string) {
	g.ask(t, func(c *v1alpha1.ComplianceRequirement) {
		c.Vulnerabilities = &v1alpha1.VulnerabilityRequirement{Unfixed: v1alpha1.Ignore, Max: v1alpha1.VulnerabilityCounts{Medium: -1, Low: -1, Unknown: -1}}
	})
	g.no(t, "unlooked", image, "AIAS knows of no look for vulnerabilities in this digest")
	must(t, writeFiles(g.feeds, map[string][]byte{"oval-definitions-bookworm.xml": fmt.Appendf(nil, feed, time.Now().Add(-time.Hour).UTC().Format(time.RFC3339))}))
	must(t, g.scan(t, image, 1, "--feed", g.feeds))
	g.no(t, "vulnerable", image, "CVE-2026-1 (base-files 1.0-3, mended in 1.0-4)")
	g.ask(t, func(c *v1alpha1.ComplianceRequirement) {
		c.Waivers = []v1alpha1.ImageWaiver{{Vulnerability: "CVE-2026-1", Reason: "not reachable", Owner: "ops", Until: metav1.NewTime(time.Now().Add(time.Hour))}}
	})
	must(t, g.yes(t, "tolerated", image))
	g.ask(t, func(c *v1alpha1.ComplianceRequirement) { c.Vulnerabilities = nil }) // the waiver stays: what a scan names counts
}

// feed says that base-files before 1.0-4 has a flaw.
const feed = `<oval_definitions><generator><timestamp>%s</timestamp></generator><definitions><definition class="vulnerability" id="d"><metadata>
<reference ref_id="CVE-2026-1" source="CVE"/><advisory><severity>High</severity></advisory></metadata><criteria><criterion test_ref="t"/></criteria></definition></definitions>
<tests><dpkginfo_test id="t" check="all"><object object_ref="o"/><state state_ref="s"/></dpkginfo_test></tests>
<objects><dpkginfo_object id="o"><name>base-files</name></dpkginfo_object></objects>
<states><dpkginfo_state id="s"><evr datatype="debian_evr_string" operation="less than">0:1.0-4</evr></dpkginfo_state></states></oval_definitions>`

// ask changes what the class asks.
func (g *gated) ask(t *testing.T, change func(*v1alpha1.ComplianceRequirement)) {
	t.Helper()
	tc := &v1alpha1.TrustClass{}
	must(t, until(t.Context(), "the class is changed", podTime, nil, func(ctx context.Context) error {
		if err := g.Client.Get(ctx, client.ObjectKey{Name: "scanned"}, tc); err != nil {
			return err
		}
		change(tc.Spec.Images.Compliance)
		return g.Client.Update(ctx, tc)
	}))
}

// of is a pod of an image.
func (g *gated) of(name, image string) *core.Pod {
	return g.pod(name, onWorker(g.w), func(p *core.Pod) {
		p.Spec.Containers[0].Image, p.Spec.Containers[0].ImagePullPolicy = image, core.PullIfNotPresent
	})
}

// yes makes a pod of an image; what the webhook knows of the class and the image is moments old.
func (g *gated) yes(t *testing.T, name, image string) error {
	t.Helper()
	return until(t.Context(), "pod "+name+" is admitted", podTime, nil, func(ctx context.Context) error { return g.alice.Create(ctx, g.of(name, image)) })
}

// replicas is how often in a row something must be refused until every replica of the controller, each with a memory of its own, has seen what changed.
const replicas = 6

// no waits until a pod of an image is refused with words, by all replicas. Were it admitted once, before the class is known to have changed, it would say nothing.
func (g *gated) no(t *testing.T, name, image, words string) {
	t.Helper()
	must(t, until(t.Context(), "pod "+name+" is refused with "+words, podTime, nil, func(ctx context.Context) error {
		for range replicas {
			if err := g.alice.Create(ctx, g.of(name, image), client.DryRunAll); err == nil || !strings.Contains(err.Error(), words) {
				return errors.Join(errors.New("another answer"), err)
			}
		}
		return nil
	}))
	g.refused(t, "pod "+name, g.alice.Create(t.Context(), g.of(name, image)), words)
}

// scan scans an image as a job of CI does, and expects an exit code.
func (g *gated) scan(t *testing.T, image string, want int, more ...string) error {
	t.Helper()
	began := time.Now()
	args := append([]string{"--operator", g.aias.Bundle, "image", "scan", image, "--plain-http", "--content", content.Name, "--submit"}, more...)
	out, err := output(t.Context(), g.program, args...)
	code := 0
	if exit := new(exec.ExitError); errors.As(err, &exit) {
		code = exit.ExitCode()
	} else if err != nil {
		return err
	}
	if code != want || !strings.Contains(string(out), "AIAS has the result") {
		return errors.Join(fmt.Errorf("touchstone image scan: exit code %d, want %d: %s", code, want, out), err)
	}
	g.logf("S8 scanned and submitted in %.2f s", time.Since(began).Seconds())
	return nil
}

// image waits for what the ImageTrust of an image says.
func (g *gated) image(ctx context.Context, image string, want metav1.ConditionStatus, words string) (*v1alpha1.ImageTrust, error) {
	_, digest, _ := strings.Cut(image, "@")
	it := &v1alpha1.ImageTrust{}
	return it, until(ctx, "ImageTrust of "+image+" is accepted: "+string(want), podTime, nil, func(ctx context.Context) error {
		if err := g.Client.Get(ctx, client.ObjectKey{Name: v1alpha1.ImageTrustName(digest)}, it); err != nil {
			return err
		}
		c := meta.FindStatusCondition(it.Status.Conditions, v1alpha1.ConditionAccepted)
		if c == nil || c.Status != want || !strings.Contains(c.Message, words) {
			return fmt.Errorf("it says %+v", it.Status)
		}
		return nil
	})
}

// push puts an image of a small Debian with some packages into the registry, and returns its name by digest.
func (g *gated) push(t *testing.T, repository string, packages ...string) string {
	t.Helper()
	var status strings.Builder
	for _, p := range packages {
		fmt.Fprintf(&status, "Package: %s\nStatus: install ok installed\nMaintainer: x <x@example.org>\nArchitecture: amd64\nVersion: 1.0-3\nDescription: x\n\n", p)
	}
	entries := []entry{{tar.Header{Typeflag: tar.TypeDir, Name: "tmp/", Mode: 0o1777}, nil}}
	for _, f := range [][2]string{{"etc/debian_version", "12.15\n"}, {"usr/lib/os-release", "ID=debian\nVERSION_CODENAME=bookworm\n"}, {"var/lib/dpkg/status", status.String()}} {
		entries = append(entries, entry{tar.Header{Typeflag: tar.TypeReg, Name: f[0], Mode: 0o644}, []byte(f[1])})
	}
	programs, err := busyboxLayer()
	must(t, err)
	debian, err := layerOf(entries...)
	must(t, err)
	img, err := mutate.ConfigFile(empty.Image, &v1.ConfigFile{OS: "linux", Architecture: runtime.GOARCH, Config: v1.Config{Entrypoint: []string{"/bin/sh"}, Env: []string{"PATH=/bin"}}, RootFS: v1.RootFS{Type: "layers"}})
	must(t, err)
	img, err = mutate.AppendLayers(img, programs, debian)
	must(t, err)
	tag, err := name.NewTag(g.registry+"/"+repository+":1", name.Insecure)
	must(t, err)
	must(t, remote.Write(tag, img, remote.WithContext(t.Context())))
	digest, err := img.Digest()
	must(t, err)
	return g.registry + "/" + repository + "@" + digest.String()
}
