package chart_test

import (
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"touchstone.dev/touchstone/internal/agent"
	"touchstone.dev/touchstone/internal/authority"
	"touchstone.dev/touchstone/internal/imagebuild"
)

// rendered is what these tests look at in a manifest.
type rendered struct {
	Kind     string
	Metadata struct{ Name string }
	Data     map[string]string
	Spec     struct {
		Template struct {
			Spec struct {
				Containers []container
			}
		}
	}
}

type container struct {
	Name, Image   string
	Command, Args []string
}

// objects renders the chart and reads each document.
func objects(t *testing.T, set string) []rendered {
	t.Helper()
	out := mustHelm(t, "", append([]string{"template", "touchstone", folder, "--namespace", namespace}, valuesArgs(set)...)...)
	var all []rendered
	for _, document := range strings.Split(out, "\n---\n") {
		var r rendered
		if err := yaml.Unmarshal([]byte(document), &r); err != nil {
			t.Fatalf("%v in:\n%s", err, document)
		}
		all = append(all, r)
	}
	return all
}

// program returns the program that a container runs, out of what its image holds.
func (c container) program(t *testing.T) string {
	t.Helper()
	for _, spec := range imagebuild.Specs {
		if !strings.Contains(c.Image, "/"+spec.Name+":") {
			continue
		}
		if len(c.Command) == 0 {
			return spec.Programs[0]
		}
		if name := strings.TrimPrefix(c.Command[0], "/usr/bin/"); slices.Contains(spec.Programs, name) {
			return name
		}
		t.Fatalf("container %s runs %q, which image %s does not hold", c.Name, c.Command, spec.Name)
	}
	t.Fatalf("container %s: nobody makes image %s", c.Name, c.Image)
	return ""
}

// TestArguments: each argument of a container is one that its program knows.
func TestArguments(t *testing.T) {
	bin := t.TempDir()
	if out, err := exec.Command("go", "build", "-o", bin+"/", "../../cmd/...").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	seen := map[string]bool{}
	for _, set := range values {
		for _, o := range objects(t, set) {
			for _, c := range o.Spec.Template.Spec.Containers {
				name := c.program(t)
				seen[name] = true
				words := slices.DeleteFunc(slices.Clone(c.Args), func(a string) bool { return strings.HasPrefix(a, "-") })
				help, err := exec.Command(filepath.Join(bin, name), append(words, "--help")...).CombinedOutput()
				if err != nil {
					t.Errorf("%s %q: %v\n%s", name, words, err, help)
				}
				for _, a := range c.Args {
					flag, _, _ := strings.Cut(a, "=")
					if strings.HasPrefix(a, "-") && !regexp.MustCompile(`(?m)^\s+(-\w, )?`+regexp.QuoteMeta(flag)+`\b`).Match(help) {
						t.Errorf("values %s: %s %s does not know %s", set, name, words, flag)
					}
				}
			}
		}
	}
	for _, name := range []string{"aias", "trust-agent", "trust-controller", "tpm-device-plugin"} {
		if !seen[name] {
			t.Errorf("no container runs %s", name)
		}
	}
}

// TestConfigurations: the programs understand the configuration that the chart writes for them.
func TestConfigurations(t *testing.T) {
	for _, set := range values {
		found := 0
		for _, o := range objects(t, set) {
			if text, ok := o.Data["aias.yaml"]; ok {
				found++
				if _, err := authority.ParseConfig([]byte(text)); err != nil {
					t.Errorf("values %s: %v in\n%s", set, err, text)
				}
			}
			if text, ok := o.Data["trust-agent.yaml"]; ok {
				found++
				c := agent.Defaults()
				if err := yaml.UnmarshalStrict([]byte(text), &c); err != nil {
					t.Errorf("values %s: %v in\n%s", set, err, text)
				}
				c.Server = "https://192.0.2.1:8443" // an argument
				if err := c.Validate(); err != nil {
					t.Errorf("values %s: %v in\n%s", set, err, text)
				}
			}
		}
		if found != 2 {
			t.Errorf("values %s: %d configurations, want 2", set, found)
		}
	}
}
