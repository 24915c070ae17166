package render

import (
	"bytes"
	"flag"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"touchstone.dev/touchstone/internal/appraisal"
	"touchstone.dev/touchstone/internal/evidence"
	"touchstone.dev/touchstone/internal/protocol"
)

var update = flag.Bool("update", false, "write the golden files anew")

var now = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

func levels(status ...string) []protocol.LevelInfo {
	out := make([]protocol.LevelInfo, len(status))
	for i, s := range status {
		out[i] = protocol.LevelInfo{Level: i + 1, Name: appraisal.LevelNames[i], Status: s}
		if s != "pass" {
			out[i].Reason = "something is " + s + " here"
		}
	}
	return out
}

func nodes() []protocol.Node {
	return []protocol.Node{
		{Name: "worker-1", Trust: protocol.Trusted, Levels: levels("pass", "warn", "pass", "pass", "pass"), Attested: now.Add(-12 * time.Second)},
		{Name: "worker-2", Trust: protocol.Untrusted, Levels: levels("pass", "unknown", "pass", "fail", "pass"), Attested: now.Add(-5 * time.Minute)},
		{Name: "worker-3", Trust: protocol.Unknown, Reason: "no Evidence yet"},
		{Name: "worker-4", Trust: protocol.Untrusted, Levels: levels("unknown", "unknown", "unknown", "unknown", "unknown"), Reason: "silent: look there", Attested: now.Add(-time.Hour)},
	}
}

func verdict() *appraisal.Verdict {
	v := &appraisal.Verdict{}
	for i, name := range appraisal.LevelNames {
		v.Levels = append(v.Levels, appraisal.Level{
			Level: i + 1, Name: name, Status: appraisal.Pass, Findings: []appraisal.Finding{{Rule: name + ".rule", Status: appraisal.Pass}},
		})
	}
	l := &v.Levels[4]
	l.Status = appraisal.Fail
	l.Findings = append(l.Findings, appraisal.Finding{
		Rule: "runtime.files", Status: appraisal.Fail, Provenance: "proven", Message: "unknown file /tmp/\x1b[2Jevil was run or read",
		Event:    &appraisal.Event{Log: "ima", Index: 12, PCR: 10, Description: "/tmp/\x1b[2Jevil"},
		Expected: "a file of an imported package or list", Observed: "sha256:" + strings.Repeat("ab", 32),
		Cause: "software that is not in the references", Remedy: "import its package, or rebuild the worker",
	}, appraisal.Finding{Rule: "runtime.violations", Status: appraisal.Unknown, Message: "cannot be known"})
	return v
}

func TestGolden(t *testing.T) {
	plain := Style{Unicode: true, Width: 80}
	for _, tc := range []struct {
		name  string
		style Style
		draw  func(Style, io.Writer)
	}{
		{"nodes", plain, func(s Style, w io.Writer) { s.Nodes(w, nodes(), now) }},
		{"nodes-narrow-ascii", Style{Width: 60}, func(s Style, w io.Writer) { s.Nodes(w, nodes(), now) }},
		{"nodes-color", Style{Color: true, Unicode: true, Width: 80}, func(s Style, w io.Writer) { s.Nodes(w, nodes(), now) }},
		{"nodes-none", plain, func(s Style, w io.Writer) { s.Nodes(w, nil, now) }},
		{"verdict", plain, func(s Style, w io.Writer) { s.Verdict(w, "worker-2", verdict()) }},
		{"verdict-ascii", Style{Width: 120}, func(s Style, w io.Writer) { s.Verdict(w, "worker-2", verdict()) }},
		{"history", plain, func(s Style, w io.Writer) {
			at := time.Date(2026, 11, 23, 12, 0, 0, 0, time.Local)
			s.History(w, []protocol.Change{
				{Node: "worker-1", At: at, Cause: protocol.CauseEvidence, To: protocol.Untrusted, Reason: "level 5 (runtime): unknown file /usr/bin/foo was run or read"},
				{Node: "worker-1", At: at, Cause: protocol.CauseEnrolment, To: protocol.Unknown}, {Node: "worker-9", At: at, Cause: protocol.CauseOperator},
			})
		}},
		{"references", plain, func(s Style, w io.Writer) {
			s.References(w, []protocol.Reference{{
				Kind: "package", Name: "shim-signed", Version: "1.51", Imported: time.Date(2026, 11, 23, 12, 0, 0, 0, time.Local), Note: "from the mirror",
			}})
		}},
		{"bar", plain, func(s Style, w io.Writer) {
			for _, done := range []int64{0, 50, 100, 200} {
				io.WriteString(w, s.Bar("linux-image.deb", done, 100)+"\n")
			}
			io.WriteString(w, Style{}.Bar("linux-image.deb", 50, 100)+"\n"+s.Bar("unknown size", 4096, 0)+"\n")
		}},
		{"tokens", plain, func(s Style, w io.Writer) {
			s.Tokens(w, []protocol.Token{{ID: "t1", Left: 1, Expires: now.Add(time.Hour), Note: "rack 4"}, {ID: "t2", Node: "w", Expires: now}}, now)
		}},
		{"explanation", plain, func(s Style, w io.Writer) {
			s.Explanation(w, &Explanation{Namespace: "shop", Pod: "web", Class: "gold", ClassOf: "namespace", Nodes: []NodeAnswer{
				{Node: "worker-1", Meets: true},
				{Node: "worker-2", Missing: []string{"level 5 is fail (unknown file /tmp/\x1b[2Jevil was run or read)", "tag country is not proven, want de or fr"}},
			}})
		}},
		{"tags", plain, func(s Style, w io.Writer) {
			s.Tags(w, []protocol.TagState{
				{Node: "worker-1", Serial: 2, Proven: true, Tags: map[string]string{"site": "muc", "country": "de"}},
				{Node: "worker-2", Serial: 7, Tags: map[string]string{"site": "ber"}, Reason: "the node has not answered a challenge with them yet"},
			})
		}},
		{"nodes-tags", plain, func(s Style, w io.Writer) {
			n := nodes()[:2]
			n[0].Tags, n[0].TagsProven = map[string]string{"site": "muc", "country": "de"}, true
			n[1].Tags = map[string]string{"site": "ber"}
			s.Nodes(w, n, now)
		}},
		{"eks", plain, func(s Style, w io.Writer) {
			s.EKs(w, []protocol.EK{{SHA256: strings.Repeat("0f", 32), File: true, Note: "a note"}})
		}},
		{"evidence", plain, func(s Style, w io.Writer) {
			v := (&evidence.Document{Version: evidence.Version, Node: "w", Nonce: []byte{1, 2}, Facts: map[string][]byte{"tainted": []byte("0\n")}}).View()
			s.Evidence(w, "w.evidence", &v, true, true)
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var b bytes.Buffer
			tc.draw(tc.style, &b)
			path := filepath.Join("testdata", tc.name+".golden")
			if *update {
				if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatalf("%v: write it with -update", err)
			}
			if diff := cmp.Diff(string(want), b.String()); diff != "" {
				t.Errorf("%s (-want +got):\n%s", tc.name, diff)
			}
			if tc.style.Color {
				return
			}
			if strings.ContainsRune(b.String(), 0x1b) {
				t.Errorf("%s: an escape character reached the screen", tc.name)
			}
			for line := range strings.Lines(b.String()) {
				if n := columns(strings.TrimRight(line, "\n")); n > tc.style.Width && tc.name != "eks" {
					t.Errorf("%s: line of %d columns, want %d at most: %q", tc.name, n, tc.style.Width, line)
				}
			}
		})
	}
}

func TestClean(t *testing.T) {
	for in, want := range map[string]string{
		"/usr/bin/ä":              "/usr/bin/ä",
		"a\x1b[31mb":              `a\x1b[31mb`,
		"a\nb\tc\r":               `a\x0ab\x09c\x0d`,
		"a\u202egpj.exe":          `a\u{202e}gpj.exe`,
		"a\u009bb":                `a\u{009b}b`,
		"\xff\xfe":                "\uFFFD\uFFFD",
		strings.Repeat("x", 3000): strings.Repeat("x", 2001) + "...",
	} {
		if got := Clean(in); got != want {
			t.Errorf("Clean(%.40q): got %.60q, want %.60q", in, got, want)
		}
	}
}

func FuzzClean(f *testing.F) {
	f.Add("/tmp/\x1b]0;title\x07")
	f.Fuzz(func(t *testing.T, text string) {
		for _, r := range Clean(text) {
			if r < 0x20 || r >= 0x7f && r < 0xa0 {
				t.Fatalf("Clean(%q) lets %U through", text, r)
			}
		}
	})
}

func TestAge(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "now", -time.Hour: "now", 5 * time.Second: "5s ago", 119 * time.Second: "119s ago", 2 * time.Minute: "2m ago",
		3 * time.Hour: "3h ago", 72 * time.Hour: "3d ago",
	} {
		if got := Age(now.Add(-d), now); got != want {
			t.Errorf("Age(%v): got %q, want %q", d, got, want)
		}
	}
	if got := Age(time.Time{}, now); got != "never" {
		t.Errorf("Age(zero): got %q, want never", got)
	}
}

func TestStyleFor(t *testing.T) {
	env := func(pairs ...string) func(string) string {
		m := map[string]string{}
		for i := 0; i < len(pairs); i += 2 {
			m[pairs[i]] = pairs[i+1]
		}
		return func(k string) string { return m[k] }
	}
	for _, tc := range []struct {
		name    string
		env     func(string) string
		unicode bool
	}{
		{"nothing set", env(), true},
		{"utf-8", env("LANG", "de_DE.UTF-8"), true},
		{"C", env("LANG", "C"), false},
		{"LC_ALL wins", env("LANG", "C", "LC_ALL", "C.utf8"), true},
	} {
		if s := StyleFor(nil, tc.env); s.Unicode != tc.unicode || s.Color || s.Width != 80 {
			t.Errorf("StyleFor(%s): got %+v, want unicode %v, no colour, 80 columns", tc.name, s, tc.unicode)
		}
	}
}

func BenchmarkNodes(b *testing.B) {
	many := make([]protocol.Node, 1000)
	for i := range many {
		many[i] = nodes()[i%3]
	}
	for b.Loop() {
		Style{Color: true, Unicode: true, Width: 120}.Nodes(io.Discard, many, now)
	}
}
