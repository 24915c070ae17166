// Package chart_test renders the Helm chart with the real helm and installs it into a real API server.
package chart_test

import (
	"bytes"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"touchstone.dev/touchstone/internal/kubetest"
)

var update = flag.Bool("update", false, "write the golden files anew")

const (
	folder    = "../../deploy/helm/touchstone"
	namespace = "touchstone"
)

// helm runs helm with an empty home of its own.
func helm(t *testing.T, kubeconfig string, args ...string) (stdout string, err error) {
	t.Helper()
	home := t.TempDir()
	cmd := exec.Command(filepath.Join(kubetest.Programs(t, "helm"), "helm"), args...)
	cmd.Env = []string{"HOME=" + home, "PATH=/nonexistent", "KUBECONFIG=" + kubeconfig}
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err = cmd.Run(); err != nil {
		err = &failed{err, errs.String()}
	}
	return out.String(), err
}

// failed is an error of helm with what it said.
type failed struct {
	error
	said string
}

func (f *failed) Error() string { return f.error.Error() + ": " + f.said }
func (f *failed) Unwrap() error { return f.error }

func mustHelm(t *testing.T, kubeconfig string, args ...string) string {
	t.Helper()
	out, err := helm(t, kubeconfig, args...)
	if err != nil {
		t.Fatalf("helm %s: %v", strings.Join(args, " "), err)
	}
	return out
}

// values are the sets of values that the tests render: files in testdata, beside the defaults.
var values = []string{"default", "laboratory", "everything"}

func valuesArgs(set string) []string {
	if set == "default" {
		return nil
	}
	return []string{"--values", filepath.Join("testdata", set+".yaml")}
}

func TestLint(t *testing.T) {
	for _, set := range values {
		out, err := helm(t, "", append([]string{"lint", "--strict", folder}, valuesArgs(set)...)...)
		if err != nil || strings.Contains(out, "[WARNING]") || strings.Contains(out, "[ERROR]") {
			t.Errorf("helm lint, values %s: %v\n%s", set, err, out)
		}
	}
}

// TestGolden renders the chart, without the admission policies, which TestAdmissionRendered looks at; -update writes what it renders.
func TestGolden(t *testing.T) {
	for _, set := range values {
		got := mustHelm(t, "", append([]string{"template", "touchstone", folder, "--namespace", namespace}, valuesArgs(set)...)...)
		got = withoutAdmission(got)
		path := filepath.Join("testdata", set+".golden.yaml")
		if *update {
			if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), got); diff != "" {
			t.Errorf("values %s: the chart renders something else; if that is right, run this test with -update (-want +got):\n%s", set, diff)
		}
	}
}

// withoutAdmission drops the documents of one template.
func withoutAdmission(rendered string) string {
	documents := strings.Split(rendered, "---\n")
	return strings.Join(slices.DeleteFunc(documents, func(d string) bool {
		return strings.HasPrefix(d, "# Source: touchstone/templates/admission.yaml\n")
	}), "---\n")
}

// TestRefusals: values that would not do what they seem to say are refused before anything is installed.
func TestRefusals(t *testing.T) {
	for _, tc := range []struct{ name, set, want string }{
		{"unknown value", "aias.replica=1", "additional properties 'replica' not allowed"},
		{"unknown section", "agents.enabled=false", "additional properties 'agents' not allowed"},
		{"two writers of one SQLite", "aias.replicas=2", "/aias/replicas"},
		{"word", "enforcement.otherPods=Leave", "/enforcement/otherPods"},
		{"breaker without effect", "enforcement.breaker.maxShare=0", "/enforcement/breaker/maxShare"},
		{"duration", "enforcement.breaker.window=60", "/enforcement/breaker/window"},
		{"class name too long for a label", "classes." + strings.Repeat("a", 41) + ".warnings=Deny", "propertyName"},
		{"class name", "classes.Regulated.warnings=Deny", "propertyName"},
		{"class field", "classes.regulated.level=1", "additional properties 'level' not allowed"},
		{"class level", "classes.regulated.levels={6}", "/classes/regulated/levels"},
		{"expression for a scheduler", "admission.schedulers={a'b}", "/admission/schedulers/0"},
		{"no scheduler", "admission.schedulers=null", "missing property 'schedulers'"},
		{"digest", "image.digests.aias=sha256:12", "/image/digests/aias"},
		{"digest of an image that does not exist", "image.digests.agent=sha256:" + strings.Repeat("0", 64), "additional properties 'agent' not allowed"},
		{"tag", "image.tag=a:b", "/image/tag"},
		{"relative path", "agent.host.state=var/lib", "/agent/host/state"},
		{"a way to privileged", "agent.capabilities={SYS_ADMIN}", "/agent/capabilities"},
		{"not a certificate", "aias.softwareTPMRoots.a=x", "/aias/softwareTPMRoots/a"},
		{"option of the chart", "aias.config.listen=:1", "aias.config.listen: the chart sets it"},
		{"option of the chart", "agent.config.hostRoot=/", "agent.config.hostRoot: the chart sets it"},
	} {
		_, err := helm(t, "", "template", folder, "--set", tc.set)
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: --set %s: got %v, want %q", tc.name, tc.set, err, tc.want)
		}
	}
}

// eventually waits until a condition holds: the API server sees new admission policies a moment after they are there.
func eventually(t *testing.T, condition func() error) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		err := condition()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Error(err)
			return
		}
	}
}
