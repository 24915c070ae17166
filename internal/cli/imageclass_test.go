package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestImageScanByClass: an image passes by what its class asks, waivers included, as it does at the admission of pods.
func TestImageScanByClass(t *testing.T) {
	dir := t.TempDir()
	class := func(compliance string) string {
		file := filepath.Join(dir, "class.yaml")
		text := "apiVersion: touchstone.dev/v1alpha1\nkind: TrustClass\nmetadata: {name: c}\nspec: {images: {compliance: " + compliance + "}}\n"
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	waiver := func(more string, until time.Duration) string {
		return fmt.Sprintf("{profile: xccdf_dev.touchstone_profile_image, content: [baseline], maxAge: 1h, waivers: [{rule: xccdf_dev.touchstone_rule_no_telnet, reason: r, owner: o, until: %q%s}]}",
			time.Now().Add(until).UTC().Format(time.RFC3339), more)
	}
	feed := fmt.Appendf(nil, feedFor, time.Now().Add(-time.Hour).UTC().Format(time.RFC3339))
	if err := os.WriteFile(filepath.Join(dir, "oval-definitions-bookworm.xml"), feed, 0o600); err != nil {
		t.Fatal(err)
	}
	all := places(t, debian(t, "base-files", "telnet"))
	named, layout := all[0], all[1]
	repository, _, _ := strings.Cut(strings.TrimSuffix(named, ":1"), "@")
	const flaws = "{maxAge: 1h, vulnerabilities: {%s}}"
	for name, c := range map[string]struct {
		class, place string
		args         []string
		code         int
		want         string
	}{
		"fails":                {"{profile: xccdf_dev.touchstone_profile_image, maxAge: 1h}", layout, nil, ExitNotTrusted, "no_telnet"},
		"within":               {"{profile: xccdf_dev.touchstone_profile_image, maxAge: 1h, maxFailed: {high: 1}}", layout, nil, ExitOK, ""},
		"waived":               {waiver("", time.Hour), layout, nil, ExitOK, ""},
		"the waiver has ended": {waiver("", -time.Hour), layout, nil, ExitNotTrusted, "no_telnet"},
		"waived for it":        {waiver(", repository: \""+repository+"\"", time.Hour), named, nil, ExitOK, ""},
		"waived for another":   {waiver(", repository: registry.example/other", time.Hour), named, nil, ExitNotTrusted, "no_telnet"},
		"from a layout":        {waiver(", repository: \""+repository+"\"", time.Hour), layout, nil, ExitNotTrusted, "no_telnet"},
		"vulnerable":           {fmt.Sprintf(flaws, ""), layout, []string{"--feed", dir}, ExitNotTrusted, "CVE-2026-1"},
		"tolerated":            {fmt.Sprintf(flaws, "max: {high: 1}"), layout, []string{"--feed", dir}, ExitOK, ""},
		"no feed is given":     {fmt.Sprintf(flaws, ""), layout, nil, ExitUnreadable, "give --feed"},
		"content is not given": {"{profile: p, maxAge: 1h}", layout, nil, ExitUnreadable, "give --content"},
		"malformed":            {"{profile: p, maxAge: 0s}", layout, nil, ExitUnreadable, "maxAge"},
		"a field that is not":  {"{profile: p, maxAge: 1h, waiver: []}", layout, nil, ExitUnreadable, "waiver"},
		"it asks for no scan":  {"null", layout, nil, ExitUnreadable, "no TrustClass"},
	} {
		code, got, said := scanFor(t, append([]string{"--class", class(c.class), c.place}, c.args...)...)
		if code != c.code || !strings.Contains(fmt.Sprint(got["problems"])+said, c.want) {
			t.Errorf("%s: got %d, %v %s, want %d and %q", name, code, got["problems"], said, c.code, c.want)
		}
	}
}
