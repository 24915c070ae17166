package device

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
	"github.com/google/go-tpm/tpm2/transport/linuxtpm"
)

// Why a TPM cannot be opened.
var (
	ErrAbsent     = errors.New("no TPM there")
	ErrPermission = errors.New("no permission to use the TPM")
	ErrBusy       = errors.New("the TPM is in use by another process")
)

const (
	dialTimeout    = 2 * time.Second
	commandTimeout = 2 * time.Minute // a real TPM may take most of a minute for an RSA key
	probeTimeout   = 5 * time.Second // the first command, which takes milliseconds: who waits longer waits for another process
	firstRetry     = time.Millisecond
	lastRetry      = time.Second
	maxResponse    = 4096
)

// Open opens the TPM at address: a character device ("/dev/tpmrm0"), or "unix:" and the path of an swtpm socket. It sends one
// command to see that a TPM answers. Errors wrap ErrAbsent, ErrPermission or ErrBusy where one of them is the cause.
func Open(address string) (*TPM, error) {
	link, err := connect(address)
	if err != nil {
		return nil, fmt.Errorf("open TPM %s: %w", address, explain(address, err))
	}
	t := &TPM{link: link, address: address, keys: make(map[string]*Key), loaded: make(map[tpm2.TPMHandle]bool)}
	if s, ok := link.(*socket); ok {
		s.timeout = probeTimeout
		defer func() { s.timeout = commandTimeout }()
	}
	if _, err := t.Info(); err != nil {
		_ = link.Close()
		return nil, fmt.Errorf("open TPM %s: %w", address, explain(address, err))
	}
	return t, nil
}

func connect(address string) (transport.TPMCloser, error) {
	path, isSocket := strings.CutPrefix(address, "unix:")
	if !isSocket {
		return linuxtpm.Open(address)
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Mode()&os.ModeSocket == 0 {
		return nil, fmt.Errorf("%w: %s is no socket", ErrAbsent, path)
	}
	return &socket{path: path}, nil
}

// explain adds to an error of the operating system which of ours it is, and what to do.
func explain(address string, err error) error {
	var timeout net.Error
	switch {
	case errors.Is(err, os.ErrNotExist), errors.Is(err, syscall.ENXIO), errors.Is(err, syscall.ENODEV):
		return fmt.Errorf("%w: is it enabled in the firmware setup, or swtpm running? %w", ErrAbsent, err)
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("%w: nothing listens on the socket, is swtpm running? %w", ErrAbsent, err)
	case errors.Is(err, linuxtpm.ErrFileIsNotDevice):
		return fmt.Errorf("%w: give a device like /dev/tpmrm0, or unix:PATH for a socket: %w", ErrAbsent, err)
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("%w: run as root or as a member of group tss: %w", ErrPermission, err)
	case errors.Is(err, syscall.EBUSY) && address == "/dev/tpm0":
		return fmt.Errorf("%w: /dev/tpm0 serves one process only, use /dev/tpmrm0: %w", ErrBusy, err)
	case errors.Is(err, syscall.EBUSY), errors.As(err, &timeout) && timeout.Timeout():
		return fmt.Errorf("%w: %w", ErrBusy, err)
	}
	return err
}

// socket sends commands to swtpm. It connects anew for each, since swtpm serves one connection at a time: so several processes
// can use the same TPM in turn.
type socket struct {
	path    string
	timeout time.Duration
}

// Send sends one command and returns the whole response. As the kernel does, it sends the command again while the TPM says that
// it is busy testing itself or could not start.
func (s *socket) Send(command []byte) ([]byte, error) {
	for wait := firstRetry; ; wait *= 2 {
		response, err := s.exchange(command)
		if err != nil || wait > lastRetry {
			return response, err
		}
		switch tpm2.TPMRC(binary.BigEndian.Uint32(response[6:])) {
		case tpm2.TPMRCRetry, tpm2.TPMRCYielded, tpm2.TPMRCTesting:
			time.Sleep(wait)
		default:
			return response, nil
		}
	}
}

func (s *socket) exchange(command []byte) ([]byte, error) {
	conn, err := (&net.Dialer{Timeout: dialTimeout}).DialContext(context.Background(), "unix", s.path)
	if err != nil {
		return nil, err
	}
	defer conn.Close() //nolint:errcheck // nothing is buffered
	if err := conn.SetDeadline(time.Now().Add(s.timeout)); err != nil {
		return nil, err
	}
	if _, err := conn.Write(command); err != nil {
		return nil, err
	}
	header := make([]byte, 10) // tag, size, response code
	if _, err := io.ReadFull(conn, header); err != nil {
		return nil, err
	}
	size := binary.BigEndian.Uint32(header[2:])
	if size < 10 || size > maxResponse {
		return nil, fmt.Errorf("the TPM answers with %d bytes, want 10 to %d", size, maxResponse)
	}
	response := make([]byte, size)
	copy(response, header)
	if _, err := io.ReadFull(conn, response[10:]); err != nil {
		return nil, err
	}
	return response, nil
}

// Close does nothing: no connection outlives its command.
func (s *socket) Close() error { return nil }
