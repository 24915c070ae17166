// Package initramfs puts the trust agent into the initramfs of the worker that it runs on: it installs the hooks of initramfs-tools or
// dracut, fills an initramfs that is being made, and says what is missing for disks to open by attestation.
//
// It follows initramfs-tools(7) and dracut.modules(7). It changes no initramfs by itself unless it is told to.
package initramfs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"

	files "touchstone.dev/touchstone/deploy/initramfs"
)

// Tool makes initramfs images.
type Tool struct {
	Name    string // as in the embedded files
	command string // below the root
	to      string // folder that its files go to, below the root
	rebuild []string
	extra   map[string]string // files by path below the root
}

// tools are those that are known, the one that wins where there are two first: Debian's update-initramfs is a part of initramfs-tools, and of dracut where
// that took its place.
var tools = []Tool{
	{Name: "initramfs-tools", command: "usr/sbin/mkinitramfs", to: "etc/initramfs-tools", rebuild: []string{"update-initramfs", "-u"}},
	{Name: "dracut", command: "usr/bin/dracut", to: "usr/lib/dracut/modules.d/60trust-agent", rebuild: []string{"dracut", "--force"},
		extra: map[string]string{"etc/dracut.conf.d/60-trust-agent.conf": "add_dracutmodules+=\" trust-agent \"\n"}},
}

// ErrNoTool means that neither initramfs-tools nor dracut is there.
var ErrNoTool = errors.New("neither initramfs-tools nor dracut is installed: there is no initramfs to put the agent into")

// Find returns the tool of the system whose root folder is root.
func Find(root string) (Tool, error) {
	for _, t := range tools {
		if _, err := os.Stat(filepath.Join(root, t.command)); err == nil {
			return t, nil
		}
	}
	return Tool{}, ErrNoTool
}

// Rebuild is the command that makes the initramfs anew.
func (t *Tool) Rebuild() string { return strings.Join(t.rebuild, " ") }

// installed is a file that Install writes.
type installed struct {
	path string // below the root
	data []byte
	mode fs.FileMode
}

// wanted are the files of the tool.
func (t *Tool) wanted() ([]installed, error) {
	var out []installed
	err := fs.WalkDir(files.Files, t.Name, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := files.Files.ReadFile(name)
		out = append(out, installed{path.Join(t.to, strings.TrimPrefix(name, t.Name+"/")), data, 0o755})
		return err
	})
	for name, text := range t.extra {
		out = append(out, installed{name, []byte(text), 0o644})
	}
	return out, err
}

// Install writes the files of the tool below root and returns the paths that were new or other than wanted.
func (t *Tool) Install(root string) (changed []string, err error) {
	all, err := t.wanted()
	if err != nil {
		return nil, err
	}
	for _, f := range all {
		name := filepath.Join(root, f.path)
		if same(name, f) {
			continue
		}
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil { //nolint:gosec // folders of the system, for everyone to read
			return changed, fmt.Errorf("install into the initramfs: %w", err)
		}
		if err := write(name, f); err != nil {
			return changed, fmt.Errorf("install into the initramfs: %w", err)
		}
		changed = append(changed, name)
	}
	return changed, nil
}

func same(name string, f installed) bool {
	info, err := os.Stat(name)
	if err != nil || info.Mode().Perm() != f.mode || info.Size() != int64(len(f.data)) {
		return false
	}
	b, err := os.ReadFile(name)
	return err == nil && bytes.Equal(b, f.data)
}

// write replaces a file as a whole: a hook that is half written would break the next update of the kernel.
func write(name string, f installed) error {
	tmp := name + ".new"
	if err := os.WriteFile(tmp, f.data, f.mode); err != nil { //nolint:gosec // programs, for everyone to run
		return err
	}
	return errors.Join(os.Chmod(tmp, f.mode), os.Rename(tmp, name)) //nolint:gosec // as above, whatever the umask is
}

// Run makes the initramfs of this machine anew, with the output of the tool on out.
func (t *Tool) Run(ctx context.Context, out io.Writer) error {
	cmd := exec.CommandContext(ctx, t.rebuild[0], t.rebuild[1:]...) //nolint:gosec // one of two constant commands
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w", t.Rebuild(), err)
	}
	return nil
}
