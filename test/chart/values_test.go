package chart_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const valuesDoc = "../../docs/reference/helm.md"

// Where the table stands in the document.
const (
	tableBegin = "<!-- values: go test ./test/chart -run TestValuesDocument -update -->\n"
	tableEnd   = "<!-- end of values -->\n"
)

// value is one line of the table.
type value struct{ path, standard, about string }

// documented reads values.yaml as a person does: a comment belongs to the key below it.
func documented(t *testing.T) []value {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(folder, "values.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var out []value
	var keys, comments []string
	lines := strings.Split(string(text), "\n")
	for i := 0; i < len(lines); i++ {
		line := strings.TrimSpace(lines[i])
		depth := (len(lines[i]) - len(strings.TrimLeft(lines[i], " "))) / 2
		switch {
		case line == "":
			comments = nil
			continue
		case strings.HasPrefix(line, "#"):
			comments = append(comments, strings.TrimSpace(strings.TrimPrefix(line, "#")))
			continue
		}
		key, rest, ok := strings.Cut(line, ":")
		if !ok || depth > len(keys) {
			t.Fatalf("values.yaml:%d: %q is not a key that this test can read", i+1, lines[i])
		}
		keys = append(keys[:depth], key)
		v := value{strings.Join(keys, "."), strings.TrimSpace(strings.Split(rest, " #")[0]), strings.Join(comments, " ")}
		comments = nil
		if key == "affinity" { // its own, deep syntax
			for i+1 < len(lines) && len(lines[i+1])-len(strings.TrimLeft(lines[i+1], " ")) > 2*depth {
				i++
			}
			v.standard = "see values.yaml"
		}
		out = append(out, v)
	}
	return out
}

func table(t *testing.T) string {
	t.Helper()
	var b bytes.Buffer
	b.WriteString(tableBegin + "| value | default | what it is |\n|---|---|---|\n")
	for _, v := range documented(t) {
		if v.standard == "" && v.about == "" {
			continue // a section that says nothing of its own
		}
		standard := ""
		if v.standard != "" {
			standard = "`" + v.standard + "`"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", v.path, standard, strings.ReplaceAll(v.about, "|", "\\|"))
	}
	b.WriteString(tableEnd)
	return b.String()
}

// TestValuesDocument: docs/reference/helm.md has every value of the chart, with its default and what values.yaml says of it.
func TestValuesDocument(t *testing.T) {
	text, err := os.ReadFile(valuesDoc)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(text), tableBegin)
	_, after, ended := strings.Cut(rest, tableEnd)
	if !ok || !ended {
		t.Fatalf("%s: want a part between %q and %q", valuesDoc, tableBegin, tableEnd)
	}
	want := before + table(t) + after
	if *update {
		if err := os.WriteFile(valuesDoc, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(want, string(text)); diff != "" {
		t.Errorf("%s differs from values.yaml: run this test with -update (-want +got):\n%s", valuesDoc, diff)
	}
}
