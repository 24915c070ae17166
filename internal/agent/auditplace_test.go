package agent

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"touchstone.dev/touchstone/internal/audit/record"
)

// TestResolverLooksBelowTheRoot: cgroups and names of pods are those of the host whose root the agent is given.
func TestResolverLooksBelowTheRoot(t *testing.T) {
	const uid = "6f1c2d3e-4a5b-4c6d-8e7f-0123456789ab"
	root, id := t.TempDir(), strings.Repeat("0a", 32)
	for _, dir := range []string{"proc/4711", "var/log/pods/shop_web-1_" + uid} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(root, "proc/4711/cgroup"), []byte("0::/kubepods/pod"+uid+"/"+id+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	e, err := record.Parse([]byte("type=SYSCALL msg=audit(1795000000.000:1): arch=c000003e syscall=59 ppid=1 pid=4711 auid=4294967295 uid=0 ses=4294967295"))
	if err != nil {
		t.Fatal(err)
	}
	if got := newResolver(root).Of(e); got.Namespace != "shop" || got.Pod != "web-1" || got.PodUID != uid || got.ContainerID != id {
		t.Errorf("got %+v, want the pod shop/web-1", got)
	}
}
