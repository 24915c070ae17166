package runtimeconf

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/pelletier/go-toml/v2"
)

// maxFiles bounds what the configuration of containerd may consist of.
const maxFiles = 100

// CheckFiles is CheckContainerd for who cannot run the host's containerd: it reads the files that containerd would read, below a root. A setting
// that no file has is containerd's default. started is when containerd began to listen: what changed later it has not read.
func CheckFiles(v Version, root string, started time.Time, h Host) ([]string, error) {
	c, files, err := readFiles(root)
	if err != nil {
		return nil, err
	}
	problems := c.check(v, h)
	for _, file := range files {
		if info, err := os.Stat(filepath.Join(root, file)); err == nil && info.ModTime().After(started) {
			return append(problems, fmt.Sprintf("%s changed at %s, and containerd runs since %s: restart it, as with `systemctl restart containerd` (pods go on)",
				file, info.ModTime().UTC().Format(time.RFC3339), started.UTC().Format(time.RFC3339))), nil
		}
	}
	return problems, nil
}

// readFiles reads the configuration as containerd does: the main file, then what it imports, each over those before. A main file that is not there is empty.
func readFiles(root string) (*config, []string, error) {
	c := &config{}
	c.Plugins.Old.Decryption.KeyModel, c.Plugins.New.Decryption.KeyModel = "node", "node" // the default
	files := []string{ContainerdFile}
	for i := 0; i < len(files); i++ {
		b, err := os.ReadFile(filepath.Join(root, files[i]))
		if errors.Is(err, fs.ErrNotExist) && i == 0 {
			return c, nil, nil
		}
		if err != nil {
			return nil, nil, err
		}
		c.Imports, c.Version = nil, 0
		before := c.Plugins.Old.Decryption
		if err := toml.Unmarshal(b, c); err != nil {
			return nil, nil, fmt.Errorf("%s: %w", files[i], err)
		}
		if old := &c.Plugins.Old; c.Version < 3 { // containerd 2 takes these for those of the plugin that has them there
			if old.Decryption != before {
				c.Plugins.New.Decryption = old.Decryption
			}
			if r := old.Registry; len(r.Mirrors)+len(r.Configs)+len(r.Auths) > 0 {
				c.Plugins.New.Registry = r
			}
		}
		for _, pattern := range c.Imports {
			more, err := imported(root, files[i], pattern)
			if err != nil {
				return nil, nil, err
			}
			for _, file := range more {
				if !slices.Contains(files, file) {
					files = append(files, file)
				}
			}
		}
		if len(files) > maxFiles {
			return nil, nil, fmt.Errorf("the configuration of containerd consists of more than %d files", maxFiles)
		}
	}
	return c, files, nil
}

// imported are the files of a pattern, in order, as the host names them.
func imported(root, from, pattern string) ([]string, error) {
	if !filepath.IsAbs(pattern) {
		pattern = filepath.Join(filepath.Dir(from), pattern)
	}
	found, err := filepath.Glob(filepath.Join(root, pattern))
	if err != nil {
		return nil, fmt.Errorf("%s imports %q: %w", from, pattern, err)
	}
	for i, file := range found {
		if found[i], err = filepath.Rel(root, file); err != nil {
			return nil, err
		}
		found[i] = "/" + found[i]
	}
	return found, nil
}
