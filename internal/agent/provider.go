package agent

import (
	"context"
	"time"

	"touchstone.dev/touchstone/internal/cri"
	"touchstone.dev/touchstone/internal/keyprovider"
)

// ImageProviderConfig says how the container runtime gets the keys of encrypted images.
type ImageProviderConfig struct {
	// Socket is where the agent serves the ocicrypt key provider; empty means that it does not.
	Socket string `json:"socket"`
	// UIDs are users whose processes may ask, beside root.
	UIDs []uint32 `json:"uids"`
	// Timeout bounds one question of the runtime, which has no bound of its own: an attestation and an answer of AIAS.
	Timeout Duration `json:"timeout"`
	// Runtime is the CRI socket of the container runtime. Over it the agent removes images that it helped to decrypt, when AIAS would not give
	// their keys any more, and the ended containers that hold them. Empty means that they stay.
	Runtime string `json:"runtime"`
	// StopContainers has the agent stop containers that run from such an image, too. In a cluster the controller evicts their pods, with their graces.
	StopContainers bool `json:"stopContainers"`
}

// openImageKeys opens what the key provider needs; nil when it is not wanted.
func (a *Agent) openImageKeys() error {
	c := &a.cfg.ImageProvider
	if c.Socket == "" {
		return nil
	}
	var store imageStore
	if c.Runtime != "" {
		runtime, err := cri.Open(c.Runtime)
		if err != nil {
			return err
		}
		runtime.Stop = c.StopContainers
		store = runtime // lives as long as the agent
	}
	held, err := openHeldKeys(a.cfg.StateDir, store, a.log)
	if err != nil {
		return err
	}
	a.images = newImageKeys(a.log, a.Ask, a.now, held)
	return nil
}

// serveImageKeys serves the key provider until ctx ends. What keeps it from serving does not keep the worker from attesting.
func (a *Agent) serveImageKeys(ctx context.Context) {
	c := &a.cfg.ImageProvider
	s := &keyprovider.Server{Unwrap: a.images.Unwrap, Timeout: time.Duration(c.Timeout), UIDs: c.UIDs, Log: a.log}
	for ctx.Err() == nil {
		l, err := keyprovider.Listen(ctx, c.Socket)
		if err == nil {
			a.log.Info("serving image keys", "socket", c.Socket)
			err = s.Serve(ctx, l)
		}
		if ctx.Err() == nil {
			a.log.Error("image keys cannot be served: trying again", "err", err)
			sleep(ctx, 10*time.Second)
		}
	}
}
