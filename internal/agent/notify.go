package agent

import (
	"net"
	"os"
	"time"
)

// notify tells the service manager a state (sd_notify(3)): "READY=1", "STATUS=trusted". It does nothing outside systemd, and never
// waits: a manager that does not listen must not stop attestation.
func notify(state string) {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return
	}
	if path[0] == '@' {
		path = "\x00" + path[1:]
	}
	conn, err := (&net.Dialer{Timeout: time.Second}).Dial("unixgram", path)
	if err != nil {
		return
	}
	defer conn.Close()                                 //nolint:errcheck // nothing is buffered
	conn.SetWriteDeadline(time.Now().Add(time.Second)) //nolint:errcheck // a unix socket takes deadlines
	conn.Write([]byte(state))                          //nolint:errcheck // best effort by contract
}
