// Package content is the product's own security baseline: an SCAP 1.3 source data stream (XCCDF 1.2 and OVAL 5.11) for workers of Kubernetes and for
// container images that keep their packages with dpkg. It is small on purpose: rules that hold everywhere, each of which stops something.
//
// The document is made from a table of rules, always the same bytes for the same rules, so its digest can stand in a policy.
package content

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/xml"
	"fmt"
	"strings"
	"sync"

	"touchstone.dev/touchstone/internal/compliance/xccdf"
)

// Name stands for the baseline where otherwise the path of a data stream does.
const Name = "baseline"

// Profiles of the baseline.
const (
	Worker = prefix + "profile_worker"
	Image  = prefix + "profile_image"
)

// ProfileOr returns the profile to use: when none is named and the content is the baseline, that of the baseline.
func ProfileOr(profile, content, ofBaseline string) string {
	if profile == "" && content == Name {
		return ofBaseline
	}
	return profile
}

// Version of the baseline, which changes with its rules.
const Version = "1"

// linkState numbers the state of symbolic links.
const linkState = 100000

const (
	prefix = "xccdf_dev.touchstone_"
	date   = "2026-11-24"
)

// Baseline returns the data stream.
func Baseline() []byte { return append([]byte(nil), build()...) }

// Digest is the SHA-256 of the data stream, hexadecimal.
func Digest() string {
	sum := sha256.Sum256(build())
	return hex.EncodeToString(sum[:])
}

var build = sync.OnceValue(func() []byte {
	var b bytes.Buffer
	b.WriteString(`<?xml version="1.0" encoding="UTF-8"?>
<ds:data-stream-collection xmlns:ds="http://scap.nist.gov/schema/scap/source/1.2" xmlns:xlink="http://www.w3.org/1999/xlink" xmlns:cat="urn:oasis:names:tc:entity:xmlns:xml:catalog" id="scap_dev.touchstone_collection_baseline" schematron-version="1.3">
<ds:data-stream id="scap_dev.touchstone_datastream_baseline" scap-version="1.3" timestamp="` + date + `T00:00:00" use-case="OTHER">
<ds:dictionaries><ds:component-ref id="scap_dev.touchstone_cref_dictionary" xlink:href="#scap_dev.touchstone_comp_dictionary"><cat:catalog><cat:uri name="cpe.xml" uri="#scap_dev.touchstone_cref_cpe"/></cat:catalog></ds:component-ref></ds:dictionaries>
<ds:checklists><ds:component-ref id="scap_dev.touchstone_cref_xccdf" xlink:href="#scap_dev.touchstone_comp_xccdf"><cat:catalog><cat:uri name="oval.xml" uri="#scap_dev.touchstone_cref_oval"/></cat:catalog></ds:component-ref></ds:checklists>
<ds:checks><ds:component-ref id="scap_dev.touchstone_cref_oval" xlink:href="#scap_dev.touchstone_comp_oval"/><ds:component-ref id="scap_dev.touchstone_cref_cpe" xlink:href="#scap_dev.touchstone_comp_cpe"/></ds:checks>
</ds:data-stream>
`)
	component(&b, "xccdf", benchmark())
	component(&b, "oval", definitions("oval:dev.touchstone.baseline", "compliance", rules))
	component(&b, "dictionary", `<cpe-list xmlns="http://cpe.mitre.org/dictionary/2.0"><cpe-item name="cpe:/o:debian:debian_linux"><title xml:lang="en-us">a system whose packages dpkg keeps</title><check system="http://oval.mitre.org/XMLSchema/oval-definitions-5" href="cpe.xml">oval:dev.touchstone.cpe:def:1</check></cpe-item></cpe-list>`)
	component(&b, "cpe", definitions("oval:dev.touchstone.cpe", "inventory", []rule{{title: "dpkg", checks: []check{{
		test: "unix:file", existence: "all_exist", says: "the status file of dpkg", object: "<unix:filepath>/var/lib/dpkg/status</unix:filepath>"}}}}))
	b.WriteString("</ds:data-stream-collection>\n")
	return b.Bytes()
})

func component(b *bytes.Buffer, name, body string) {
	fmt.Fprintf(b, "<ds:component id=\"scap_dev.touchstone_comp_%s\" timestamp=\"%sT00:00:00\">%s</ds:component>\n", name, date, body)
}

func text(s string) string {
	var b bytes.Buffer
	_ = xml.EscapeText(&b, []byte(s)) // a buffer takes all
	return b.String()
}

var profiles = []struct {
	id, title, description string
	bit                    int
}{
	{Worker, "Worker of Kubernetes", "For the host of a kubelet, as Debian and Ubuntu set it up.", worker},
	{Image, "Container image", "For what is in an image before anything runs.", image},
}

// says is what the checks of a rule look for.
func (r *rule) says() string {
	var out []string
	for _, c := range r.checks {
		out = append(out, c.says)
	}
	return strings.Join(out, "; ") + "."
}

// cite is a reference in words, and where it leads.
func cite(ref string) (words, address string) {
	if section, ok := strings.CutPrefix(ref, "CIS:"); ok {
		return "CIS Kubernetes Benchmark " + section, "https://www.cisecurity.org/benchmark/kubernetes"
	}
	if ref[0] == 'T' && ref[1] <= '9' {
		return "MITRE ATT&CK " + ref, "https://attack.mitre.org/techniques/" + strings.ReplaceAll(ref, ".", "/") + "/"
	}
	return "NIST SP 800-53 " + ref, "https://csrc.nist.gov/pubs/sp/800/53/r5/upd1/final"
}

func (r *rule) references() string {
	var b strings.Builder
	for _, ref := range strings.Fields(r.refs) {
		words, address := cite(ref)
		fmt.Fprintf(&b, `<reference href="%s">%s</reference>`, address, text(words))
	}
	return b.String()
}

// benchmark writes the XCCDF.
func benchmark() string {
	var b bytes.Buffer
	fmt.Fprintf(&b, `<Benchmark xmlns="%s" id="%sbenchmark_baseline" resolved="1" style="SCAP_1.3" xml:lang="en-US">
<status date="%s">accepted</status><title>Touchstone baseline</title><description>For workers of Kubernetes and for container images that keep their packages with dpkg.</description><platform idref="cpe:/o:debian:debian_linux"/><version time="%sT00:00:00" update="https://touchstone.dev/">%s</version>
<metadata><dc:creator xmlns:dc="http://purl.org/dc/elements/1.1/">Touchstone</dc:creator><dc:publisher xmlns:dc="http://purl.org/dc/elements/1.1/">Touchstone</dc:publisher><dc:contributor xmlns:dc="http://purl.org/dc/elements/1.1/">Touchstone</dc:contributor><dc:source xmlns:dc="http://purl.org/dc/elements/1.1/">https://touchstone.dev/</dc:source></metadata>
`, xccdf.Namespace, prefix, date, date, Version)
	for _, p := range profiles {
		fmt.Fprintf(&b, "<Profile id=\"%s\"><title>%s</title><description>%s</description>\n", p.id, p.title, p.description)
		for i := range rules {
			fmt.Fprintf(&b, "<select idref=\"%srule_%s\" selected=\"%v\"/>\n", prefix, rules[i].name, rules[i].profiles&p.bit != 0)
		}
		b.WriteString("</Profile>\n")
	}
	for i := range rules {
		r := &rules[i]
		fmt.Fprintf(&b, `<Rule id="%srule_%s" selected="false" weight="1.0" role="full" severity="%s"><title>%s</title><description>%s</description>%s<rationale>%s</rationale><fixtext>%s</fixtext><check system="http://oval.mitre.org/XMLSchema/oval-definitions-5"><check-content-ref href="oval.xml" name="oval:dev.touchstone.baseline:def:%d"/></check></Rule>`+"\n",
			prefix, r.name, r.severity, text(r.title), text(r.says()), r.references(), text(r.why), text(r.fix), i+1)
	}
	b.WriteString("</Benchmark>")
	return b.String()
}

// definitions writes the OVAL: one definition for each rule, numbered from 1, and one test, object and state for each check.
func definitions(ns, class string, all []rule) string {
	var defs, tests, objects, states bytes.Buffer
	n, links := 0, false
	for i := range all {
		r := &all[i]
		reference := ""
		if class == "inventory" {
			reference = `<reference ref_id="cpe:/o:debian:debian_linux" source="CPE"/>`
		}
		fmt.Fprintf(&defs, `<definition class="%s" id="%s:def:%d" version="1"><metadata><title>%s</title>%s<description>%s</description></metadata><criteria operator="AND">`, class, ns, i+1, text(r.title), reference, text(r.title))
		for _, c := range r.checks {
			n++
			fmt.Fprintf(&defs, `<criterion comment="%s" test_ref="%s:tst:%d"/>`, text(c.says), ns, n)
			family, _, _ := strings.Cut(c.test, ":")
			filter := ""
			if c.links {
				filter = fmt.Sprintf(`<filter action="exclude">%s:ste:%d</filter>`, ns, linkState)
				links = true
			}
			fmt.Fprintf(&tests, `<%s_test check="all" check_existence="%s" comment="%s" id="%s:tst:%d" version="1"><%s:object object_ref="%s:obj:%d"/>`, c.test, c.existence, text(c.says), ns, n, family, ns, n)
			if c.state != "" {
				fmt.Fprintf(&tests, `<%s:state state_ref="%s:ste:%d"/>`, family, ns, n)
				fmt.Fprintf(&states, `<%s_state id="%s:ste:%d" version="1">%s</%s_state>`+"\n", c.test, ns, n, c.state, c.test)
			}
			fmt.Fprintf(&tests, "</%s_test>\n", c.test)
			fmt.Fprintf(&objects, `<%s_object id="%s:obj:%d" version="1">%s%s</%s_object>`+"\n", c.test, ns, n, c.object, filter, c.test)
		}
		defs.WriteString("</criteria></definition>\n")
	}
	if links {
		fmt.Fprintf(&states, `<unix:file_state id="%s:ste:%d" version="1"><unix:type>symbolic link</unix:type></unix:file_state>`+"\n", ns, linkState)
	}
	out := fmt.Sprintf(`<oval_definitions xmlns="http://oval.mitre.org/XMLSchema/oval-definitions-5" xmlns:oval="http://oval.mitre.org/XMLSchema/oval-common-5" xmlns:linux="http://oval.mitre.org/XMLSchema/oval-definitions-5#linux" xmlns:unix="http://oval.mitre.org/XMLSchema/oval-definitions-5#unix" xmlns:ind="http://oval.mitre.org/XMLSchema/oval-definitions-5#independent" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">
<generator><oval:product_name>touchstone</oval:product_name><oval:schema_version>5.11.1</oval:schema_version><oval:timestamp>%sT00:00:00</oval:timestamp></generator>
<definitions>
%s</definitions>
<tests>
%s</tests>
<objects>
%s</objects>
`, date, &defs, &tests, &objects)
	if states.Len() > 0 {
		out += fmt.Sprintf("<states>\n%s</states>\n", &states)
	}
	return out + "</oval_definitions>"
}
