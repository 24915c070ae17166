package authority

import (
	"bufio"
	"encoding/json"
	"io"
	"net/http"
	"time"
)

// sse is an answer of server-sent events (HTML, 9.2). Errors of writing show when it is flushed.
type sse struct {
	w  *bufio.Writer
	rc *http.ResponseController
}

const sseBuffer = 16 << 10

// openSSE sends the head of the answer.
func openSSE(w http.ResponseWriter) *sse {
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	s := &sse{w: bufio.NewWriterSize(w, sseBuffer), rc: http.NewResponseController(w)}
	s.alive()
	w.WriteHeader(http.StatusOK)
	return s
}

// alive gives the client time to read what comes now. Who does not read is let go.
func (s *sse) alive() { _ = s.rc.SetWriteDeadline(time.Now().Add(streamTime)) } // not every test's writer can

func (s *sse) comment(text string) { _, _ = io.WriteString(s.w, ": "+text+"\n\n") }

func (s *sse) event(kind string, data any) error {
	b, err := json.Marshal(data)
	if err != nil {
		return err
	}
	_, _ = s.w.WriteString("event: " + kind + "\ndata: ")
	_, _ = s.w.Write(b)
	_, err = s.w.WriteString("\n\n")
	return err
}

// flush sends what was written.
func (s *sse) flush() error {
	if err := s.w.Flush(); err != nil {
		return err
	}
	return s.rc.Flush()
}
