package chart_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"

	"touchstone.dev/touchstone/internal/admission"
)

// plain is an object as its JSON says it, without the fields that are empty for the API server only.
func plain(t *testing.T, object any) map[string]any {
	t.Helper()
	var out map[string]any
	b, err := json.Marshal(object)
	if err == nil {
		err = json.Unmarshal(b, &out)
	}
	if err != nil {
		t.Fatal(err)
	}
	delete(out, "status")
	delete(out["metadata"].(map[string]any), "creationTimestamp")
	return out
}

// TestAdmissionRendered: what is installed, with any namespace and schedulers, is what package admission makes of them.
func TestAdmissionRendered(t *testing.T) {
	o := admission.Options{Namespace: "trust", Schedulers: []string{"system:kube-scheduler", "system:serviceaccount:batch:volcano-scheduler"}}
	out := mustHelm(t, "", "template", "touchstone", folder, "--namespace", o.Namespace,
		"--set", "admission.schedulers={"+strings.Join(o.Schedulers, ",")+"}", "--show-only", "templates/admission.yaml")
	rendered := map[string]map[string]any{}
	for _, document := range strings.Split(out, "\n---\n") {
		var object map[string]any
		if err := yaml.Unmarshal([]byte(document), &object); err != nil {
			t.Fatal(err)
		}
		if object != nil {
			rendered[id(object)] = object
		}
	}
	wanted := map[string]map[string]any{}
	for _, object := range admission.Objects(o) {
		p := plain(t, object)
		wanted[id(p)] = p
	}
	if diff := cmp.Diff(wanted, rendered); diff != "" {
		t.Errorf("admission policies (-package admission +chart):\n%s", diff)
	}
	if len(rendered) < 20 {
		t.Errorf("only %d admission objects are rendered", len(rendered))
	}
}

func id(object map[string]any) string {
	meta, _ := object["metadata"].(map[string]any)
	return fmt.Sprint(object["kind"], " ", meta["name"])
}
