package tailoring_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"touchstone.dev/touchstone/internal/compliance/oscap"
	"touchstone.dev/touchstone/internal/compliance/tailoring"
	"touchstone.dev/touchstone/internal/compliance/xccdf"
)

const (
	values = "testdata/values-ds.xml"
	plain  = "xccdf_x_profile_plain"
	length = "xccdf_x_rule_length"
	other  = "xccdf_x_rule_other"
	least  = "xccdf_x_value_length"
)

func changes(ids ...string) []tailoring.Change {
	var out []tailoring.Change
	for _, id := range ids {
		id, text, _ := strings.Cut(id, "=")
		out = append(out, tailoring.Change{ID: id, Text: text, Reason: "because < & \""})
	}
	return out
}

// root has passwords of 10 characters, and no list of groups.
func root(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{"etc/login.defs": "PASS_MIN_LEN 10\n", "etc/os-release": "ID=x\n"} {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// TestByOscap: the installed oscap does what a tailoring says: rules come and go, and a value decides.
func TestByOscap(t *testing.T) {
	for _, test := range []struct {
		name string
		t    tailoring.Tailoring
		want []string
		kind oscap.Kind
	}{
		{"a longer password", tailoring.Tailoring{Profile: plain, Set: changes(least + "=12")}, []string{length + " fail"}, ""},
		{"a shorter one", tailoring.Tailoring{Profile: plain, Set: changes(least + "=10")}, []string{length + " pass"}, ""},
		{"one rule more", tailoring.Tailoring{Profile: plain, Select: changes(other)}, []string{length + " pass", other + " fail"}, ""},
		{"another rule", tailoring.Tailoring{Profile: plain, Select: changes(other), Deselect: changes(length)}, []string{other + " fail"}, ""},
		{"no rule", tailoring.Tailoring{Profile: plain, Deselect: changes(length)}, nil, oscap.NothingJudged},
		{"a rule that is not there", tailoring.Tailoring{Profile: plain, Select: changes(other + "s")}, nil, oscap.BadTailoring},
		{"a value that is not there", tailoring.Tailoring{Profile: plain, Set: changes(least + "s=1")}, nil, oscap.BadTailoring},
		{"a profile that is not there", tailoring.Tailoring{Profile: plain + "s", Select: changes(other)}, nil, oscap.BadTailoring},
	} {
		t.Run(test.name, func(t *testing.T) {
			if err := test.t.Check(); err != nil {
				t.Fatal(err)
			}
			out, err := (&oscap.Runner{}).Scan(t.Context(), oscap.Scan{Content: values, Profile: test.t.ID(), Tailoring: test.t.Document(), Root: root(t)})
			var e *oscap.Error
			if test.kind != "" {
				if !errors.As(err, &e) || e.Kind != test.kind {
					t.Fatalf("got %v, want %s", err, test.kind)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, r := range out.Result.Rules {
				if r.Outcome != xccdf.NotSelected {
					got = append(got, r.ID+" "+string(r.Outcome))
				}
			}
			if !slices.Equal(got, test.want) || out.Tailoring != test.t.Digest() || out.Result.Profile != test.t.ID() {
				t.Errorf("got %q by tailoring %s of %s, want %q by %s", got, out.Tailoring, out.Result.Profile, test.want, test.t.Digest())
			}
		})
	}
}

// TestDeterministic: order does not count, everything else does.
func TestDeterministic(t *testing.T) {
	a := tailoring.Tailoring{Profile: plain, Select: changes(other, length), Set: changes(least + "=1")}
	b := tailoring.Tailoring{Profile: plain, Select: changes(length, other), Set: changes(least + "=1")}
	if !bytes.Equal(a.Document(), b.Document()) {
		t.Error("the order of rules changes the document")
	}
	b.Set[0].Text = "2"
	if a.Digest() == b.Digest() {
		t.Error("a value does not change the document")
	}
}

func TestCheck(t *testing.T) {
	many := make([]string, tailoring.MaxChanges+1)
	for i := range many {
		many[i] = other + strings.Repeat("s", i%200)
	}
	for want, bad := range map[string]tailoring.Tailoring{
		"want the id of the profile": {Select: changes(other)},
		"0 changes":                  {Profile: plain},
		"2001 changes":               {Profile: plain, Select: changes(many...)},
		"select \"x\"":               {Profile: plain, Select: changes("x")},
		"set \"" + other:             {Profile: plain, Set: changes(other)},
		"named twice":                {Profile: plain, Select: changes(other), Deselect: changes(other)},
		"plain text":                 {Profile: plain, Set: changes(least + "=a\x01")},
		"deselect \"a\\\"/>":         {Profile: plain, Deselect: changes(`a"/><x`)},
	} {
		if err := bad.Check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Check: got %v, want %q", err, want)
		}
	}
}
