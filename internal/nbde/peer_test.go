package nbde

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// tangd is where Debian's tang-common puts the server.
const tangd = "/usr/libexec/tangd"

// need ends the test unless a program of a Debian package is there.
func need(t testing.TB, programs ...string) {
	t.Helper()
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			t.Fatalf("%v: scripts/need test installs it", err)
		}
	}
}

// tangFolder is a folder of keys that tangd made for itself.
func tangFolder(t testing.TB) string {
	t.Helper()
	need(t, tangd)
	dir := t.TempDir()
	if out, err := exec.CommandContext(t.Context(), "/usr/libexec/tangd-keygen", dir).CombinedOutput(); err != nil {
		t.Fatalf("tangd-keygen: %v\n%s", err, out)
	}
	return dir
}

// realTang serves a folder by Debian's tangd, a process for each connection as its systemd socket does, and returns the URL.
func realTang(t testing.TB, dir string) string {
	t.Helper()
	l := listen(t, "127.0.0.1:0")
	tangdAt(t, l, dir)
	return "http://" + l.Addr().String()
}

// listen listens on an address until the test ends.
func listen(t testing.TB, address string) net.Listener {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// tangdAt serves a folder by tangd on l.
func tangdAt(t testing.TB, l net.Listener, dir string) {
	t.Helper()
	need(t, tangd)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				f, err := c.(*net.TCPConn).File()
				if err != nil {
					return
				}
				defer f.Close()
				ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
				defer cancel()
				cmd := exec.CommandContext(ctx, tangd, dir)
				cmd.Stdin, cmd.Stdout, cmd.Stderr = f, f, io.Discard
				_ = cmd.Run()
			}()
		}
	}()
}

// ring is the keys of a folder.
func ring(t testing.TB, dir string) *Ring {
	t.Helper()
	keys, err := ReadFolder(dir)
	if err != nil {
		t.Fatal(err)
	}
	r, err := NewRing(keys)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// open is a server that gives everyone what the folder holds.
func open(t testing.TB, dir string) *Server {
	r := ring(t, dir)
	return &Server{
		Ring: func(context.Context, string) (*Ring, error) { return r, nil },
		Gate: func(context.Context, Ask) error { return nil },
		Log:  slog.New(slog.DiscardHandler),
	}
}

// serve serves h, and returns the URL.
func serve(t testing.TB, h http.Handler) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL
}

// answered is what a server said.
type answered struct {
	status int
	kind   string
	body   []byte
}

// raw sends a request whose path nobody has cleaned, over a connection of its own.
func raw(t testing.TB, url, method, path string, body []byte) answered {
	t.Helper()
	var d net.Dialer
	c, err := d.DialContext(t.Context(), "tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	fmt.Fprintf(c, "%s %s HTTP/1.1\r\nHost: tang\r\nConnection: close\r\nContent-Type: application/jwk+json\r\nContent-Length: %d\r\n\r\n%s", method, path, len(body), body)
	resp, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: method})
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	return answered{resp.StatusCode, resp.Header.Get("Content-Type"), b}
}

// rotate hides keys of a folder as an administrator does: tangd-rotate-keys moves the old ones to names with a dot.
func rotate(t testing.TB, dir string) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), "/usr/libexec/tangd-rotate-keys", "-d", dir).CombinedOutput(); err != nil {
		t.Fatalf("tangd-rotate-keys: %v\n%s", err, out)
	}
}

// add writes one more key into a folder.
func add(t testing.TB, dir string, k *Key, rotated bool) *Key {
	t.Helper()
	b, err := k.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	name := k.Thumbprint + ".jwk"
	if rotated {
		name = "." + name
	}
	if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
		t.Fatal(err)
	}
	return k
}
