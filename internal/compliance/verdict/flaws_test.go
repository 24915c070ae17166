package verdict

import (
	"strings"
	"testing"
	"time"
)

func TestJudgeFlaws(t *testing.T) {
	flaw := func(id, severity, fixed string) Flaw {
		return Flaw{ID: id, Severity: severity, Package: "openssl", Installed: "3.0-1", Fixed: fixed}
	}
	waiver := func(until time.Time) []Waiver {
		return []Waiver{{Rule: "CVE-1", Until: now.Add(time.Hour)}, {Flaw: "CVE-1", Reason: "ticket 4711", Owner: "ops", Until: until}}
	}
	critical, unfixed, low := flaw("CVE-1", "critical", "3.0-2"), flaw("CVE-2", "high", ""), flaw("CVE-3", "low", "3.0-2")
	fresh := Flaws{Made: now.Add(-25 * time.Hour), At: now.Add(-time.Hour)}
	for name, c := range map[string]struct {
		rules FlawRules
		found []Flaw
		want  string // beginnings of the problems' messages, by ;
	}{
		"none":                      {FlawRules{}, nil, ""},
		"the zero value takes none": {FlawRules{}, []Flaw{critical, unfixed, low}, "1 vulnerability of severity critical;1 vulnerability of severity high;1 vulnerability of severity low"},
		"within":                    {FlawRules{Max: FlawBudget{"low": 1}}, []Flaw{low}, ""},
		"over":                      {FlawRules{Max: FlawBudget{"low": 1}}, []Flaw{low, low}, "2 vulnerabilities of severity low"},
		"any number":                {FlawRules{Max: FlawBudget{"low": -1}}, []Flaw{low, low}, ""},
		"no version mends it":       {FlawRules{IgnoreUnfixed: true}, []Flaw{unfixed, critical}, "1 vulnerability of severity critical"},
		"waived":                    {FlawRules{Waivers: waiver(now.Add(time.Second))}, []Flaw{critical}, ""},
		"waived, for another one":   {FlawRules{Waivers: waiver(now.Add(time.Second))}, []Flaw{unfixed}, "1 vulnerability of severity high"},
		"the waiver has ended":      {FlawRules{Waivers: waiver(now)}, []Flaw{critical}, "1 vulnerability of severity critical"},
		"an unheard-of severity":    {FlawRules{Max: FlawBudget{"worst": -1}}, []Flaw{flaw("CVE-4", "worst", "")}, "1 vulnerability of severity worst"},
		"looked too long ago":       {FlawRules{MaxAge: time.Minute}, nil, "the look for vulnerabilities is too old"},
		"by an old feed":            {FlawRules{FeedAge: 23 * time.Hour}, nil, "the feed of vulnerabilities was too old"},
		"by a feed of the day":      {FlawRules{FeedAge: 24 * time.Hour, MaxAge: time.Hour}, nil, ""},
	} {
		f := fresh
		f.Found = c.found
		j := JudgeFlaws(&c.rules, &f, now)
		var got []string
		for _, p := range j.Problems {
			got = append(got, p.Message)
			if p.Expected == "" || p.Observed == "" || p.Cause == "" || p.Remedy == "" {
				t.Errorf("%s: a problem that does not explain itself: %+v", name, p)
			}
		}
		if said := strings.Join(got, ";"); said != c.want || j.Good() != (c.want == "") {
			t.Errorf("%s: got %q, want %q", name, said, c.want)
		}
	}
	future := Flaws{Made: now, At: now.Add(time.Hour)}
	if JudgeFlaws(&FlawRules{}, &future, now).Good() {
		t.Error("a look of the future is good")
	}
}

func TestNext(t *testing.T) {
	hour := func(n int) time.Time { return now.Add(time.Duration(n) * time.Hour) }
	waivers := []Waiver{{Until: hour(-1)}, {Until: hour(3)}}
	for _, c := range []struct {
		waivers []Waiver
		age     time.Duration
		want    time.Time
	}{
		{nil, 0, time.Time{}},
		{nil, 2 * time.Hour, hour(2).Add(1)},
		{waivers, 2 * time.Hour, hour(2).Add(1)},
		{waivers, 4 * time.Hour, hour(3)},
		{waivers[:1], 0, time.Time{}},
	} {
		if got := Next(c.waivers, now, c.age, now); !got.Equal(c.want) {
			t.Errorf("Next(%d waivers, %s): got %s, want %s", len(c.waivers), c.age, got, c.want)
		}
	}
}
