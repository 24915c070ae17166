package deviceplugin

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	api "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
)

// Resource is the name of the TPM as a resource of nodes.
const Resource = "touchstone.dev/tpm"

// deviceID names the only device to the kubelet.
const deviceID = "tpm"

// Plugin offers one device. All fields are needed.
type Plugin struct {
	// Device is the path of the device on the host, and in containers.
	Device string
	// Sysfs is a path that exists as long as the kernel has the device.
	Sysfs string
	// Folder is where the kubelet listens for plugins, and the plugin for the kubelet.
	Folder string
	// Poll is the time between two looks at the device and at the plugin's own socket.
	Poll time.Duration
	Log  *slog.Logger
}

// service is what the kubelet calls.
type service struct {
	api.UnimplementedDevicePluginServer
	*Plugin
	done <-chan struct{} // closed when the plugin ends
}

func (s *service) GetDevicePluginOptions(context.Context, *api.Empty) (*api.DevicePluginOptions, error) {
	return &api.DevicePluginOptions{}, nil
}

// ListAndWatch tells the kubelet whether the device is there, now and whenever that changes.
func (s *service) ListAndWatch(_ *api.Empty, stream grpc.ServerStreamingServer[api.ListAndWatchResponse]) error {
	tick := time.NewTicker(s.Poll)
	defer tick.Stop()
	for told, first := false, true; ; first = false {
		if there := s.there(); first || there != told {
			s.Log.Info("tell the kubelet", "device", s.Device, "there", there)
			if err := stream.Send(devices(there)); err != nil {
				return err
			}
			told = there
		}
		select {
		case <-tick.C:
		case <-s.done:
			return nil
		case <-stream.Context().Done():
			return nil
		}
	}
}

// devices is the list for the kubelet: without the device it is empty, so that the node has none of the resource and the agent's pod
// waits, rather than start and fail.
func devices(there bool) *api.ListAndWatchResponse {
	if !there {
		return &api.ListAndWatchResponse{}
	}
	return &api.ListAndWatchResponse{Devices: []*api.Device{{ID: deviceID, Health: api.Healthy}}}
}

// Allocate says what a container that was given the device needs: its node, readable and writable.
func (s *service) Allocate(_ context.Context, req *api.AllocateRequest) (*api.AllocateResponse, error) {
	out := &api.AllocateResponse{}
	for _, c := range req.GetContainerRequests() {
		for _, id := range c.GetDevicesIds() {
			if id != deviceID {
				return nil, status.Errorf(codes.InvalidArgument, "there is no device %q", id)
			}
		}
		out.ContainerResponses = append(out.ContainerResponses, &api.ContainerAllocateResponse{
			Devices: []*api.DeviceSpec{{HostPath: s.Device, ContainerPath: s.Device, Permissions: "rw"}},
		})
	}
	return out, nil
}

func (p *Plugin) there() bool {
	_, err := os.Stat(p.Sysfs)
	return err == nil
}

// Validate says what is missing.
func (p *Plugin) Validate() error {
	if p.Device == "" || p.Sysfs == "" || p.Folder == "" || p.Poll <= 0 || p.Log == nil {
		return fmt.Errorf("device plugin: device %q, sysfs %q, folder %q, poll %v: all are needed", p.Device, p.Sysfs, p.Folder, p.Poll)
	}
	return nil
}
