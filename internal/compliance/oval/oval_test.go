package oval

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestLikeDpkg: dpkg orders many versions as we do.
func TestLikeDpkg(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // the same each time
	piece := []string{"0", "1", "00", "10", "9", ".", "~", "+", "-", "a", "b", "Z", "rc", "deb12u1", "~~", "+dfsg", "00012"}
	version := func() string {
		v := "1"
		for range r.IntN(6) {
			v += piece[r.IntN(len(piece))]
		}
		if r.IntN(4) == 0 {
			v = fmt.Sprint(r.IntN(2), ":", v)
		}
		return strings.TrimRight(v, "-") // an empty revision is an error for dpkg
	}
	var script strings.Builder
	var pairs [][2]string
	for range 400 {
		a, b := version(), version()
		if r.IntN(3) == 0 {
			b = a + piece[r.IntN(len(piece))] + "1"
		}
		pairs = append(pairs, [2]string{a, b})
		fmt.Fprintf(&script, "if dpkg --compare-versions '%s' lt '%s'; then echo -1; elif dpkg --compare-versions '%s' eq '%s'; then echo 0; else echo 1; fi\n", a, b, a, b)
	}
	cmd := exec.Command("sh")
	cmd.Stdin = strings.NewReader(script.String())
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	said := strings.Fields(string(out))
	if len(said) != len(pairs) {
		t.Fatalf("dpkg answered %d of %d", len(said), len(pairs))
	}
	sign := func(n int) string { return fmt.Sprint(max(-1, min(1, n))) }
	for i, p := range pairs {
		if got, back := sign(Compare(p[0], p[1])), sign(-Compare(p[1], p[0])); got != said[i] || back != got {
			t.Errorf("Compare(%q, %q): got %s and back %s, dpkg says %s", p[0], p[1], got, back, said[i])
		}
	}
}

// feedOf makes a feed in Debian's form: definition i is on package pkg(i % packages), fixed in version 1.0-(i % 7).
func feedOf(definitions, packages int, made time.Time) string {
	var d, tests, objects, states strings.Builder
	for i := range definitions {
		fmt.Fprintf(&d, `<definition class="vulnerability" id="oval:org.debian:def:%d" version="1"><metadata><title>CVE-2026-%d pkg%d</title>
<affected family="unix"><platform>Debian GNU/Linux 12</platform><product>pkg%d</product></affected><reference ref_id="CVE-2026-%d" ref_url="https://security-tracker.debian.org/tracker/CVE-2026-%d" source="CVE"/>
<description>a flaw, described in some words &amp; more</description><debian><date>2026-01-01</date><moreinfo>see there</moreinfo></debian></metadata>
<criteria comment="Release section" operator="AND"><criterion comment="Debian 12 is installed" test_ref="oval:org.debian.oval:tst:1"/>
<criteria comment="Architecture section" operator="OR"><criteria comment="Architecture independent section" operator="AND">
<criterion comment="all architecture" test_ref="oval:org.debian.oval:tst:2"/><criterion comment="pkg%d DPKG is earlier than 1.0-%d" test_ref="oval:org.debian.oval:tst:%d"/></criteria></criteria></criteria></definition>
`, i, i, i%packages, i%packages, i, i, i%packages, i%7, i+10)
		fmt.Fprintf(&tests, `<dpkginfo_test check="all" check_existence="at_least_one_exists" comment="is earlier" id="oval:org.debian.oval:tst:%d" version="1" xmlns="http://oval.mitre.org/XMLSchema/oval-definitions-5#linux"><object object_ref="oval:org.debian.oval:obj:%d"/><state state_ref="oval:org.debian.oval:ste:%d"/></dpkginfo_test>
`, i+10, i%packages+10, i%7+10)
	}
	for i := range packages {
		fmt.Fprintf(&objects, `<dpkginfo_object id="oval:org.debian.oval:obj:%d" version="1" xmlns="http://oval.mitre.org/XMLSchema/oval-definitions-5#linux"><name>pkg%d</name></dpkginfo_object>
`, i+10, i)
	}
	for i := range 7 {
		fmt.Fprintf(&states, `<dpkginfo_state id="oval:org.debian.oval:ste:%d" version="1" xmlns="http://oval.mitre.org/XMLSchema/oval-definitions-5#linux"><evr datatype="debian_evr_string" operation="less than">0:1.0-%d</evr></dpkginfo_state>
`, i+10, i)
	}
	return `<?xml version="1.0"?><oval_definitions xmlns="http://oval.mitre.org/XMLSchema/oval-definitions-5" xmlns:oval="http://oval.mitre.org/XMLSchema/oval-common-5">
<generator><oval:product_name>Debian</oval:product_name><oval:schema_version>5.11.2</oval:schema_version><oval:timestamp>` + made.UTC().Format("2006-01-02T15:04:05.000-00:00") + `</oval:timestamp></generator>
<definitions>` + d.String() + `</definitions><tests>
<textfilecontent54_test check="all" check_existence="at_least_one_exists" comment="Debian 12 is installed" id="oval:org.debian.oval:tst:1" version="1" xmlns="http://oval.mitre.org/XMLSchema/oval-definitions-5#independent"><object object_ref="oval:org.debian.oval:obj:1"/><state state_ref="oval:org.debian.oval:ste:1"/></textfilecontent54_test>
<uname_test check="all" check_existence="at_least_one_exists" comment="all architecture" id="oval:org.debian.oval:tst:2" version="1" xmlns="http://oval.mitre.org/XMLSchema/oval-definitions-5#unix"><object object_ref="oval:org.debian.oval:obj:2"/></uname_test>
` + tests.String() + `</tests><objects>
<textfilecontent54_object id="oval:org.debian.oval:obj:1" version="1" xmlns="http://oval.mitre.org/XMLSchema/oval-definitions-5#independent"><path>/etc</path><filename>debian_version</filename><pattern operation="pattern match">(\d+)\.\d</pattern><instance datatype="int">1</instance></textfilecontent54_object>
<uname_object id="oval:org.debian.oval:obj:2" version="1" xmlns="http://oval.mitre.org/XMLSchema/oval-definitions-5#unix"/>
` + objects.String() + `</objects><states>
<textfilecontent54_state id="oval:org.debian.oval:ste:1" version="1" xmlns="http://oval.mitre.org/XMLSchema/oval-definitions-5#independent"><subexpression operation="equals">12</subexpression></textfilecontent54_state>
` + states.String() + `</states></oval_definitions>`
}

// rootOf makes a Debian 12 with packages pkg0.. of version 1.0-3.
func rootOf(t testing.TB, packages int) string {
	t.Helper()
	dir := t.TempDir()
	var status strings.Builder
	for i := range packages {
		fmt.Fprintf(&status, "Package: pkg%d\nStatus: install ok installed\nMaintainer: x <x@example.org>\nArchitecture: amd64\nVersion: 1.0-3\nDescription: x\n y\n\n", i)
	}
	status.WriteString("Package: pkg9999\nStatus: deinstall ok config-files\nArchitecture: amd64\nVersion: 0.1\n\n")
	files := map[string]string{"etc/debian_version": "12.15\n", "var/lib/dpkg/status": status.String()}
	for _, table := range []string{"cputable", "tupletable"} { // oscap 1.3.7 needs them
		b, err := os.ReadFile("/usr/share/dpkg/" + table)
		if err != nil {
			t.Fatal(err)
		}
		files["usr/share/dpkg/"+table] = string(b)
	}
	for name, text := range files {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil { //nolint:gosec // a root
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil { //nolint:gosec // a root
			t.Fatal(err)
		}
	}
	return dir
}

// byOscap evaluates by oscap, with none of the host's configuration of apt, and returns the ids of definitions by result.
func byOscap(t testing.TB, feed, root string) (map[string][]string, time.Duration, int64) {
	t.Helper()
	conf := filepath.Join(t.TempDir(), "apt.conf")
	settings := "Dir::Etc::parts \"/dev/null\";\nDir::Etc::main \"/dev/null\";\nDir::Cache \"/.none\";\nDir::State::lists \"/.none\";\nDir::Bin::dpkg \"/.none\";\n" +
		"APT::Architecture \"amd64\";\nAPT::Architectures { \"amd64\"; };\n"
	if err := os.WriteFile(conf, []byte(settings), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("oscap", "oval", "eval", "--skip-validation", feed)
	cmd.Env = append(os.Environ(), "OSCAP_PROBE_ROOT="+root, "APT_CONFIG="+conf)
	start := time.Now()
	var said strings.Builder
	cmd.Stderr = &said
	out, err := cmd.Output()
	took := time.Since(start)
	if strings.Contains(said.String(), "E: ") {
		t.Fatalf("oscap: %s", said.String())
	}
	if err != nil {
		t.Fatalf("oscap (scripts/need test installs it): %v", err)
	}
	found := map[string][]string{}
	for _, m := range regexp.MustCompile(`(?m)^Definition (\S+): (\w+.*)$`).FindAllStringSubmatch(string(out), -1) {
		found[m[2]] = append(found[m[2]], strings.Replace(m[1], "oval:org.debian:def:", "CVE-2026-", 1))
	}
	var rss int64
	if u := usage(cmd.ProcessState); u != nil {
		rss = u.Maxrss >> 10
	}
	return found, took, rss
}

func write(t testing.TB, text string) string {
	t.Helper()
	p := filepath.Join(t.TempDir(), "oval-definitions-bookworm.xml")
	if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return p
}

// TestLikeOscap: oscap finds the same definitions true.
func TestLikeOscap(t *testing.T) {
	now := time.Now()
	feed, root := write(t, feedOf(700, 120, now)), rootOf(t, 60)
	f, err := Load(feed, time.Hour, now)
	if err != nil {
		t.Fatal(err)
	}
	r, err := f.Evaluate(root)
	if err != nil {
		t.Fatal(err)
	}
	want, _, _ := byOscap(t, feed, root)
	var got []string
	for _, x := range r.Findings {
		got = append(got, x.ID)
		if x.Installed != "1.0-3" || !strings.HasPrefix(x.Package, "pkg") || Compare(x.Installed, x.Fixed) >= 0 {
			t.Errorf("got %+v", x)
		}
	}
	slices.Sort(got)
	slices.Sort(want["true"])
	if !slices.Equal(got, want["true"]) || len(got) < 100 || len(want["false"]) == 0 {
		t.Errorf("got %d findings, oscap %d of %v", len(got), len(want["true"]), slices.Collect(maps.Keys(want)))
	}
	if r.Undecided != 0 || r.Judged != 700 || f.Definitions() != 700 {
		t.Errorf("got %d judged, %d undecided of %d, want 700, 0, 700", r.Judged, r.Undecided, f.Definitions())
	}
}

func TestRefused(t *testing.T) {
	now := time.Now()
	good := feedOf(3, 2, now)
	for name, text := range map[string]string{
		"empty":         "",
		"cut off":       good[:len(good)-30],
		"document type": strings.Replace(good, `<?xml version="1.0"?>`, `<!DOCTYPE x [<!ENTITY a "b">]>`, 1),
		"entity":        strings.Replace(good, "a flaw", "&a;", 1),
		"deep":          strings.Replace(good, "<definitions>", "<definitions>"+strings.Repeat("<a>", 100), 1),
		"endless text":  strings.Replace(good, "a flaw", strings.Repeat("x", maxToken+maxToken/2), 1),
		"other":         "<html></html>",
		"twice":         strings.Replace(good, `tst:11"`, `tst:10"`, 2),
		"wrong order":   strings.Replace(good, "</metadata>", "</definition>", 1),
	} {
		if _, err := Parse(strings.NewReader(text)); err == nil {
			t.Errorf("%s: was taken", name)
		}
	}
	for name, made := range map[string]time.Time{"old": now.Add(-2 * time.Hour), "future": now.Add(48 * time.Hour)} {
		if _, err := Load(write(t, feedOf(1, 1, made)), time.Hour, now); err == nil {
			t.Errorf("a feed that is %s was taken", name)
		}
	}
	if _, err := (&Feed{}).Evaluate(t.TempDir()); err == nil {
		t.Error("a root without packages was judged")
	}
}

// TestUnknownTests: what cannot be evaluated is counted, and never taken for good.
func TestUnknownTests(t *testing.T) {
	for name, change := range map[string][2]string{
		"other test":   {"dpkginfo_test", "rpminfo_test"},
		"other states": {`<evr datatype="debian_evr_string"`, `<version datatype="version"`},
		"other type":   {`datatype="debian_evr_string"`, `datatype="evr_string"`},
		"variable":     {"<name>", `<name var_ref="oval:x:var:1">`},
		"extended":     {"<criterion comment=\"all architecture\" test_ref=\"oval:org.debian.oval:tst:2\"/>", `<extend_definition definition_ref="oval:x:def:1"/>`},
	} {
		text := strings.ReplaceAll(feedOf(4, 2, time.Now()), change[0], change[1])
		text = strings.ReplaceAll(text, "</evr>", map[bool]string{true: "</version>", false: "</evr>"}[name == "other states"])
		text = strings.ReplaceAll(text, "</dpkginfo_test>", map[bool]string{true: "</rpminfo_test>", false: "</dpkginfo_test>"}[name == "other test"])
		f, err := Parse(strings.NewReader(text))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if r, err := f.Evaluate(rootOf(t, 2)); err != nil || r.Undecided != 4 {
			t.Errorf("%s: got %+v, %v, want 4 undecided", name, r, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(feedOf(2, 2, time.Unix(1, 0)))
	f.Fuzz(func(_ *testing.T, s string) { _, _ = Parse(strings.NewReader(s)) })
}

func FuzzStatus(f *testing.F) {
	f.Add("Package: a\nStatus: install ok installed\nVersion: 1\n\n")
	f.Fuzz(func(_ *testing.T, s string) {
		_ = parseStatus(strings.NewReader(s), false, func(p Package) error { Compare(p.Version, s); return nil })
	})
}
