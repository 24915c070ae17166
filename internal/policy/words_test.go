package policy

import (
	"fmt"
	"strings"
	"testing"
)

// TestEveryWord: each field of fixed words takes these and no other; a field left out is the first one.
func TestEveryWord(t *testing.T) {
	for field, words := range map[string][]string{
		"firmware.known": {"reference", "any"}, "firmware.optionROMs": {"known", "any"}, "firmware.hardwareRoot": {"any", "required"},
		"firmware.bootGuard": {"any", "claimed"}, "firmware.endorsement": {"offered", "required"},
		"secureBoot.state": {"required", "any"}, "secureBoot.keys": {"reference", "any"}, "secureBoot.dbx": {"reference", "any"},
		"bootLoader.images": {"reference", "signed"},
		"kernel.images":     {"reference", "signed"}, "kernel.initrd": {"reference", "any"}, "kernel.lockdown": {"integrity", "confidentiality", "any"},
		"kernel.moduleSignatures": {"enforced", "any"}, "kernel.modules": {"reference", "any"},
		"runtime.ima": {"required", "any"}, "runtime.files": {"reference", "any"}, "runtime.violations": {"deny", "warn"},
	} {
		level, name, _ := strings.Cut(field, ".")
		yaml := func(word string) []byte { return fmt.Appendf(nil, "%sspec: {%s: {%s: %q}}", head, level, name, word) }
		empty, err := Parse([]byte(head))
		if err != nil {
			t.Fatal(err)
		}
		for i, w := range words {
			p, err := Parse(yaml(w))
			if err != nil {
				t.Errorf("Parse(%s: %s): %v", field, w, err)
				continue
			}
			if (p.ID() == empty.ID()) != (i == 0) {
				t.Errorf("Parse(%s: %s): is the default %v, want %v", field, w, p.ID() == empty.ID(), i == 0)
			}
		}
		for _, w := range []string{"yes", "Any", " any", "off", "none"} {
			if _, err := Parse(yaml(w)); err == nil || !strings.Contains(err.Error(), field) {
				t.Errorf("Parse(%s: %q): got %v, want an error that names the field", field, w, err)
			}
		}
	}
}

// TestMatchOfHostilePatterns: no pattern makes matching explode.
func TestMatchOfHostilePatterns(t *testing.T) {
	s := strings.Repeat("a", 1<<12)
	for _, p := range []string{strings.Repeat("*a", 1<<11) + "b", strings.Repeat("*", 1<<12) + "b", strings.Repeat("a*", 1<<11) + "b", "*" + s + "b"} {
		if Match(p, s) {
			t.Errorf("Match(%.20q...): got true, want false", p)
		}
	}
}
