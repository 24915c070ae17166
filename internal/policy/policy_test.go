package policy

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const head = "apiVersion: touchstone.dev/v1alpha1\nkind: TrustPolicy\nmetadata: {name: debian-worker}\n"

// TestDefault: the commented default parses, and says what a policy that says nothing gets.
func TestDefault(t *testing.T) {
	whole, err := Parse(Default())
	if err != nil {
		t.Fatalf("Parse(Default()): %v", err)
	}
	empty, err := Parse([]byte(head))
	if err != nil {
		t.Fatal(err)
	}
	// Where the default shows an empty list, leaving it out is the same.
	whole.Spec.SecureBoot.Actions, whole.Spec.BootLoader.MachineOwnerKeys, whole.Spec.Kernel.CommandLine.Allowed = nil, nil, nil
	whole.Spec.BootLoader.DataAtRest.Keys = nil
	whole.Spec.Runtime.Detections.Rules = nil
	whole.Spec.Runtime.AllowPaths, whole.Spec.Runtime.MustMatch, whole.Spec.Exceptions = nil, nil, nil
	c := &whole.Spec.Runtime.Compliance
	c.Content, c.Tailorings, c.Required, c.Waivers = nil, nil, nil, nil
	whole.Spec.Runtime.Images.Content, whole.Spec.Runtime.Images.Tailorings = nil, nil
	if d := cmp.Diff(whole, empty); d != "" {
		t.Errorf("Default() and an empty spec differ (-default +empty):\n%s", d)
	}
}

func TestParseRefuses(t *testing.T) {
	for name, tt := range map[string]struct{ yaml, want string }{
		"unknown field":     {head + "spec: {software: {}}", "software"},
		"wrong kind":        {strings.Replace(head, "TrustPolicy", "Pod", 1), "kind"},
		"no name":           {strings.Replace(head, "name: debian-worker", "", 1), "metadata.name"},
		"YAML's on":         {head + "spec: {secureBoot: {state: on}}", "secureBoot.state"},
		"unknown word":      {head + "spec: {kernel: {lockdown: full}}", "kernel.lockdown"},
		"weak bank":         {head + "spec: {attestation: {banks: [sha1]}}", "too weak"},
		"no such key":       {head + "spec: {bootLoader: {dataAtRest: {keys: [yubikey]}}}", "yubikey"},
		"no passphrase":     {head + "spec: {bootLoader: {dataAtRest: {passphrases: none}}}", "names nothing"},
		"no path":           {head + "spec: {bootLoader: {dataAtRest: {mounts: [home]}}}", "home"},
		"volumes":           {head + "spec: {bootLoader: {dataAtRest: {volumes: all}}}", "bootLoader.dataAtRest.volumes"},
		"PCR 24":            {head + "spec: {attestation: {pcrs: [24]}}", "24"},
		"short age":         {head + "spec: {attestation: {interval: 60s, maxAge: 90s}}", "maxAge"},
		"taint letter":      {head + "spec: {kernel: {forbiddenTaints: Z}}", "forbiddenTaints"},
		"authority":         {head + "spec: {bootLoader: {authorities: [everybody]}}", "everybody"},
		"owner key":         {head + "spec: {bootLoader: {machineOwnerKeys: [ab]}}", "machineOwnerKeys"},
		"half a path rule":  {head + "spec: {runtime: {mustMatch: [{path: /bin/x}]}}", "mustMatch"},
		"exception of what": {head + "spec: {exceptions: [{rule: kernel.initrd, allow: everything}]}", "exceptions"},
		"not a date":        {head + "spec: {exceptions: [{rule: kernel.initrd, allow: fail, until: soon}]}", "soon"},
		"too large":         {head + "#" + strings.Repeat(" ", MaxSize), "more than"},
	} {
		if _, err := Parse([]byte(tt.yaml)); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("Parse(%s): got %v, want an error with %q", name, err, tt.want)
		}
	}
}

// TestID: comments and order do not count, content does.
func TestID(t *testing.T) {
	id := func(yaml string) string {
		t.Helper()
		p, err := Parse([]byte(yaml))
		if err != nil {
			t.Fatal(err)
		}
		return p.ID()
	}
	a := id(head + "spec: {kernel: {lockdown: any, modules: any}}")
	if b := id("# another\n" + head + "spec: {kernel: {modules: any, lockdown: any}}"); a != b {
		t.Errorf("ID: got %s and %s for the same policy", a, b)
	}
	if b := id(head + "spec: {kernel: {modules: any}}"); a == b {
		t.Error("ID: another policy has the same one")
	}
}

func TestSoftens(t *testing.T) {
	p, err := Parse([]byte(head + "spec: {exceptions: [{rule: a, allow: unknown}, {rule: b, allow: fail, until: 2026-12-01}]}"))
	if err != nil {
		t.Fatal(err)
	}
	day := func(d int) time.Time { return time.Date(2026, 12, d, 0, 0, 0, 0, time.UTC) }
	for _, tt := range []struct {
		rule, status string
		now          time.Time
		want         bool
	}{
		{"a", "unknown", day(9), true}, {"a", "fail", day(9), false}, {"b", "fail", day(1), true}, {"b", "unknown", day(1), true},
		{"b", "fail", day(2), false}, {"c", "unknown", day(1), false},
	} {
		if _, got := p.Softens(tt.rule, tt.status, tt.now); got != tt.want {
			t.Errorf("Softens(%s, %s, %s): got %v, want %v", tt.rule, tt.status, tt.now.Format(time.DateOnly), got, tt.want)
		}
	}
}

func TestMatch(t *testing.T) {
	long := strings.Repeat("a", 4000)
	for _, tt := range []struct {
		pattern, s string
		want       bool
	}{
		{"", "", true}, {"*", "", true}, {"", "a", false}, {"ima_policy=*", "ima_policy=tcb", true}, {"ima_policy=*", "xima_policy=tcb", false},
		{"/var/*/log", "/var/a/b/log", true}, {"/var/*/log", "/var/log", false}, {"a*b*c", "a-b-b-c", true}, {"a?c", "abc", false}, {"[a]", "a", false},
		{strings.Repeat("*a", 30) + "b", long, false},
	} {
		if got := Match(tt.pattern, tt.s); got != tt.want {
			t.Errorf("Match(%.20q, %.20q): got %v, want %v", tt.pattern, tt.s, got, tt.want)
		}
	}
}

// FuzzParse: a policy that parses has an ID and parses again to the same one.
func FuzzParse(f *testing.F) {
	f.Add(Default())
	f.Add([]byte(head))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := Parse(b)
		if err == nil && p.ID() == "" {
			t.Error("ID: empty")
		}
	})
}
