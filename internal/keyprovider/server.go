package keyprovider

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"

	pb "github.com/containers/ocicrypt/utils/keyprovider"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
)

// Refused is an error whose text the runtime shows: why a key is not given. Others say only that the provider failed.
type Refused interface {
	error
	Refused() bool
}

// Server answers runtimes.
type Server struct {
	// Unwrap opens an annotation and returns the private options of the layer.
	Unwrap func(ctx context.Context, annotation []byte) ([]byte, error)
	// Wrap, when set instead, answers those that encrypt, with the message of an answer (Wrapper).
	Wrap func(ctx context.Context, message []byte) ([]byte, error)
	// Timeout bounds one call: the client has no deadline of its own.
	Timeout time.Duration
	// UIDs are users that may ask, beside root.
	UIDs []uint32
	Log  *slog.Logger

	pb.UnimplementedKeyProviderServiceServer
}

// Bounds on what a local process can make the agent do.
const (
	maxCalls = 64 // at the same time, of one connection
	maxIdle  = time.Minute
)

// Listen makes the socket, for its owner only. A socket that is left from before is removed; one that answers is not.
func Listen(ctx context.Context, path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil { //nolint:gosec // of runtime state, as systemd makes it
		return nil, fmt.Errorf("key provider: %w", err)
	}
	if c, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "unix", path); err == nil {
		_ = c.Close()
		return nil, fmt.Errorf("key provider: another program answers on %s", path)
	}
	// Made in a folder of its own, and moved: so it is never anybody else's, not even for a moment.
	dir, err := os.MkdirTemp(filepath.Dir(path), ".kp-")
	if err != nil {
		return nil, fmt.Errorf("key provider: %w", err)
	}
	defer os.RemoveAll(dir) //nolint:errcheck // it is empty by then
	made := filepath.Join(dir, "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: made, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("key provider: %w", err)
	}
	l.SetUnlinkOnClose(false)
	if err = os.Chmod(made, 0o600); err == nil {
		err = os.Rename(made, path)
	}
	if err != nil {
		_ = l.Close()
		return nil, fmt.Errorf("key provider: %w", err)
	}
	return l, nil
}

// Serve answers on l until ctx ends.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	g := grpc.NewServer(
		grpc.Creds(local{}), grpc.MaxRecvMsgSize(maxMessage+64), grpc.MaxSendMsgSize(maxMessage), grpc.MaxConcurrentStreams(maxCalls),
		grpc.ConnectionTimeout(5*time.Second), grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionIdle: maxIdle}), grpc.UnaryInterceptor(s.call),
	)
	pb.RegisterKeyProviderServiceServer(g, s)
	stop := context.AfterFunc(ctx, g.Stop)
	defer stop()
	err := g.Serve(l)
	if ctx.Err() != nil {
		return nil //nolint:nilerr // told to stop
	}
	return err
}

// call is around each call: who asks, for how long, and never a panic.
func (s *Server) call(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (out any, err error) {
	defer func() {
		if p := recover(); p != nil {
			s.Log.Error("the key provider panicked: please report it", "panic", p)
			out, err = nil, status.Error(codes.Internal, "the key provider of the trust agent failed: see its log")
		}
	}()
	who, ok := caller(ctx)
	if !ok || who.Uid != 0 && !slices.Contains(s.UIDs, who.Uid) {
		s.Log.Warn("a process that is not the container runtime asked for an image key", "uid", who.Uid, "pid", who.Pid)
		return nil, status.Error(codes.PermissionDenied, s.stranger())
	}
	ctx, cancel := context.WithTimeout(ctx, s.Timeout)
	defer cancel()
	return handle(ctx, req)
}

// stranger is what a process of another user is told.
func (s *Server) stranger() string {
	if s.Wrap != nil {
		return "this key provider encrypts for its own user only"
	}
	return "image keys are for the container runtime: its user must be root, or stand in imageProvider.uids"
}

// UnWrapKey opens the annotation of a layer.
func (s *Server) UnWrapKey(ctx context.Context, req *pb.KeyProviderKeyWrapProtocolInput) (*pb.KeyProviderKeyWrapProtocolOutput, error) {
	if s.Unwrap == nil {
		return nil, status.Error(codes.Unimplemented, "touchstone: this key provider only wraps: images are opened on workers, by trust-agent")
	}
	a, err := annotation(req.GetKeyProviderKeyWrapProtocolInput())
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	options, err := s.Unwrap(ctx, a)
	if err != nil {
		return nil, s.refuse(err)
	}
	b, err := json.Marshal(output{unwrapResults{options}})
	if err != nil {
		return nil, s.refuse(err)
	}
	return &pb.KeyProviderKeyWrapProtocolOutput{KeyProviderKeyWrapProtocolOutput: b}, nil
}

// WrapKey seals the options of a layer; workers refuse it.
func (s *Server) WrapKey(ctx context.Context, req *pb.KeyProviderKeyWrapProtocolInput) (*pb.KeyProviderKeyWrapProtocolOutput, error) {
	if s.Wrap == nil {
		return nil, status.Error(codes.Unimplemented, "workers only unwrap image keys: encrypt images by `touchstone image encrypt`")
	}
	b, err := s.Wrap(ctx, req.GetKeyProviderKeyWrapProtocolInput())
	if err != nil {
		s.Log.Warn("a layer was not encrypted", "err", err)
		return nil, status.Error(codes.FailedPrecondition, "touchstone: "+err.Error())
	}
	return &pb.KeyProviderKeyWrapProtocolOutput{KeyProviderKeyWrapProtocolOutput: b}, nil
}

// refuse makes an error into what the runtime shows. A refusal by AIAS and what stands in its way reach the pod's events.
func (s *Server) refuse(err error) error {
	s.Log.Warn("image key not given", "err", err)
	var r Refused
	switch {
	case errors.As(err, &r) && r.Refused():
		return status.Error(codes.PermissionDenied, "trust-agent: "+err.Error())
	case errors.Is(err, context.DeadlineExceeded):
		return status.Errorf(codes.DeadlineExceeded, "trust-agent: no answer within %s: is AIAS reachable from this worker? See `trust-agent status`", s.Timeout)
	}
	return status.Error(codes.Unavailable, "trust-agent: "+err.Error())
}

// local is how processes of this machine connect: unencrypted, and the kernel says who they are.
type local struct{}

// peerInfo is who connected.
type peerInfo struct {
	credentials.CommonAuthInfo
	unix.Ucred
}

// AuthType names it.
func (peerInfo) AuthType() string { return "SO_PEERCRED" }

func caller(ctx context.Context) (unix.Ucred, bool) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return unix.Ucred{}, false
	}
	info, ok := p.AuthInfo.(peerInfo)
	return info.Ucred, ok
}

// ServerHandshake asks the kernel who connected.
func (local) ServerHandshake(c net.Conn) (net.Conn, credentials.AuthInfo, error) {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return nil, nil, fmt.Errorf("key provider: a connection of type %T", c)
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return nil, nil, err
	}
	var cred *unix.Ucred
	var failed error
	err = raw.Control(func(fd uintptr) { cred, failed = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if err = errors.Join(err, failed); err != nil {
		return nil, nil, err
	}
	return c, peerInfo{credentials.CommonAuthInfo{SecurityLevel: credentials.NoSecurity}, *cred}, nil
}

// ClientHandshake is not used.
func (local) ClientHandshake(context.Context, string, net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("key provider: no client")
}

// Info describes it.
func (local) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "local"}
}

// Clone returns it.
func (l local) Clone() credentials.TransportCredentials { return l }

// OverrideServerName does nothing.
func (local) OverrideServerName(string) error { return nil }
