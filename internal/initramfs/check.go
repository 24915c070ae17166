package initramfs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"touchstone.dev/touchstone/internal/agent"
)

// soon is how long before the end of the certificate in the initramfs somebody should act.
const soon = 10 * 24 * time.Hour

// Check looks at what it takes for the disks of the system below root to open by attestation. It changes nothing.
func Check(root string, cfg *agent.Config, now time.Time) []agent.Checked {
	t, err := Find(root)
	if err != nil {
		return []agent.Checked{{What: "initramfs", Err: err}}
	}
	return []agent.Checked{
		{What: "initramfs", Seen: "made by " + t.Name}, t.checkFiles(root), t.checkClevis(root), t.checkImage(root), checkIdentity(cfg, now),
		checkCommandLine(root),
	}
}

func (t *Tool) checkFiles(root string) (c agent.Checked) {
	c.What = "hooks"
	all, err := t.wanted()
	if err != nil {
		c.Err = err
		return c
	}
	for _, f := range all {
		if !same(filepath.Join(root, f.path), f) {
			c.Err = fmt.Errorf("/%s is missing or another one: trust-agent initramfs install", f.path)
			return c
		}
	}
	c.Seen = fmt.Sprintf("%d files in /%s", len(all), t.to)
	return c
}

// clevisPlaces are where clevis puts itself into an initramfs, by tool.
var clevisPlaces = map[string]struct{ path, pkg string }{
	"initramfs-tools": {"usr/share/initramfs-tools/hooks/clevis", "clevis-initramfs"},
	"dracut":          {"usr/lib/dracut/modules.d/60clevis", "clevis-dracut"},
}

func (t *Tool) checkClevis(root string) (c agent.Checked) {
	c.What = "clevis"
	place := clevisPlaces[t.Name]
	if _, err := os.Stat(filepath.Join(root, place.path)); err != nil {
		c.Err = fmt.Errorf("clevis is not in the initramfs: install %s", place.pkg)
		return c
	}
	c.Seen = "in the initramfs (" + place.pkg + ")"
	return c
}

// checkImage compares times: an initramfs that is older than a file that belongs into it does not have that file as it is now.
func (t *Tool) checkImage(root string) (c agent.Checked) {
	c.What = "image"
	images, _ := filepath.Glob(filepath.Join(root, "boot", "init*"))
	var newest string
	var made time.Time
	for _, f := range images {
		if info, err := os.Stat(f); err == nil && info.ModTime().After(made) {
			newest, made = f, info.ModTime()
		}
	}
	if newest == "" {
		c.Err = fmt.Errorf("there is no initramfs in /boot: %s", t.Rebuild())
		return c
	}
	all, err := t.wanted()
	if err != nil {
		c.Err = err
		return c
	}
	names := []string{"usr/bin/trust-agent"}
	for _, f := range all {
		names = append(names, f.path)
	}
	for _, name := range names {
		info, err := os.Stat(filepath.Join(root, name))
		if err != nil {
			c.Err = fmt.Errorf("/%s is not there: the initramfs cannot have it", name)
			return c
		}
		if info.ModTime().After(made) {
			c.Err = fmt.Errorf("/boot/%s is older than /%s: %s, and import its new SHA-256 at AIAS (touchstone reference import files)", filepath.Base(newest), name, t.Rebuild())
			return c
		}
	}
	c.Seen = fmt.Sprintf("/boot/%s of %s", filepath.Base(newest), made.Format(time.DateTime))
	return c
}

func checkIdentity(cfg *agent.Config, now time.Time) (c agent.Checked) {
	c.What = "enrolment"
	id, err := agent.LoadIdentity(cfg.StateDir)
	if err != nil {
		c.Err = err
		return c
	}
	_, until, err := id.Validity()
	switch {
	case err != nil:
		c.Err = err
	case now.Add(soon).After(until):
		c.Err = fmt.Errorf("the certificate ends at %s: let trust-agent run, which renews it, and make the initramfs anew", until.Format(time.DateTime))
	default:
		c.Seen = fmt.Sprintf("%s, certificate valid until %s", id.Node, until.Format(time.DateTime))
	}
	return c
}

// checkCommandLine looks for what the network of the initramfs and level 4 need.
func checkCommandLine(root string) (c agent.Checked) {
	c.What = "command line"
	b, err := os.ReadFile(filepath.Join(root, "proc", "cmdline"))
	if err != nil {
		c.Err = err
		return c
	}
	words := strings.Fields(string(b))
	has := func(prefix string) bool {
		return slices.ContainsFunc(words, func(w string) bool { return strings.HasPrefix(w, prefix) })
	}
	switch {
	case slices.Contains(words, "ip=dhcp"):
		c.Err = errors.New("ip=dhcp: clevis 19 and older wait for an interface of that name: write ip=:::::eth0:dhcp, with the name of yours")
	case !has("ima_policy="):
		c.Err = errors.New("no ima_policy=: modules are not measured in the initramfs, and level 4 cannot be told: add ima_policy=tcb")
	default:
		c.Seen = "IMA measures from the start"
	}
	return c
}
