package oscap

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/xml"
	"fmt"
	"regexp"
	"strings"
)

// A canary is a small file of OVAL tests whose answers we know, because we read the root ourselves. oscap evaluates it in the same namespace, with
// the same configuration and the same root as the scan that follows. It is a run of its own (80 ms), because content of others cannot be added to
// without changing what its digest and its signature say; what could fail in the scan and not in the canary is told on stderr, which is watched.

// probe is one test of the canary.
type probe struct {
	what string // for people
	want bool
	test string // name of the element, with its prefix
	body string // of the object
}

// canary makes the tests for a root. secret is a name that nobody can have made.
func (p *packages) canary(file, secret string, patterns bool) []probe {
	pkg := func(what, name string, want bool) probe {
		return probe{what, want, "linux:dpkginfo", "<linux:name>" + name + "</linux:name>"}
	}
	at := func(what, path string, want bool) probe {
		return probe{what, want, "unix:file", "<unix:filepath>" + text(path) + "</unix:filepath>"}
	}
	out := []probe{at("file "+file+", which is there", file, true), at("file /"+secret+", which is not there", "/"+secret, false)}
	switch p.manager {
	case dpkg:
		if name := p.present(); name != "" {
			out = append(out, pkg("package "+name+", which is installed", name, true))
			if patterns { // oscap 1.3.7 does not know how, and says "absent"
				quoted := text("^" + regexp.QuoteMeta(name) + "$")
				out = append(out, probe{"package " + name + " by a pattern, as the content asks", true, "linux:dpkginfo", `<linux:name operation="pattern match">` + quoted + `</linux:name>`})
			}
		}
		out = append(out, pkg("package "+secret+", which is not installed", secret, false))
	case rpm:
		name := func(pattern string) string {
			return `<linux:name operation="pattern match">` + pattern + `</linux:name>`
		}
		out = append(out,
			probe{"a package that every rpm system has", true, "linux:rpminfo", name("^(filesystem|setup|glibc|rpm)$")},
			probe{"package " + secret + ", which is not installed", false, "linux:rpminfo", name("^" + secret + "$")})
	}
	return out
}

func text(s string) string {
	var b bytes.Buffer
	_ = xml.EscapeText(&b, []byte(s)) // a buffer takes all
	return b.String()
}

const (
	ovalHead = `<?xml version="1.0" encoding="UTF-8"?>
<oval_definitions xmlns="http://oval.mitre.org/XMLSchema/oval-definitions-5" xmlns:oval="http://oval.mitre.org/XMLSchema/oval-common-5" xmlns:linux="http://oval.mitre.org/XMLSchema/oval-definitions-5#linux" xmlns:unix="http://oval.mitre.org/XMLSchema/oval-definitions-5#unix">
<generator><oval:schema_version>5.11</oval:schema_version><oval:timestamp>2026-01-01T00:00:00</oval:timestamp></generator>
`
	canaryID = "oval:dev.touchstone.canary:%s:%d"
)

// canaryDocument writes the tests as OVAL definitions, numbered from 1.
func canaryDocument(probes []probe) []byte {
	var defs, tests, objects bytes.Buffer
	for i, p := range probes {
		def, tst, obj := fmt.Sprintf(canaryID, "def", i+1), fmt.Sprintf(canaryID, "tst", i+1), fmt.Sprintf(canaryID, "obj", i+1)
		fmt.Fprintf(&defs, `<definition class="inventory" id="%s" version="1"><metadata><title>%s</title><description>canary</description></metadata><criteria><criterion test_ref="%s"/></criteria></definition>`+"\n",
			def, text(p.what), tst)
		fmt.Fprintf(&tests, `<%s_test check="all" check_existence="at_least_one_exists" comment="canary" id="%s" version="1"><%s object_ref="%s"/></%s_test>`+"\n",
			p.test, tst, objectRef(p.test), obj, p.test)
		fmt.Fprintf(&objects, `<%s_object id="%s" version="1">%s</%s_object>`+"\n", p.test, obj, p.body, p.test)
	}
	return fmt.Appendf(nil, "%s<definitions>\n%s</definitions>\n<tests>\n%s</tests>\n<objects>\n%s</objects>\n</oval_definitions>\n", ovalHead, &defs, &tests, &objects)
}

func objectRef(test string) string {
	prefix, _, _ := strings.Cut(test, ":")
	return prefix + ":object"
}

var definitionLine = regexp.MustCompile(`(?m)^Definition oval:dev\.touchstone\.canary:def:([0-9]+): (.*)$`)

// sing runs the canary and compares its answers.
func (w *work) sing(ctx context.Context) error {
	run, err := w.oscap(ctx, nil, "oval", "eval", w.inside("canary.xml"))
	if err != nil {
		return err
	}
	if err := run.said(CanaryDied); err != nil {
		return err
	}
	got := map[string]string{}
	for _, m := range definitionLine.FindAllStringSubmatch(run.stdout.String(), -1) {
		got[m[1]] = m[2]
	}
	for i, p := range w.canary {
		want := fmt.Sprint(p.want)
		if answer := got[fmt.Sprint(i+1)]; answer != want {
			return failed(CanaryDied, "oscap was asked for the %s, and said %q, not %s: what it says of packages and files here cannot be relied on; see `oscap oval eval`, apt's configuration and the package database",
				p.what, answer, want)
		}
	}
	return nil
}

func newSecret() string { return "touchstone-canary-" + strings.ToLower(rand.Text()) }
