package agent

import (
	"bytes"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"

	"touchstone.dev/touchstone/internal/evidence"
)

// Host is what the agent reads of the worker it runs on.
type Host interface {
	// EventLog returns the firmware log, nil when the kernel has none.
	EventLog() ([]byte, error)
	// IMA returns the IMA list from a byte offset on, nil when the kernel has none. An offset beyond the end is an error.
	IMA(offset uint64) ([]byte, error)
	// Facts returns the files that the worker claims by.
	Facts() (map[string][]byte, error)
	// IMACount returns the number of entries of the IMA list.
	IMACount() (uint64, error)
	// Modules returns a number that changes when a kernel module comes or goes.
	Modules() (uint64, error)
}

// Files of the kernel that are looked at again and again.
const (
	imaCountPath = "sys/kernel/security/ima/runtime_measurements_count"
	modulesPath  = "proc/modules"
)

// Bounds of these files in bytes.
const (
	maxCount   = 64
	maxModules = 1 << 20
)

// readCount reads a file that holds one number.
func readCount(path string) (uint64, error) {
	data, err := readBounded(path, maxCount)
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(data)), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("read %s: %w", path, err)
	}
	return n, nil
}

// readModules hashes the names in /proc/modules. Use counts and states are left out: they change all the time and say nothing.
func readModules(path string) (uint64, error) {
	data, err := readBounded(path, maxModules)
	if err != nil {
		return 0, err
	}
	h := fnv.New64a()
	for line := range bytes.Lines(data) {
		name, _, _ := bytes.Cut(line, []byte(" "))
		h.Write(name)
		h.Write([]byte{'\n'})
	}
	return h.Sum64(), nil
}

// hostFiles is the host whose file system has its root at root.
type hostFiles struct {
	root           string
	count, modules string
}

// HostAt returns the worker whose file system has its root at root ("/").
func HostAt(root string) Host {
	return hostFiles{root: root, count: filepath.Join(root, imaCountPath), modules: filepath.Join(root, modulesPath)}
}

func (h hostFiles) EventLog() ([]byte, error) { return evidence.ReadEventLog(h.root) }
func (h hostFiles) IMACount() (uint64, error) { return readCount(h.count) }
func (h hostFiles) Modules() (uint64, error)  { return readModules(h.modules) }

func (h hostFiles) IMA(offset uint64) ([]byte, error) {
	list, err := evidence.ReadIMA(h.root, offset)
	if errors.Is(err, fs.ErrNotExist) && offset == 0 {
		return nil, nil
	}
	return list, err
}

func (h hostFiles) Facts() (map[string][]byte, error) {
	facts, _, err := evidence.ReadHostFacts(h.root)
	return facts, err
}
