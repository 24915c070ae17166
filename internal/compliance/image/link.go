package image

import (
	"fmt"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// inward returns the target of a symbolic link, in a form that leads to the same place with and without the tree as root: relative, first as many
// ".." as bring it to the root of the tree at most, then names only. folder is where the link is, with no link in it. It is false for a target that
// goes up after it went down: where that leads depends on links on the way.
//
// By induction nothing in a tree of such links leads out of it: the steps up start at the link's own folder, so they are real ones, and each name after
// them is a file of the tree or again such a link.
func inward(folder, target string) (string, bool) {
	depth := 0
	if folder != "/" {
		depth = strings.Count(folder, "/")
	}
	up := 0
	if strings.HasPrefix(target, "/") {
		up = depth
	}
	var down []string
	for _, part := range strings.Split(target, "/") {
		switch {
		case part == "" || part == ".":
		case part == ".." && len(down) > 0:
			return "", false
		case part == "..":
			up = min(up+1, depth)
		default:
			down = append(down, part)
		}
	}
	if up == 0 && len(down) == 0 {
		return ".", true
	}
	return strings.TrimSuffix(strings.Repeat("../", up)+strings.Join(down, "/"), "/"), true
}

// winding is a link whose target goes down and up again. It is made when all layers are there.
type winding struct{ folder, base, target string }

// settle makes the links that had to wait: each leads to what its target is now, or nowhere.
func (t *tree) settle(links []winding) error {
	for _, l := range links { // the kernel keeps those that are still to come within the tree
		if err := t.settleOne(l); err != nil {
			return fmt.Errorf("link %q: %w", clip(l.base), err)
		}
	}
	return nil
}

func (t *tree) settleOne(l winding) error {
	dir, err := t.resolve(l.folder, unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return nil //nolint:nilerr // a later layer removed it
	}
	defer unix.Close(dir) //nolint:errcheck // nothing was written
	var st unix.Stat_t
	if unix.Fstatat(dir, l.base, &st, unix.AT_SYMLINK_NOFOLLOW) != nil || st.Mode&unix.S_IFMT != unix.S_IFLNK {
		return nil // a later layer put something else there
	}
	target := l.target
	if !strings.HasPrefix(target, "/") {
		target = l.folder + "/" + target
	}
	to := path.Clean("/" + target) // leads nowhere, or to some file of the tree
	if fd, err := t.resolve(target, unix.O_PATH); err == nil {
		to, err = t.within(fd)
		unix.Close(fd) //nolint:errcheck // nothing was written
		if err != nil {
			return err
		}
	}
	safe, _ := inward(l.folder, to)
	if err := unix.Unlinkat(dir, l.base, 0); err != nil {
		return err
	}
	return unix.Symlinkat(safe, dir, l.base)
}
