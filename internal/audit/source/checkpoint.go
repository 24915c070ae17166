package source

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// checkpoint is what was handed out and committed.
type checkpoint struct {
	Version  int       `json:"version"`
	BootID   string    `json:"bootID"`
	Log      *place    `json:"log,omitempty"` // all before it was handed out
	Current  numbers   `json:"current"`       // events of this boot
	Previous numbers   `json:"previous"`      // events before this boot
	Daemons  []daemon  `json:"daemons,omitempty"`
	Written  time.Time `json:"written"`
}

// numbers are serial numbers that were handed out, and those of them that were given as a gap.
type numbers struct {
	Spans []span `json:"spans,omitempty"`
	Named []span `json:"named,omitempty"`
}

// daemon is a record of auditd's that was handed out and lies behind Log. Its numbers are not the kernel's.
type daemon struct {
	ID string `json:"id"`
	at int64  // not before its end in the log as a whole; -1: of a reader before this one
}

// maxDaemons bounds what is remembered of auditd's records; a log has a few a day behind the place.
const maxDaemons = 256

// noteDaemon remembers one, or that it was met again.
func (c *checkpoint) noteDaemon(d daemon) {
	c.Daemons = slices.DeleteFunc(c.Daemons, func(o daemon) bool { return o.ID == d.ID })
	c.Daemons = append(c.Daemons, d)
	if len(c.Daemons) > maxDaemons {
		c.Daemons = slices.Delete(c.Daemons, 0, 1)
	}
}

const checkpointVersion = 1

// load reads a checkpoint; nil when there is none yet.
func load(path string) (*checkpoint, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("checkpoint of audit: %w", err)
	}
	var c checkpoint
	if err := json.Unmarshal(b, &c); err != nil {
		return nil, broken(path, err)
	}
	if c.Version != checkpointVersion {
		return nil, broken(path, fmt.Errorf("version %d, want %d", c.Version, checkpointVersion))
	}
	return &c, nil
}

func broken(path string, err error) error {
	return fmt.Errorf("checkpoint %s is broken: %w; remove it: events since it was written are then read again, or missing", path, err)
}

var errOrder = errors.New("its numbers are not in order")

// save writes a checkpoint so that after a crash the old or the new one is there.
func (c *checkpoint) save(path string) error {
	b, err := json.Marshal(c)
	if err != nil {
		return fmt.Errorf("checkpoint of audit: %w", err)
	}
	f, err := os.OpenFile(path+".new", os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("checkpoint of audit: %w", err)
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = os.Rename(path+".new", path)
	}
	if err == nil {
		err = syncDir(filepath.Dir(path))
	}
	if err != nil {
		return fmt.Errorf("checkpoint of audit: %w", err)
	}
	return nil
}

func syncDir(name string) error {
	d, err := os.Open(name)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// boot returns this boot's id and when it began, by the clock of today.
func boot() (string, time.Time, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", time.Time{}, fmt.Errorf("boot id: %w", err)
	}
	var up unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &up); err != nil {
		return "", time.Time{}, fmt.Errorf("time since boot: %w", err)
	}
	return strings.TrimSpace(string(b)), time.Now().Add(-time.Duration(up.Nano())), nil
}

// ownPIDs are the numbers that this process has, here and in outer PID namespaces that /proc shows.
func ownPIDs() []string {
	pids := []string{strconv.Itoa(os.Getpid())}
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return pids
	}
	for line := range strings.Lines(string(b)) {
		if after, ok := strings.CutPrefix(line, "NSpid:"); ok {
			pids = append(pids, strings.Fields(after)...)
		}
	}
	return pids
}
