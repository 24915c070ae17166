package vm

import (
	"bytes"
	"io"
	"net"
	"os"
	"regexp"
	"strings"
	"sync"
)

// refusals are what firmware, shim, GRUB and the kernel print when they do not let something boot.
// Those in fatal are the last word: nothing more will happen on this boot.
var (
	refusal = regexp.MustCompile(`(?i)bad shim signature|verification failed|access denied|security violation|prohibited by secure boot`)
	fatal   = regexp.MustCompile(grubFailed + `|No bootable option|Press any key to (continue|enter)|Kernel panic|No mapping found`)
	escapes = regexp.MustCompile(`\x1b(\[[0-9;?=]*[A-Za-z]|[()][0-9A-Za-z]|[A-Za-z=>])`)
)

// console records the serial console of one boot and looks for refusals in it.
type console struct {
	file    *os.File
	copy    io.Writer
	refused chan struct{} // closed at the first fatal line
	done    chan struct{} // closed when the console has ended

	mu      sync.Mutex
	conn    net.Conn // nil until QEMU is there
	lines   bytes.Buffer
	refuse  []string
	isFatal bool
}

func newConsole(file *os.File, also io.Writer) *console {
	return &console{file: file, copy: also, refused: make(chan struct{}), done: make(chan struct{})}
}

// serve takes QEMU's connection and reads it to its end.
func (c *console) serve(l net.Listener) {
	defer close(c.done)
	defer c.file.Close()
	conn, err := l.Accept()
	if err != nil {
		return // QEMU ended before it came here
	}
	defer conn.Close()
	c.mu.Lock()
	c.conn = conn
	c.mu.Unlock()
	buf := make([]byte, 4096)
	var partial []byte
	for {
		n, err := conn.Read(buf)
		partial = append(partial, buf[:n]...)
		// Firmware moves the cursor instead of ending its lines, and prompts end in no newline: look at what is there so far, too.
		c.scan(partial)
		if i := bytes.LastIndexByte(partial, '\n'); i >= 0 {
			c.record(partial[:i+1])
			partial = bytes.Clone(partial[i+1:])
		}
		if err != nil {
			c.record(partial)
			return
		}
	}
}

// record keeps complete lines.
func (c *console) record(b []byte) {
	b = bytes.ReplaceAll(escapes.ReplaceAll(b, nil), []byte("\r"), nil)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lines.Write(b)
	_, _ = c.file.Write(b)
	if c.copy != nil {
		_, _ = c.copy.Write(b)
	}
}

// scan looks for refusals in text that may end in the middle of a line.
func (c *console) scan(b []byte) {
	text := string(escapes.ReplaceAll(b, nil))
	c.mu.Lock()
	defer c.mu.Unlock()
	for line := range strings.SplitSeq(text, "\n") {
		line = strings.TrimSpace(line)
		if !refusal.MatchString(line) && !fatal.MatchString(line) {
			continue
		}
		// A line that grew since the last look replaces what was seen of it.
		if n := len(c.refuse); n > 0 && strings.HasPrefix(line, c.refuse[n-1]) {
			c.refuse[n-1] = line
		} else {
			c.refuse = append(c.refuse, line)
		}
		if fatal.MatchString(line) && !c.isFatal {
			c.isFatal = true
			close(c.refused)
		}
	}
}

// write types on the console.
func (c *console) write(text string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn == nil {
		return net.ErrClosed
	}
	_, err := io.WriteString(c.conn, text)
	return err
}

func (c *console) refusals() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]string(nil), c.refuse...)
}

func (c *console) text() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.lines.String()
}
