package cri

import (
	"context"
	"errors"
	"os"
	"sync"
)

// Sockets are where container runtimes serve CRI.
var Sockets = []string{"/run/containerd/containerd.sock", "/run/crio/crio.sock", "/run/cri-dockerd.sock"}

// Finder asks whichever runtime serves on one of some sockets for containers. It is safe for concurrent use.
type Finder struct {
	sockets []string
	mu      sync.Mutex
	stores  map[string]*Store
}

// NewFinder makes a Finder; the runtimes need not be there yet.
func NewFinder(sockets ...string) *Finder {
	return &Finder{sockets: sockets, stores: map[string]*Store{}}
}

// Container finds a container by its whole ID, at the first runtime that knows it.
func (f *Finder) Container(ctx context.Context, id string) (Container, error) {
	failed := []error{errors.New("no container runtime serves here")}
	for _, socket := range f.sockets {
		if _, err := os.Stat(socket); err != nil {
			continue
		}
		s, err := f.store(socket)
		if err != nil {
			return Container{}, err
		}
		c, err := s.Container(ctx, id)
		if err == nil {
			return c, nil
		}
		failed = append(failed[:0:0], err)
	}
	return Container{}, errors.Join(failed...)
}

func (f *Finder) store(socket string) (*Store, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if s := f.stores[socket]; s != nil {
		return s, nil
	}
	s, err := Open(socket)
	if err == nil {
		f.stores[socket] = s
	}
	return s, err
}

// Close ends the connections.
func (f *Finder) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	var errs []error
	for _, s := range f.stores {
		errs = append(errs, s.Close())
	}
	clear(f.stores)
	return errors.Join(errs...)
}
