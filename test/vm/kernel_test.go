package vm

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestModuleOrder(t *testing.T) {
	const dep = `kernel/net/core/failover.ko:
kernel/drivers/net/net_failover.ko: kernel/net/core/failover.ko
kernel/drivers/net/virtio_net.ko.xz: kernel/drivers/net/net_failover.ko kernel/net/core/failover.ko
kernel/drivers/virtio/virtio-pci.ko: kernel/net/core/failover.ko
`
	got := moduleOrder(dep, []string{"virtio_pci", "built_in", "virtio_net"})
	want := []string{
		"kernel/net/core/failover.ko", "kernel/drivers/virtio/virtio-pci.ko",
		"kernel/drivers/net/net_failover.ko", "kernel/drivers/net/virtio_net.ko.xz",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("moduleOrder differs (-want +got):\n%s", diff)
	}
}

func TestCompareVersions(t *testing.T) {
	want := []string{
		"linux-image-6.1.0-9-cloud-amd64", "linux-image-6.1.0-55-cloud-amd64", "linux-image-6.1.0-056-cloud-amd64",
		"linux-image-6.12.99+deb12-cloud-amd64", "linux-image-6.12.111+deb12-cloud-amd64",
	}
	got := slices.Clone(want)
	slices.Reverse(got)
	slices.SortFunc(got, compareVersions)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("order differs (-want +got):\n%s", diff)
	}
}
