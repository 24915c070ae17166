package keyprovider

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containers/ocicrypt/config"
	keyproviderconfig "github.com/containers/ocicrypt/config/keyprovider-config"
	stock "github.com/containers/ocicrypt/keywrap/keyprovider"
	pb "github.com/containers/ocicrypt/utils/keyprovider"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
)

type refusal struct{ error }

func (refusal) Refused() bool { return true }

// serve serves f on a socket and returns its path.
func serve(t testing.TB, s *Server) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "kp")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "key.sock")
	l, err := Listen(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	if s.Timeout == 0 {
		s.Timeout = 5 * time.Second
	}
	s.UIDs = append(s.UIDs, uint32(os.Getuid()))
	s.Log = slog.New(slog.DiscardHandler)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve(): %v", err)
		}
		os.RemoveAll(dir) //nolint:errcheck // a temporary folder
	})
	return path
}

func reversed(_ context.Context, annotation []byte) ([]byte, error) {
	out := bytes.Clone(annotation)
	for i, b := range annotation {
		out[len(out)-1-i] = b
	}
	return out, nil
}

// TestUnwrap: our own client and the stock one of ocicrypt get the options.
func TestUnwrap(t *testing.T) {
	path := serve(t, &Server{Unwrap: reversed})
	if got, err := Unwrap(t.Context(), path, []byte("abc")); err != nil || string(got) != "cba" {
		t.Errorf("Unwrap(): got %q, %v", got, err)
	}
	w := stock.NewKeyWrapper("touchstone", keyproviderconfig.KeyProviderAttrs{Grpc: "unix://" + path})
	if got, err := w.UnwrapKey(&config.DecryptConfig{}, []byte("abc")); err != nil || string(got) != "cba" {
		t.Errorf("ocicrypt: UnwrapKey(): got %q, %v", got, err)
	}
	_, err := w.WrapKeys(&config.EncryptConfig{Parameters: map[string][][]byte{"touchstone": {[]byte("x")}}}, []byte("options"))
	if err == nil || !strings.Contains(err.Error(), "touchstone image encrypt") {
		t.Errorf("ocicrypt: WrapKeys(): got %v, want where to encrypt", err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("socket: %v, %v, want mode 0600", info.Mode(), err)
	}
	if l, err := Listen(t.Context(), path); err == nil {
		_ = l.Close()
		t.Error("Listen() on a socket that answers: got no error")
	}
}

// TestReasons: what is refused says why, also through the stock client; everything ends.
func TestReasons(t *testing.T) {
	for name, tt := range map[string]struct {
		unwrap func(context.Context, []byte) ([]byte, error)
		code   codes.Code
		want   string
	}{
		"refused":  {func(context.Context, []byte) ([]byte, error) { return nil, refusal{errors.New("level 4 is fail")} }, codes.PermissionDenied, "trust-agent: level 4 is fail"},
		"failed":   {func(context.Context, []byte) ([]byte, error) { return nil, errors.New("reach AIAS: no route") }, codes.Unavailable, "trust-agent: reach AIAS: no route"},
		"too slow": {func(ctx context.Context, _ []byte) ([]byte, error) { <-ctx.Done(); return nil, ctx.Err() }, codes.DeadlineExceeded, "is AIAS reachable"},
		"panics":   {func(context.Context, []byte) ([]byte, error) { panic("bug") }, codes.Internal, "see its log"},
	} {
		path := serve(t, &Server{Unwrap: tt.unwrap, Timeout: 200 * time.Millisecond})
		if _, err := Unwrap(t.Context(), path, []byte("abc")); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: Unwrap(): got %v, want %q", name, err, tt.want)
		}
		w := stock.NewKeyWrapper("touchstone", keyproviderconfig.KeyProviderAttrs{Grpc: "unix://" + path})
		_, err := w.UnwrapKey(&config.DecryptConfig{}, []byte("abc"))
		if got := status.Code(errors.Unwrap(err)); got != tt.code || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: ocicrypt: got %v (%v), want %v", name, err, got, tt.code)
		}
	}
	if _, err := Unwrap(t.Context(), "/nothing/here.sock", []byte("abc")); err == nil || !strings.Contains(err.Error(), "does trust-agent run") {
		t.Errorf("Unwrap() without a server: got %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	slow := serve(t, &Server{Unwrap: func(ctx context.Context, _ []byte) ([]byte, error) { <-ctx.Done(); return nil, ctx.Err() }})
	if _, err := Unwrap(ctx, slow, []byte("abc")); err == nil || !strings.Contains(err.Error(), "in time") {
		t.Errorf("Unwrap() with a deadline: got %v", err)
	}
}

// TestHostileRequests: bodies that are no requests are refused before anything is asked.
func TestHostileRequests(t *testing.T) {
	path := serve(t, &Server{Unwrap: func(context.Context, []byte) ([]byte, error) {
		t.Error("Unwrap was called")
		return nil, errors.New("called")
	}})
	conn, err := grpc.NewClient("unix:"+path, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	client := pb.NewKeyProviderServiceClient(conn)
	for name, body := range map[string]string{
		"empty": "", "no JSON": "x", "list": "[]", "no operation": "{}", "wrap": `{"op":"keywrap"}`, "no annotation": `{"op":"keyunwrap","keyunwrapparams":{"annotation":""}}`,
		"annotation no base64": `{"op":"keyunwrap","keyunwrapparams":{"annotation":"*"}}`, "deep": strings.Repeat("[", 100000),
		"large annotation": `{"op":"keyunwrap","keyunwrapparams":{"annotation":"` + strings.Repeat("QUJD", 8000) + `"}}`,
	} {
		_, err := client.UnWrapKey(t.Context(), &pb.KeyProviderKeyWrapProtocolInput{KeyProviderKeyWrapProtocolInput: []byte(body)})
		if status.Code(err) != codes.InvalidArgument {
			t.Errorf("%s: got %v, want %v", name, err, codes.InvalidArgument)
		}
	}
	_, err = client.UnWrapKey(t.Context(), &pb.KeyProviderKeyWrapProtocolInput{KeyProviderKeyWrapProtocolInput: make([]byte, 1<<20)})
	if status.Code(err) != codes.ResourceExhausted {
		t.Errorf("a megabyte: got %v, want %v", err, codes.ResourceExhausted)
	}
	raw, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	_, _ = raw.Write(bytes.Repeat([]byte("GET / HTTP/1.1\r\n"), 1000)) // no answer is wanted, only that the server lives on
	if _, err := client.UnWrapKey(t.Context(), &pb.KeyProviderKeyWrapProtocolInput{}); status.Code(err) != codes.InvalidArgument {
		t.Errorf("after garbage: got %v", err)
	}
}

const envClient = "KEYPROVIDER_TEST_CLIENT"

// TestOtherUser: a process of another user gets nothing, even when it reaches the socket. The test runs as root, or the user of the test is the stranger.
func TestOtherUser(t *testing.T) {
	s := &Server{Unwrap: reversed}
	path := serve(t, s)
	if os.Getuid() != 0 {
		s.UIDs = nil
		if _, err := Unwrap(t.Context(), path, []byte("abc")); err == nil || !strings.Contains(err.Error(), "for the container runtime") {
			t.Errorf("Unwrap() by another user: got %v", err)
		}
		return
	}
	for _, p := range []string{filepath.Dir(path), path} {
		if err := os.Chmod(p, 0o777); err != nil { //nolint:gosec // so that only the check is left
			t.Fatal(err)
		}
	}
	program := filepath.Join(filepath.Dir(path), "client")
	b, err := os.ReadFile(os.Args[0])
	if err == nil {
		err = os.WriteFile(program, b, 0o755) //nolint:gosec // a program
	}
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), program, "-test.run=^TestClient$", "-test.v")
	cmd.Env, cmd.Dir = append(os.Environ(), envClient+"="+path), "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "for the container runtime") {
		t.Errorf("a client of another user: %v\n%s", err, out)
	}
	s.UIDs = append(s.UIDs, 65534)
	cmd = exec.CommandContext(t.Context(), program, "-test.run=^TestClient$", "-test.v")
	cmd.Env, cmd.Dir = append(os.Environ(), envClient+"="+path), "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("a client of a user that may ask: %v\n%s", err, out)
	}
}

// TestClient is the client of TestOtherUser.
func TestClient(t *testing.T) {
	path := os.Getenv(envClient)
	if path == "" {
		return
	}
	if _, err := Unwrap(t.Context(), path, []byte("abc")); err != nil {
		t.Fatal(err)
	}
}

func FuzzAnnotation(f *testing.F) {
	b, err := json.Marshal(input{Op: opUnwrap, Unwrap: unwrapParams{Annotation: []byte("abc")}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		if a, err := annotation(b); err == nil && len(a) == 0 {
			t.Errorf("annotation(%q): empty", b)
		}
	})
}

func BenchmarkUnwrap(b *testing.B) {
	path := serve(b, &Server{Unwrap: reversed})
	for b.Loop() {
		if _, err := Unwrap(context.Background(), path, []byte("abc")); err != nil {
			b.Fatal(err)
		}
	}
}
