// Package attribution says where an audit event comes from: pod, container and image, or the unit of the host; and whose login it was of. The kernel's
// records do not hold that: it is looked up when an event is taken in, from the stamped pid through /proc/PID/cgroup, and is the agent's word.
//
// Processes that are gone by then are attributed to the pod that they, or their parent, were seen in before; never to the host, since what starts a
// container is a process of the host. Everything that is remembered is bounded.
package attribution

import (
	"container/list"
	"context"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"touchstone.dev/touchstone/internal/audit/chain"
	"touchstone.dev/touchstone/internal/audit/record"
)

// Limits of what a Resolver remembers.
const (
	maxProcesses  = 16384
	maxContainers = 4096
	maxUsers      = 4096
	maxFile       = 16 << 10         // bytes of /proc/PID/cgroup
	maxField      = 300              // bytes of a field of the context
	askAgain      = 10 * time.Second // after the runtime did not know a container
	askTime       = 200 * time.Millisecond
	gone          = 10 * time.Minute // how long a process that is gone is remembered
	fresh         = time.Second      // how long a process that still runs the same program is not looked up again
)

// Container is what a container runtime knows of one.
type Container struct {
	Namespace, Pod, PodUID, Name string
	Image                        string // reference
	ImageDigest                  string
}

// Config of a Resolver.
type Config struct {
	Proc    string // "/proc"
	PodLogs string // "/var/log/pods": folders NAMESPACE_POD_UID, from which pods are named when the runtime does not answer
	// Ask asks the container runtime for a container by its ID. Nil: nobody to ask.
	Ask func(ctx context.Context, id string) (Container, error)
	Now func() time.Time // nil: time.Now
}

// Resolver attributes events. It is safe for concurrent use.
type Resolver struct {
	cfg Config

	mu         sync.Mutex
	processes  cache[uint32, process]
	containers cache[string, answer]
	users      cache[uint32, string]
	buf        []byte
}

type process struct {
	place place
	exe   string // program that it ran: a container's first process moves before it begins another one
	seen  time.Time
}

type answer struct {
	c     Container
	again time.Time // zero: it is final
}

// New makes a Resolver.
func New(cfg Config) *Resolver {
	if cfg.Proc == "" {
		cfg.Proc = "/proc"
	}
	if cfg.PodLogs == "" {
		cfg.PodLogs = "/var/log/pods"
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Resolver{cfg: cfg, processes: newCache[uint32, process](maxProcesses), containers: newCache[string, answer](maxContainers),
		users: newCache[uint32, string](maxUsers), buf: make([]byte, maxFile)}
}

// Of says where an event comes from. It may ask the container runtime once for each container.
func (r *Resolver) Of(e *record.Event) chain.Context {
	var c chain.Context
	p, ok := e.Process()
	if !ok {
		return c
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	var exe []byte
	if s := e.Find(record.TypeSyscall); s != nil {
		exe, _ = s.Field("exe")
	}
	at := r.place(p, exe)
	c.PodUID, c.ContainerID, c.Unit = at.pod, at.container, clip(at.unit)
	if at.pod != "" || at.container != "" {
		r.name(&c)
	}
	if p.AUID != record.Unset {
		c.User = r.user(p.AUID)
	}
	if p.Session != record.Unset {
		c.Session = strconv.FormatUint(uint64(p.Session), 10)
	}
	if s := e.Find(record.TypeSyscall); s != nil && p.AUID != record.Unset {
		if tty, ok := s.Field("tty"); ok && string(tty) != "(none)" {
			c.Terminal = clip(string(tty))
		}
	}
	return c
}

// place finds the cgroup of a process.
func (r *Resolver) place(p record.Process, exe []byte) place {
	now := r.cfg.Now()
	if was, ok := r.processes.get(p.PID); ok && len(exe) > 0 && was.exe == string(exe) && now.Sub(was.seen) < fresh {
		return was.place
	}
	if at, ok := r.read(p.PID); ok {
		r.processes.put(p.PID, process{at, string(exe), now})
		return at
	}
	for _, pid := range []uint32{p.PID, p.PPID} {
		if was, ok := r.processes.get(pid); ok && was.place.unit == "" && now.Sub(was.seen) < gone {
			return was.place
		}
	}
	if p.PPID == record.Unset {
		return place{}
	}
	if at, ok := r.read(p.PPID); ok && at.unit == "" {
		r.processes.put(p.PID, process{at, "", now})
		return at
	}
	return place{}
}

func (r *Resolver) read(pid uint32) (place, bool) {
	if pid == 0 || pid == record.Unset {
		return place{}, false
	}
	f, err := os.Open(r.cfg.Proc + "/" + strconv.FormatUint(uint64(pid), 10) + "/cgroup")
	if err != nil {
		return place{}, false
	}
	defer f.Close() //nolint:errcheck // only read
	n, err := f.Read(r.buf)
	if err != nil || n == 0 {
		return place{}, false
	}
	return parseCgroups(r.buf[:n]), true
}

// name fills in what the runtime, or the folder of the pods' logs, knows of the container.
func (r *Resolver) name(c *chain.Context) {
	key := c.ContainerID
	if key == "" {
		key = c.PodUID
	}
	now := r.cfg.Now()
	a, ok := r.containers.get(key)
	if !ok || !a.again.IsZero() && now.After(a.again) {
		a = r.ask(c)
		r.containers.put(key, a)
	}
	k := &a.c
	c.Namespace, c.Pod, c.Container, c.Image, c.ImageDigest = clip(k.Namespace), clip(k.Pod), clip(k.Name), clip(k.Image), clip(k.ImageDigest)
	if c.PodUID == "" {
		c.PodUID = clip(k.PodUID)
	}
}

func (r *Resolver) ask(c *chain.Context) answer {
	if r.cfg.Ask != nil && c.ContainerID != "" {
		ctx, cancel := context.WithTimeout(context.Background(), askTime)
		defer cancel()
		// The cgroup decides which pod it is: a runtime that says otherwise means another container.
		if k, err := r.cfg.Ask(ctx, c.ContainerID); err == nil && (c.PodUID == "" || k.PodUID == c.PodUID) {
			return answer{c: k}
		}
	}
	a := answer{again: r.cfg.Now().Add(askAgain)}
	if c.PodUID == "" {
		return a
	}
	dirs, err := filepath.Glob(filepath.Join(r.cfg.PodLogs, "*_"+c.PodUID))
	if err != nil || len(dirs) != 1 {
		return a
	}
	if parts := strings.Split(filepath.Base(dirs[0]), "_"); len(parts) == 3 {
		a.c.Namespace, a.c.Pod = parts[0], parts[1]
	}
	return a
}

// user is the name of a user of the host, else the number.
func (r *Resolver) user(uid uint32) string {
	if name, ok := r.users.get(uid); ok {
		return name
	}
	id := strconv.FormatUint(uint64(uid), 10)
	name := id
	if u, err := user.LookupId(id); err == nil {
		name = clip(u.Username)
	}
	r.users.put(uid, name)
	return name
}

func clip(s string) string {
	if len(s) <= maxField {
		return s
	}
	return strings.ToValidUTF8(s[:maxField], "")
}

// cache keeps what was used last.
type cache[K comparable, V any] struct {
	max    int
	items  map[K]*list.Element
	recent *list.List
}

type cached[K comparable, V any] struct {
	key   K
	value V
}

func newCache[K comparable, V any](limit int) cache[K, V] {
	return cache[K, V]{max: limit, items: map[K]*list.Element{}, recent: list.New()}
}

func (c *cache[K, V]) get(k K) (v V, ok bool) {
	e, ok := c.items[k]
	if !ok {
		return v, false
	}
	c.recent.MoveToFront(e)
	return e.Value.(*cached[K, V]).value, true
}

func (c *cache[K, V]) put(k K, v V) {
	if e, ok := c.items[k]; ok {
		e.Value.(*cached[K, V]).value = v
		c.recent.MoveToFront(e)
		return
	}
	c.items[k] = c.recent.PushFront(&cached[K, V]{k, v})
	if len(c.items) > c.max {
		last := c.recent.Back()
		delete(c.items, c.recent.Remove(last).(*cached[K, V]).key)
	}
}
