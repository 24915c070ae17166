package agent

import (
	"errors"
	"sync"
	"time"

	"touchstone.dev/touchstone/internal/evidence"
)

// volumes is a host whose volumes are told: which are encrypted, and what opens them.
type volumes struct {
	Host
	mu     *sync.Mutex
	reader *evidence.VolumeReader
}

// withVolumes adds the volumes to the facts of a host. mounts is the host's table of mounts below root; "-" leaves the volumes out.
func withVolumes(host Host, root, mounts string) Host {
	if mounts == "-" {
		return host
	}
	return volumes{Host: host, mu: &sync.Mutex{}, reader: evidence.NewVolumeReader(root, mounts)}
}

// Facts returns the facts of the host and its volumes. Without a table of mounts they are left out, and AIAS says so; more than the limits let through is told as that.
func (v volumes) Facts() (map[string][]byte, error) {
	facts, err := v.Host.Facts()
	if err != nil {
		return nil, err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	fact, err := v.reader.Fact(time.Now())
	if err == nil {
		facts[evidence.FactVolumes] = fact
		return facts, nil
	}
	if errors.Is(err, evidence.ErrLimit) {
		facts[evidence.FactVolumes], err = (&evidence.Volumes{Cut: true}).Encode()
		return facts, err
	}
	return facts, nil
}
