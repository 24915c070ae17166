package admission

import (
	"bytes"
	"flag"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"
)

var update = flag.Bool("update", false, "write the chart's template anew")

const chartTemplate = "../../deploy/helm/touchstone/templates/admission.yaml"

// TestChart: the chart ships these objects. Run it with -update after a change; then test/chart, too.
func TestChart(t *testing.T) {
	got := template(t)
	if *update {
		if err := os.WriteFile(chartTemplate, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(chartTemplate)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s differs from Objects: run this test with -update (-want +got):\n%s", chartTemplate, diff)
	}
}

// template writes the objects with the chart's values in place of options.
func template(t *testing.T) []byte {
	var b bytes.Buffer
	b.WriteString("# Written by the tests of internal/admission (-update) from admission.Objects: do not edit.\n")
	for _, o := range Objects(Options{Namespace: "RELEASE-NAMESPACE", Schedulers: []string{"SCHEDULERS"}}) {
		fields, err := runtime.DefaultUnstructuredConverter.ToUnstructured(o)
		if err != nil {
			t.Fatal(err)
		}
		delete(fields["metadata"].(map[string]any), "creationTimestamp")
		delete(fields, "status")
		text, err := yaml.Marshal(fields)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(text, []byte("{{")) {
			t.Fatalf("%s: helm would take {{ in it for its own:\n%s", o.GetName(), text)
		}
		b.WriteString("---\n")
		b.WriteString(strings.NewReplacer(
			"RELEASE-NAMESPACE", "{{ .Release.Namespace }}",
			"['SCHEDULERS']", `['{{ join "', '" .Values.admission.schedulers }}']`,
		).Replace(string(text)))
	}
	return b.Bytes()
}
