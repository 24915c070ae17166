package cluster

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// bind mounts files and folders over the worker's paths. Below /sys nothing can be made: the deepest folder that is there is replaced by
// one in memory with the same entries, in which what is missing is made.
func (in *inside) bind() error {
	targets := make([]string, 0, len(in.Binds))
	for target := range in.Binds {
		targets = append(targets, target)
	}
	slices.Sort(targets) // outer ones first
	for _, target := range targets {
		if err := bindOne(in.Binds[target], target); err != nil {
			return fmt.Errorf("mount %s over %s: %w", in.Binds[target], target, err)
		}
	}
	return nil
}

func bindOne(source, target string) error {
	info, err := os.Stat(source)
	if err != nil {
		return err
	}
	if _, err := os.Stat(target); errors.Is(err, os.ErrNotExist) {
		if err := openUp(target); err != nil {
			return err
		}
		if err := makeTarget(target, info.IsDir()); err != nil {
			return err
		}
	}
	return syscall.Mount(source, target, "", syscall.MS_BIND, "")
}

func makeTarget(target string, folder bool) error {
	if folder {
		return os.MkdirAll(target, 0o755)
	}
	if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
		return err
	}
	return os.WriteFile(target, nil, 0o644)
}

// openUp lets a path below /sys be made.
func openUp(target string) error {
	if !strings.HasPrefix(target, "/sys/") {
		return nil
	}
	folder := filepath.Dir(target)
	for {
		if _, err := os.Stat(folder); err == nil {
			break
		}
		folder = filepath.Dir(folder)
	}
	probe := filepath.Join(folder, prefix+"probe")
	if err := os.Mkdir(probe, 0o700); err == nil {
		return os.Remove(probe) // it has been replaced already
	}
	return replace(folder)
}

// replace puts a folder in memory in the place of a folder, with the same entries.
func replace(folder string) error {
	const aside = "/run/aside"
	entries, err := os.ReadDir(folder)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(aside, 0o700); err != nil {
		return err
	}
	if err := syscall.Mount(folder, aside, "", syscall.MS_BIND|syscall.MS_REC, ""); err != nil {
		return err
	}
	if err := syscall.Mount("tmpfs", folder, "tmpfs", 0, "mode=755"); err != nil {
		return err
	}
	for _, e := range entries {
		from, to := filepath.Join(aside, e.Name()), filepath.Join(folder, e.Name())
		if e.Type()&os.ModeSymlink != 0 {
			link, err := os.Readlink(from)
			if err == nil {
				err = os.Symlink(link, to)
			}
			if err != nil {
				return err
			}
			continue
		}
		if err := makeTarget(to, e.IsDir()); err != nil {
			return err
		}
		if err := syscall.Mount(from, to, "", syscall.MS_BIND|syscall.MS_REC, ""); err != nil {
			return err
		}
	}
	return syscall.Unmount(aside, syscall.MNT_DETACH)
}
