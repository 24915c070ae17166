package deviceplugin

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	api "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
)

const (
	socketName    = "touchstone-tpm.sock" // in the kubelet's folder
	kubeletName   = "kubelet.sock"
	registerTime  = 10 * time.Second
	registerAgain = 5 * time.Second // wait after the kubelet could not be reached
)

// Run offers the device until ctx ends. A kubelet that starts anew removes all sockets of plugins, and forgets them: the plugin then comes again.
func (p *Plugin) Run(ctx context.Context) error {
	if err := p.Validate(); err != nil {
		return err
	}
	for {
		wait := p.Poll
		if err := p.once(ctx); err != nil && ctx.Err() == nil {
			p.Log.Warn("not registered with the kubelet: trying again", "err", err, "in", registerAgain)
			wait = registerAgain
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
	}
}

// once serves and registers; it returns when the plugin's socket is gone, ctx ends, or something failed.
func (p *Plugin) once(ctx context.Context) error {
	socket := filepath.Join(p.Folder, socketName)
	if err := os.Remove(socket); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the old socket: %w", err)
	}
	l, err := new(net.ListenConfig).Listen(ctx, "unix", socket)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	done := make(chan struct{})
	server := grpc.NewServer()
	api.RegisterDevicePluginServer(server, &service{Plugin: p, done: done})
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	defer func() {
		close(done)
		server.Stop() // removes the socket, too
		<-served      //nolint:errcheck // it says that it was stopped
	}()
	made, err := os.Lstat(socket)
	if err != nil {
		return fmt.Errorf("the socket: %w", err)
	}
	if err := p.register(ctx); err != nil {
		return err
	}
	p.Log.Info("registered with the kubelet", "resource", Resource)
	tick := time.NewTicker(p.Poll)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			if now, err := os.Lstat(socket); err != nil || !os.SameFile(made, now) {
				p.Log.Info("the kubelet has started anew")
				return nil
			}
		}
	}
}

// register tells the kubelet that the plugin is there.
func (p *Plugin) register(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, registerTime)
	defer cancel()
	c, err := grpc.NewClient("unix://"+filepath.Join(p.Folder, kubeletName), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return fmt.Errorf("reach the kubelet: %w", err)
	}
	defer c.Close() //nolint:errcheck // nothing is under way any more
	if _, err := api.NewRegistrationClient(c).Register(ctx, &api.RegisterRequest{
		Version: api.Version, Endpoint: socketName, ResourceName: Resource, Options: &api.DevicePluginOptions{},
	}); err != nil {
		return fmt.Errorf("register with the kubelet: %w", err)
	}
	return nil
}
