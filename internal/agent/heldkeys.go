package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"touchstone.dev/touchstone/internal/cri"
)

// imageStore is where the runtime keeps images; package cri implements it.
type imageStore interface {
	// RemoveWith removes the images that have one of the layers, by the digests of the layers unpacked, and their ended containers.
	RemoveWith(ctx context.Context, layers map[string]bool) (cri.Removed, error)
}

const (
	heldFile  = "image-layers.json" // in the state folder; nothing in it is secret
	maxLayers = 1 << 16             // that are remembered
	askAtOnce = 256                 // keys in one question to AIAS
	purgeTime = 5 * time.Minute
	// watchTime is how long images with a layer, and their containers as they end, are removed whenever they are seen, once its key is lost. While a container
	// of an image runs the runtime keeps its layers, and can pull it once more without asking for a key.
	watchTime = 10 * time.Minute
	// watchPause is between two looks at what has ended meanwhile, when no attestation comes before.
	watchPause = 10 * time.Second
)

// heldKeys remembers which layers lie decrypted on this worker, by the key that opened them, and has their images removed when the worker would not get
// that key any more. The runtime keeps layers in plain, and would start another pod from them without asking anybody.
type heldKeys struct {
	path   string
	images imageStore // nil: none is configured
	log    *slog.Logger
	forget func(id string) // a key that may still be in memory; nil: none is
	watch  time.Duration   // watchTime
	pause  time.Duration   // watchPause

	mu     sync.Mutex
	layers map[string][]string  // digests unpacked, by the ID of the key
	lost   map[string]time.Time // since when AIAS would not give a key again
	busy   bool
	again  *time.Timer // looks again
}

func openHeldKeys(dir string, images imageStore, log *slog.Logger) (*heldKeys, error) {
	h := &heldKeys{path: filepath.Join(dir, heldFile), images: images, log: log, watch: watchTime, pause: watchPause, layers: map[string][]string{}, lost: map[string]time.Time{}}
	b, err := readBounded(h.path, maxLayers*100)
	if errors.Is(err, fs.ErrNotExist) {
		return h, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &h.layers)
	}
	if err != nil {
		return nil, fmt.Errorf("the list of decrypted layers %s: %w (remove it together with the images that were decrypted here)", h.path, err)
	}
	return h, nil
}

// add remembers a layer, on disk before it can be unpacked.
func (h *heldKeys) add(id, layer string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if slices.Contains(h.layers[id], layer) {
		return nil
	}
	n := 0
	for _, l := range h.layers {
		n += len(l)
	}
	if n >= maxLayers {
		return refusedKey{fmt.Errorf("%d layers were decrypted on this worker, and no more can be remembered: remove images, and %s", n, h.path)}
	}
	h.layers[id] = append(h.layers[id], layer)
	return h.save()
}

// save writes the list. The caller holds the lock.
func (h *heldKeys) save() error {
	b, err := json.Marshal(h.layers)
	if err == nil {
		err = writeAtomic(h.path, b, 0o600)
	}
	if err != nil {
		return fmt.Errorf("remember the decrypted layers: %w", err)
	}
	return nil
}

// check asks AIAS, in the background and once at a time, which keys the worker would not get any more, and removes their images.
func (h *heldKeys) check(ctx context.Context, link Link) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.busy || len(h.layers) == 0 || ctx.Err() != nil {
		return
	}
	h.busy = true
	if h.again != nil {
		h.again.Stop()
	}
	ids := slices.Sorted(maps.Keys(h.layers))
	go func() {
		purging, cancel := context.WithTimeout(ctx, purgeTime)
		defer cancel()
		if err := h.purge(purging, link, ids); err != nil {
			h.log.Warn("decrypted images could not be checked or removed: trying again after the next attestation", "err", err)
		}
		h.mu.Lock()
		defer h.mu.Unlock()
		h.busy = false
		if len(h.lost) > 0 && h.images != nil && ctx.Err() == nil {
			h.again = time.AfterFunc(h.pause, func() { h.check(ctx, link) })
		}
	}()
}

func (h *heldKeys) purge(ctx context.Context, link Link, ids []string) error {
	lost, layers := map[string]bool{}, map[string]bool{}
	for part := range slices.Chunk(ids, askAtOnce) {
		answer, err := link.LostKeys(ctx, part)
		if err != nil {
			return err
		}
		for _, l := range answer {
			if h.forget != nil {
				h.forget(l.ID)
			}
		}
		h.mu.Lock()
		for _, l := range answer {
			if digests, ok := h.layers[l.ID]; ok {
				lost[l.ID] = true
				for _, d := range digests {
					layers[d] = true
				}
				if h.lost[l.ID].IsZero() {
					h.log.Warn("this worker may not have an image any more that it has decrypted", "key", l.ID, "reason", l.Reason, "removing", h.images != nil)
					h.lost[l.ID] = time.Now()
				}
			}
		}
		h.mu.Unlock()
	}
	h.mu.Lock()
	maps.DeleteFunc(h.lost, func(id string, _ time.Time) bool { return !lost[id] }) // it would give the key again
	h.mu.Unlock()
	if len(lost) == 0 || h.images == nil {
		return nil
	}
	removed, err := h.images.RemoveWith(ctx, layers)
	if len(removed.Images)+len(removed.Containers) > 0 {
		h.log.Warn("removed images that were decrypted, and their ended containers", "images", removed.Images, "containers", removed.Containers, "keys", slices.Sorted(maps.Keys(lost)))
	}
	if err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	over := false
	for id := range lost {
		if time.Since(h.lost[id]) < h.watch {
			continue
		}
		over = true
		// A layer that came meanwhile stays in the list.
		h.layers[id] = slices.DeleteFunc(h.layers[id], func(d string) bool { return layers[d] })
		if len(h.layers[id]) == 0 {
			delete(h.layers, id)
			delete(h.lost, id)
		}
	}
	if !over {
		return nil
	}
	return h.save()
}
