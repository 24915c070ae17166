// Package tailoring writes XCCDF tailorings (XCCDF 1.2, chapter 6.7): a profile of somebody's content with rules added, rules left out and values set. The
// same wishes make the same bytes, so that the digest of the document stands for them.
package tailoring

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"touchstone.dev/touchstone/internal/compliance/xccdf"
)

// Limits of a tailoring.
const (
	MaxChanges  = 2000
	MaxText     = 1000    // bytes of a value or a reason
	MaxDocument = 4 << 20 // bytes
	maxID       = 300     // bytes
)

// Change selects a rule or group, leaves it out, or gives a value.
type Change struct {
	ID     string // of the rule, group or value
	Text   string // what a value is set to
	Reason string
}

// Tailoring is what is changed of a profile.
type Tailoring struct {
	Profile  string // id of the profile that is changed
	Select   []Change
	Deselect []Change
	Set      []Change
}

var (
	selectable = regexp.MustCompile(`^xccdf_[A-Za-z0-9.-]+_(rule|group)_[A-Za-z0-9._-]+$`)
	settable   = regexp.MustCompile(`^xccdf_[A-Za-z0-9.-]+_value_[A-Za-z0-9._-]+$`)
	profileID  = regexp.MustCompile(`^xccdf_[A-Za-z0-9.-]+_profile_[A-Za-z0-9._-]+$`)
)

// Check returns what is wrong with a tailoring, or nil.
func (t *Tailoring) Check() error {
	var all []error
	bad := func(format string, a ...any) { all = append(all, fmt.Errorf(format, a...)) }
	if !profileID.MatchString(t.Profile) || len(t.Profile) > maxID {
		bad("profile %q: want the id of the profile that is changed, xccdf_..._profile_...", t.Profile)
	}
	if n := len(t.Select) + len(t.Deselect) + len(t.Set); n == 0 || n > MaxChanges {
		bad("%d changes: want 1 to %d", n, MaxChanges)
	}
	seen := map[string]bool{}
	for _, list := range []struct {
		what    string
		changes []Change
		ids     *regexp.Regexp
	}{{"select", t.Select, selectable}, {"deselect", t.Deselect, selectable}, {"set", t.Set, settable}} {
		for _, c := range list.changes {
			switch {
			case !list.ids.MatchString(c.ID) || len(c.ID) > maxID:
				bad("%s %q: want an id like %s", list.what, c.ID, list.ids)
			case seen[c.ID]:
				bad("%s %s: it is named twice", list.what, c.ID)
			case !plain(c.Text) || !plain(c.Reason):
				bad("%s %s: want at most %d bytes of plain text", list.what, c.ID, MaxText)
			}
			seen[c.ID] = true
		}
	}
	return errors.Join(all...)
}

func plain(s string) bool {
	return len(s) <= MaxText && utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return unicode.IsControl(r) || r == utf8.RuneError })
}

// ID is that of the changed profile.
func (t *Tailoring) ID() string {
	_, name, _ := strings.Cut(t.Profile, "_profile_")
	return "xccdf_dev.touchstone.policy_profile_" + name
}

// Document writes the tailoring. It must be one that Check finds good.
func (t *Tailoring) Document() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, `<?xml version="1.0" encoding="UTF-8"?>
<Tailoring xmlns="%s" id="xccdf_dev.touchstone.policy_tailoring_policy">
<version time="2026-01-01T00:00:00">1</version>
<Profile id="%s" extends="%s">
<title>As the policy says</title>
`, xccdf.Namespace, escape(t.ID()), escape(t.Profile))
	for _, list := range []struct {
		changes  []Change
		selected bool
	}{{t.Select, true}, {t.Deselect, false}} {
		for _, c := range sorted(list.changes) {
			remark := ""
			if c.Reason != "" {
				remark = "<remark>" + escape(c.Reason) + "</remark>"
			}
			fmt.Fprintf(&b, `<select idref="%s" selected="%v">%s</select>`+"\n", escape(c.ID), list.selected, remark)
		}
	}
	for _, c := range sorted(t.Set) {
		fmt.Fprintf(&b, `<set-value idref="%s">%s</set-value>`+"\n", escape(c.ID), escape(c.Text))
	}
	b.WriteString("</Profile>\n</Tailoring>\n")
	return b.Bytes()
}

// Digest is the SHA-256 of the document, hexadecimal.
func (t *Tailoring) Digest() string {
	sum := sha256.Sum256(t.Document())
	return hex.EncodeToString(sum[:])
}

func sorted(c []Change) []Change {
	return slices.SortedFunc(slices.Values(c), func(a, b Change) int { return strings.Compare(a.ID, b.ID) })
}

func escape(s string) string {
	var b bytes.Buffer
	_ = xml.EscapeText(&b, []byte(s)) // a buffer takes all
	return b.String()
}

// changes are the elements that change something by its idref.
var changes = map[string]bool{"select": true, "set-value": true, "set-complex-value": true, "refine-value": true, "refine-rule": true}

// Missing returns the ids of profiles, rules and values that a tailoring, of whomever, builds on and content does not have: oscap would pass over them,
// and scan by what is left. Groups are not looked for.
func Missing(document []byte, content *xccdf.Catalogue) ([]string, error) {
	if len(document) > MaxDocument {
		return nil, fmt.Errorf("the tailoring has %d bytes, at most %d are taken", len(document), MaxDocument)
	}
	have := map[string]bool{}
	for i := range content.Profiles {
		have[content.Profiles[i].ID] = true
	}
	for i := range content.Rules {
		have[content.Rules[i].ID] = true
	}
	for _, v := range content.Values {
		have[v] = true
	}
	var out, extended []string
	d := xml.NewDecoder(bytes.NewReader(document))
	for {
		token, err := d.RawToken()
		if errors.Is(err, io.EOF) {
			return append(out, slices.DeleteFunc(extended, func(id string) bool { return have[id] })...), nil
		}
		if err != nil {
			return nil, fmt.Errorf("read the tailoring: %w", err)
		}
		start, ok := token.(xml.StartElement)
		if !ok {
			continue
		}
		for _, a := range start.Attr {
			switch element := start.Name.Local; {
			case len(out)+len(extended) > MaxChanges:
			case element == "Profile" && a.Name.Local == "id": // of the tailoring itself
				have[a.Value] = true
			case element == "Profile" && a.Name.Local == "extends":
				extended = append(extended, a.Value)
			case a.Name.Local == "idref" && changes[element] && (strings.Contains(a.Value, "_rule_") || strings.Contains(a.Value, "_value_")) && !have[a.Value]:
				out = append(out, a.Value)
			}
		}
	}
}
