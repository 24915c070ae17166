//go:build cluster

package cluster

import (
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"

	"github.com/go-logr/logr"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"

	ctrl "sigs.k8s.io/controller-runtime"

	"touchstone.dev/touchstone/internal/swtpm/machine"
)

// shared is the cluster of the scenarios; the first of them brings it up.
var shared struct{ c *Cluster }

// TestMain takes the shared cluster down after the tests.
func TestMain(m *testing.M) {
	Role()
	ctrl.SetLogger(logr.Discard())
	code := m.Run()
	if shared.c != nil {
		code = max(code, finish(shared.c, code != 0))
	}
	os.Exit(code)
}

// finish takes a cluster down; with E2E_KEEP it waits for Ctrl-C before. It returns 1 when something could not be ended.
func finish(c *Cluster, failed bool) int {
	if os.Getenv("E2E_KEEP") != "" {
		fmt.Printf("the cluster stays until Ctrl-C:\n  export KUBECONFIG=%s PATH=%s:$PATH\n  logs: %s\n", c.Kubeconfig(), c.programs, c.LogFolder())
		stop := make(chan os.Signal, 1)
		signal.Notify(stop, os.Interrupt, syscall.SIGTERM)
		<-stop
	}
	if failed {
		fmt.Printf("the logs of all programs are in %s until the next run\n", c.LogFolder())
	}
	if err := c.Close(); err != nil {
		fmt.Println("take the cluster down:", err)
		return 1
	}
	return 0
}

// end is finish for the cluster of one test.
func end(t *testing.T, c *Cluster) {
	if finish(c, t.Failed()) != 0 {
		t.Fail()
	}
}

// members is how many members the control plane has: as E2E_MEMBERS says, else three if there is the memory for them.
func members() int {
	if n, err := strconv.Atoi(os.Getenv("E2E_MEMBERS")); err == nil {
		return n
	}
	var info syscall.Sysinfo_t
	if syscall.Sysinfo(&info) == nil && uint64(info.Totalram)*uint64(info.Unit) < 12<<30 { //nolint:unconvert // differs between architectures
		return 1
	}
	return 3
}

// say prints at once; the log of a test would come with its end.
func say(format string, a ...any) { fmt.Printf(format+"\n", a...) }

// captured reads a boot of the golden corpus.
func captured(t *testing.T, c *Cluster, name string) *machine.Boot {
	t.Helper()
	return capturedAt(t, c, name, false)
}

// capturedAt reads a boot of the golden corpus, or what it was some time later.
func capturedAt(t *testing.T, c *Cluster, name string, after bool) *machine.Boot {
	t.Helper()
	b, err := machine.Read(os.DirFS(filepath.Join(c.root, "test/boots")), "corpus/"+name, after)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func objectMeta(namespace, name string) meta.ObjectMeta {
	return meta.ObjectMeta{Namespace: namespace, Name: name}
}
