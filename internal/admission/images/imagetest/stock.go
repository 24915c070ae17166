package imagetest

import (
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"touchstone.dev/touchstone/internal/kubetest"
)

// NewStock starts Debian's docker-registry until the test ends: a registry that others wrote, without the referrers API.
func NewStock(t testing.TB) *Registry {
	t.Helper()
	program, err := exec.LookPath("docker-registry")
	if err != nil {
		t.Fatalf("%v: scripts/need test installs it", err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &Registry{t: t, Host: l.Addr().String()}
	r.must(l.Close())
	dir := t.TempDir()
	config := filepath.Join(dir, "config.yml")
	r.must(os.WriteFile(config, []byte("version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\nstorage: {filesystem: {rootdirectory: "+dir+"/data}}\nhttp: {addr: '"+r.Host+"'}\n"), 0o600))
	p, err := kubetest.Run(dir, filepath.Join(dir, "log"), program, "serve", config)
	r.must(err)
	t.Cleanup(func() { p.Stop(5 * time.Second) })
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		resp, err := http.Get("http://" + r.Host + "/v2/") //nolint:noctx // on this machine
		if err == nil {
			r.must(resp.Body.Close())
			break
		}
		if !p.Running() || time.Now().After(deadline) {
			log, _ := os.ReadFile(filepath.Join(dir, "log"))
			t.Fatalf("docker-registry does not answer: %v\n%s", err, log)
		}
	}
	r.private, r.Key = NewKey(t)
	return r
}
