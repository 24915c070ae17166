package release

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"touchstone.dev/touchstone/internal/appraisal"
	"touchstone.dev/touchstone/internal/result"
)

var now = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

func minutes(m int) *Duration {
	d := Duration(time.Duration(m) * time.Minute)
	return &d
}

func sample(change ...func(*result.Result)) result.Result {
	r := result.Result{
		Node: "worker-1", Trusted: true, Tags: map[string]string{"country": "de"}, Issued: now.Add(-time.Minute), Expires: now.Add(4 * time.Minute),
	}
	for i, name := range appraisal.LevelNames {
		r.Levels = append(r.Levels, result.Level{Level: i + 1, Name: name, Status: appraisal.Pass})
	}
	for _, f := range change {
		f(&r)
	}
	return r
}

func level(l int, s appraisal.Status, reason string) func(*result.Result) {
	return func(r *result.Result) { r.Levels[l-1].Status, r.Levels[l-1].Reason = s, reason }
}

// of is what a result says of its node.
func of(r *result.Result) Node {
	n := Node{
		Valid: true, SoftwareTPM: r.SoftwareTPM, Tags: r.Tags, Issued: r.Issued, Expires: r.Expires,
		Levels: make(map[int32]string, len(r.Levels)), Reasons: make(map[int32]string, len(r.Levels)),
	}
	for _, l := range r.Levels {
		n.Levels[int32(l.Level)], n.Reasons[int32(l.Level)] = string(l.Status), l.Reason
	}
	return n
}

func TestMeets(t *testing.T) {
	tags := func(m map[string][]string) Conditions { return Conditions{Tags: m} }
	tests := []struct {
		name string
		c    Conditions
		r    result.Result
		want []string // parts of the reasons, in order; none when it is released
	}{
		{"strict", Conditions{}, sample(), nil},
		{"no result at all", Conditions{Levels: []int32{1}, SoftwareTPM: Allow}, result.Result{}, []string{"expired", "level 1 is unknown"}},
		{"a level fails, with its reason", Conditions{}, sample(level(4, appraisal.Fail, "unsigned module x.ko")), []string{"level 4 is fail (unsigned module x.ko)"}},
		{"a level that does not matter", Conditions{Levels: []int32{3, 1}}, sample(level(4, appraisal.Fail, "")), nil},
		{"everything at once", Conditions{MaxResultAge: minutes(1), Tags: map[string][]string{"country": {"fr"}}},
			sample(level(1, appraisal.Fail, ""), level(2, appraisal.Unknown, ""), func(r *result.Result) { r.SoftwareTPM, r.Expires = true, now }),
			[]string{"expired", "level 1 is fail", "level 2 is unknown", "TPM is a program", "older than 1m0s", "tag country is de, want fr"}},
		{"warnings", Conditions{}, sample(level(1, appraisal.Warn, "")), nil},
		{"warnings denied", Conditions{Warnings: Deny}, sample(level(1, appraisal.Warn, "")), []string{"level 1 is warn"}},
		{"software TPM allowed", Conditions{SoftwareTPM: Allow}, sample(func(r *result.Result) { r.SoftwareTPM = true }), nil},
		{"a word that is none is no leave", Conditions{SoftwareTPM: "allow"}, sample(func(r *result.Result) { r.SoftwareTPM = true }), []string{"program"}},
		{"old enough", Conditions{MaxResultAge: minutes(2)}, sample(), nil},
		{"tag", tags(map[string][]string{"country": {"fr", "de"}}), sample(), nil},
		{"tag that is not there", tags(map[string][]string{"owner": {"a", "b"}}), sample(), []string{"tag owner is not proven, want a or b"}},
		{"trusted as a word alone", Conditions{}, sample(func(r *result.Result) { r.Levels = r.Levels[:4] }), []string{"level 5 is unknown"}},
	}
	for _, tt := range tests {
		a := Meets(&tt.c, of(&tt.r), now)
		ok, reasons := a.Meets, a.Missing
		if ok != (len(tt.want) == 0) || len(reasons) != len(tt.want) {
			t.Errorf("%s: Meets(): got %v %q, want %q", tt.name, ok, reasons, tt.want)
			continue
		}
		for i, want := range tt.want {
			if !strings.Contains(reasons[i], want) {
				t.Errorf("%s: Meets(): reason %d is %q, want %q", tt.name, i, reasons[i], want)
			}
		}
	}
}

// TestParse: what is written is read, and what is not understood is never "no condition".
func TestParse(t *testing.T) {
	want := Conditions{Levels: []int32{1, 5}, Warnings: Deny, SoftwareTPM: Allow, MaxResultAge: minutes(10), Tags: map[string][]string{"country": {"de", "fr"}}}
	b, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	got, err := Parse(b)
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("Parse(%s): %v, differs:\n%s", b, err, diff)
	}
	refused := map[string]string{
		"empty":          ``,
		"unknown field":  `{"level":[1]}`,
		"level 6":        `{"levels":[6]}`,
		"level twice":    `{"levels":[1,1]}`,
		"word":           `{"warnings":"deny"}`,
		"software TPM":   `{"softwareTPM":"yes"}`,
		"age":            `{"maxResultAge":"soon"}`,
		"age zero":       `{"maxResultAge":"0s"}`,
		"tag no value":   `{"tags":{"country":[]}}`,
		"tag name":       `{"tags":{"a b":["x"]}}`,
		"two documents":  `{}{}`,
		"list":           `[]`,
		"larger than is": `{"tags":{"a":["` + strings.Repeat("x", maxBytes) + `"]}}`,
	}
	for _, name := range slices.Sorted(maps.Keys(refused)) {
		if c, err := Parse([]byte(refused[name])); err == nil {
			t.Errorf("Parse(%s): got %+v, want an error", name, c)
		}
	}
}

// FuzzParse: conditions that were read are valid, and stay the same when they are written and read again.
func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"levels":[1,5],"warnings":"Deny","maxResultAge":"10m0s","tags":{"country":["de"]}}`))
	f.Add([]byte(`{}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := Parse(b)
		if err != nil {
			return
		}
		again, err := json.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		d, err := Parse(again)
		if err != nil || len(again) <= maxBytes && !slices.Equal(c.Levels, d.Levels) {
			t.Errorf("Parse(%s): read %+v, again %+v, %v", b, c, d, err)
		}
		r := sample(level(1, appraisal.Fail, ""))
		a := Meets(&c, of(&r), now)
		if ok, reasons := a.Meets, a.Missing; ok && (len(c.Levels) == 0 || slices.Contains(c.Levels, 1)) || ok != (len(reasons) == 0) {
			t.Errorf("Meets(%s): released with level 1 failed", b)
		}
	})
}
