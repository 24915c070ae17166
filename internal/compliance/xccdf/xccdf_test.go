package xccdf_test

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"touchstone.dev/touchstone/internal/compliance/xccdf"
)

func read(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// large is an ARF of about 20 MB with the shape of those that oscap writes: a data stream, then the report.
func large(t testing.TB) []byte {
	t.Helper()
	doc := read(t, "result.xml")
	var b bytes.Buffer
	b.WriteString(`<?xml version="1.0" encoding="UTF-8"?>` + "\n" + `<arf:asset-report-collection xmlns:arf="http://scap.nist.gov/schema/asset-reporting-format/1.1" xmlns:x="http://checklists.nist.gov/xccdf/1.2"><arf:report-requests>`)
	for i := 0; b.Len() < 20<<20; i++ {
		fmt.Fprintf(&b, "<x:Rule id=\"xccdf_org.example_rule_%d\" severity=\"medium\" selected=\"false\">\n  <x:title>A rule with &lt;text&gt; &amp; more</x:title>\n  "+
			"<!-- <TestResult> in a comment is none --><x:fix system=\"urn:xccdf:fix:script:sh\"><![CDATA[if [ a ]; then echo '<TestResult>'; fi]]></x:fix>\n</x:Rule>\n", i)
	}
	b.WriteString(`</arf:report-requests><arf:reports><arf:report id="r"><arf:content>`)
	b.Write(bytes.TrimSpace(doc[bytes.Index(doc, []byte("?>"))+2:]))
	b.WriteString(`</arf:content></arf:report></arf:reports></arf:asset-report-collection>`)
	return b.Bytes()
}

// oracle is how encoding/xml reads a TestResult.
type oracle struct {
	ID        string `xml:"id,attr"`
	Version   string `xml:"version,attr"`
	Start     string `xml:"start-time,attr"`
	End       string `xml:"end-time,attr"`
	System    string `xml:"test-system,attr"`
	Benchmark struct {
		ID   string `xml:"id,attr"`
		Href string `xml:"href,attr"`
	} `xml:"benchmark"`
	Profile struct {
		ID string `xml:"idref,attr"`
	} `xml:"profile"`
	Target    string   `xml:"target"`
	Addresses []string `xml:"target-address"`
	Platforms []struct {
		ID string `xml:"idref,attr"`
	} `xml:"platform"`
	Facts []struct {
		Name  string `xml:"name,attr"`
		Type  string `xml:"type,attr"`
		Value string `xml:",chardata"`
	} `xml:"target-facts>fact"`
	Values []struct {
		ID    string `xml:"idref,attr"`
		Value string `xml:",chardata"`
	} `xml:"set-value"`
	Rules []struct {
		ID       string  `xml:"idref,attr"`
		Role     string  `xml:"role,attr"`
		Severity string  `xml:"severity,attr"`
		Weight   float64 `xml:"weight,attr"`
		Result   string  `xml:"result"`
		Idents   []struct {
			System string `xml:"system,attr"`
			Value  string `xml:",chardata"`
		} `xml:"ident"`
		Check struct {
			System string `xml:"system,attr"`
			Ref    struct {
				Name string `xml:"name,attr"`
				Href string `xml:"href,attr"`
			} `xml:"check-content-ref"`
		} `xml:"check"`
	} `xml:"rule-result"`
	Scores []struct {
		System  string  `xml:"system,attr"`
		Maximum float64 `xml:"maximum,attr"`
		Value   float64 `xml:",chardata"`
	} `xml:"score"`
}

// byOracle walks to the TestResult with encoding/xml.
func byOracle(t testing.TB, doc []byte) *oracle {
	t.Helper()
	for d := xml.NewDecoder(bytes.NewReader(doc)); ; {
		token, err := d.Token()
		if err != nil {
			t.Fatal(err)
		}
		if e, ok := token.(xml.StartElement); ok && e.Name.Local == "TestResult" && e.Name.Space == xccdf.Namespace {
			o := &oracle{}
			if err := d.DecodeElement(o, &e); err != nil {
				t.Fatal(err)
			}
			return o
		}
	}
}

// same compares what both read.
func same(t *testing.T, r *xccdf.TestResult, o *oracle) {
	t.Helper()
	moment := func(s string) time.Time {
		at, err := time.Parse(time.RFC3339, s)
		if err != nil {
			t.Fatal(err)
		}
		return at.UTC()
	}
	want := &xccdf.TestResult{
		ID: o.ID, Version: o.Version, TestSystem: o.System, Start: moment(o.Start), End: moment(o.End), Title: r.Title, Profile: o.Profile.ID,
		Benchmark: xccdf.Benchmark{ID: o.Benchmark.ID, Href: o.Benchmark.Href}, Target: o.Target, Addresses: o.Addresses,
	}
	for _, p := range o.Platforms {
		want.Platforms = append(want.Platforms, p.ID)
	}
	for _, f := range o.Facts {
		want.Facts = append(want.Facts, xccdf.Fact{Name: f.Name, Type: f.Type, Value: strings.TrimSpace(f.Value)})
	}
	for _, v := range o.Values {
		want.Values = append(want.Values, xccdf.Value{ID: v.ID, Value: strings.TrimSpace(v.Value)})
	}
	for i, w := range o.Rules {
		rule := xccdf.RuleResult{
			ID: w.ID, Role: w.Role, Severity: xccdf.Severity(w.Severity), Weight: w.Weight, Outcome: xccdf.Outcome(w.Result),
			Time: r.Rules[i].Time, Version: r.Rules[i].Version, Messages: r.Rules[i].Messages,
		}
		for _, d := range w.Idents {
			rule.Idents = append(rule.Idents, xccdf.Ident{System: d.System, Value: strings.TrimSpace(d.Value)})
		}
		if w.Check.System != "" {
			rule.Checks = []xccdf.Check{{System: w.Check.System, Href: w.Check.Ref.Href, Name: w.Check.Ref.Name}}
		}
		want.Rules = append(want.Rules, rule)
	}
	for _, s := range o.Scores {
		want.Scores = append(want.Scores, xccdf.Score{System: s.System, Maximum: s.Maximum, Value: s.Value})
	}
	if diff := cmp.Diff(want, r); diff != "" {
		t.Errorf("Parse and encoding/xml differ (-encoding/xml +Parse):\n%s", diff)
	}
}

func TestSameAsEncodingXML(t *testing.T) {
	for name, doc := range map[string][]byte{"result": read(t, "result.xml"), "arf": large(t)} {
		t.Run(name, func(t *testing.T) {
			b, err := xccdf.Extract(bytes.NewReader(doc))
			if err != nil {
				t.Fatal(err)
			}
			r, err := xccdf.Parse(b)
			if err != nil {
				t.Fatal(err)
			}
			same(t, r, byOracle(t, doc))
			again, err := xccdf.Extract(bytes.NewReader(b))
			if err != nil || !bytes.Equal(again, b) {
				t.Errorf("Extract of what Extract returned differs: %v", err)
			}
		})
	}
}

// TestSmallReads: where a read ends says nothing.
func TestSmallReads(t *testing.T) {
	doc := read(t, "result.xml")
	want, err := xccdf.Extract(bytes.NewReader(doc))
	if err != nil {
		t.Fatal(err)
	}
	got, err := xccdf.Extract(iotestOneByte{bytes.NewReader(doc)})
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("Extract by single bytes: %d bytes, %v, want %d", len(got), err, len(want))
	}
}

type iotestOneByte struct{ r io.Reader }

func (o iotestOneByte) Read(p []byte) (int, error) { return o.r.Read(p[:min(1, len(p))]) }

// minimal is the smallest TestResult that counts, with room for attributes and content.
func minimal(content string) string {
	return `<TestResult xmlns="http://checklists.nist.gov/xccdf/1.2" id="r" end-time="2026-11-24T10:00:00Z"><rule-result idref="a"><result>pass</result></rule-result>` + content + `</TestResult>`
}

func TestBadResults(t *testing.T) {
	const lol = `<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]>`
	tests := []struct {
		name, doc string
		want      error
	}{
		{"empty", "", xccdf.ErrMalformed},
		{"no XML", "hello", xccdf.ErrMalformed},
		{"truncated", minimal("")[:80], xccdf.ErrMalformed},
		{"truncated at the end", strings.TrimSuffix(minimal(""), ">"), xccdf.ErrMalformed},
		{"entity bomb", lol + minimal("<title>&b;</title>"), xccdf.ErrMalformed},
		{"external entity", `<!DOCTYPE x SYSTEM "file:///etc/passwd">` + minimal(""), xccdf.ErrMalformed},
		{"unknown entity", minimal("<title>&b;</title>"), xccdf.ErrMalformed},
		{"depth bomb", minimal(strings.Repeat("<a>", 10000)), xccdf.ErrMalformed},
		{"crossed", minimal("<a><b></a></b>"), xccdf.ErrMalformed},
		{"second root", minimal("") + minimal(""), xccdf.ErrMalformed},
		{"attribute twice", `<TestResult xmlns="http://checklists.nist.gov/xccdf/1.2" id="a" id="b"/>`, xccdf.ErrMalformed},
		{"tag within a tag", minimal(`<a b="<"/>`), xccdf.ErrMalformed},
		{"control character", minimal("<title>a\x01</title>"), xccdf.ErrMalformed},
		{"not UTF-8", minimal("<title>\xff</title>"), xccdf.ErrMalformed},
		{"another encoding", `<?xml version="1.0" encoding="UTF-16"?>` + minimal(""), xccdf.ErrMalformed},
		{"another language", `<TestResult xmlns="urn:x" id="r"/>`, xccdf.ErrNotResult},
		{"XCCDF 1.1", strings.Replace(minimal(""), "/1.2", "/1.1", 1), xccdf.ErrNotResult},
		{"no id", strings.Replace(minimal(""), `id="r"`, ``, 1), xccdf.ErrNotResult},
		{"no time", strings.Replace(minimal(""), ` end-time="2026-11-24T10:00:00Z"`, ``, 1), xccdf.ErrNotResult},
		{"bad time", strings.Replace(minimal(""), "2026-11-24T", "yesterday", 1), xccdf.ErrNotResult},
		{"backwards", strings.Replace(minimal(""), "end-time", `start-time="2026-11-25T10:00:00Z" end-time`, 1), xccdf.ErrNotResult},
		{"no rules", `<TestResult xmlns="http://checklists.nist.gov/xccdf/1.2" id="r" end-time="2026-11-24T10:00:00Z"/>`, xccdf.ErrNotResult},
		{"unknown outcome", strings.Replace(minimal(""), ">pass<", ">passed<", 1), xccdf.ErrNotResult},
		{"no outcome", minimal(`<rule-result idref="b"/>`), xccdf.ErrNotResult},
		{"two outcomes", minimal(`<rule-result idref="b"><result>pass</result><result>fail</result></rule-result>`), xccdf.ErrNotResult},
		{"rule twice", minimal(`<rule-result idref="a"><result>fail</result></rule-result>`), xccdf.ErrNotResult},
		{"two profiles", minimal(`<profile idref="a"/><profile idref="b"/>`), xccdf.ErrNotResult},
		{"unknown severity", minimal(`<rule-result idref="b" severity="urgent"><result>pass</result></rule-result>`), xccdf.ErrNotResult},
		{"weight", minimal(`<rule-result idref="b" weight="NaN"><result>pass</result></rule-result>`), xccdf.ErrNotResult},
		{"too long", minimal("<title>" + strings.Repeat("x", xccdf.MaxTestResult) + "</title>"), xccdf.ErrNotResult},
	}
	for _, test := range tests {
		if _, err := xccdf.Parse([]byte(test.doc)); !errors.Is(err, test.want) {
			t.Errorf("%s: Parse(%.80q): %v, want %v", test.name, test.doc, err, test.want)
		}
	}
	if _, err := xccdf.Parse([]byte(minimal(`<title>a&lt;&#65;<![CDATA[&b]]></title>`))); err != nil {
		t.Errorf("Parse(minimal): %v", err)
	}
}

func TestExtractRefuses(t *testing.T) {
	in := func(s string) string { return `<a xmlns:y="http://checklists.nist.gov/xccdf/1.2">` + s + `</a>` }
	tests := []struct {
		name, doc string
		want      error
	}{
		{"none", in(""), xccdf.ErrNoResult},
		{"in a comment", in("<!--" + minimal("") + "-->"), xccdf.ErrNoResult},
		{"as text", in("<![CDATA[" + minimal("") + "]]>"), xccdf.ErrNoResult},
		{"two", in(minimal("") + minimal("")), xccdf.ErrTwoResults},
		{"cut off behind it", strings.TrimSuffix(in(minimal("")), "</a>"), xccdf.ErrMalformed},
		{"document type", "<!DOCTYPE a>" + in(minimal("")), xccdf.ErrMalformed},
		{"longest", in(minimal("<title>" + strings.Repeat("x<b/>", xccdf.MaxTestResult/4) + "</title>")), xccdf.ErrMalformed},
		{"long tag", in("<b " + strings.Repeat(" ", 5<<20) + "/>"), xccdf.ErrMalformed},
	}
	for _, test := range tests {
		if _, err := xccdf.Extract(strings.NewReader(test.doc)); !errors.Is(err, test.want) {
			t.Errorf("%s: Extract: %v, want %v", test.name, err, test.want)
		}
	}
	prefixed := in(`<y:TestResult id="r" end-time="2026-11-24T10:00:00Z"><y:rule-result idref="a"><y:result>fail</y:result></y:rule-result></y:TestResult>`)
	b, err := xccdf.Extract(strings.NewReader(prefixed))
	if err != nil {
		t.Fatal(err)
	}
	if r, err := xccdf.Parse(b); err != nil || r.Rules[0].Outcome != xccdf.Fail {
		t.Errorf("Parse(%s): %+v, %v", b, r, err)
	}
}

// TestLargeIsQuick holds the promised time and memory with room for a busy machine; the benchmarks give the figures.
func TestLargeIsQuick(t *testing.T) {
	doc := large(t)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	start := time.Now()
	if _, err := xccdf.Extract(bytes.NewReader(doc)); err != nil {
		t.Fatal(err)
	}
	took := time.Since(start)
	runtime.ReadMemStats(&after)
	if used := after.TotalAlloc - before.TotalAlloc; used > 32<<20 {
		t.Errorf("Extract of %d bytes allocates %d, want at most 32 MiB", len(doc), used)
	}
	if took > 2*time.Second {
		t.Errorf("Extract of %d bytes took %v", len(doc), took)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(read(f, "result.xml"))
	f.Add([]byte(minimal(`<title>a&lt;&#65;<![CDATA[&b]]></title>`)))
	f.Add([]byte(`<a xmlns:y="http://checklists.nist.gov/xccdf/1.2"><y:TestResult/></a>`))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := xccdf.Parse(b)
		if err == nil && (r == nil || len(r.Rules) == 0) {
			t.Error("Parse: no error and no rules")
		}
		out, err := xccdf.Extract(bytes.NewReader(b))
		if err != nil {
			return
		}
		if again, err := xccdf.Extract(bytes.NewReader(out)); err != nil || !bytes.Equal(again, out) {
			t.Errorf("Extract(%q): %q, and again %q, %v", b, out, again, err)
		}
	})
}

func BenchmarkExtract(b *testing.B) {
	doc := large(b)
	b.SetBytes(int64(len(doc)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := xccdf.Extract(bytes.NewReader(doc)); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkParse(b *testing.B) {
	doc, err := xccdf.Extract(bytes.NewReader(read(b, "result.xml")))
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(doc)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := xccdf.Parse(doc); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkEncodingXML(b *testing.B) {
	doc := large(b)
	b.SetBytes(int64(len(doc)))
	for b.Loop() {
		byOracle(b, doc)
	}
}
