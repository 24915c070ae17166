package cluster

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"time"
)

// roleFront is the role of the balancer.
const roleFront = "front"

// openFront starts the balancer: one address for all API servers.
func (c *Cluster) openFront(ctx context.Context) error {
	if err := attach(ctx, frontNS, FrontIP); err != nil {
		return err
	}
	members := make([]string, len(c.Members))
	for i, m := range c.Members {
		members[i] = net.JoinHostPort(m.ip, apiPort)
	}
	p, err := launch(frontNS, c.logFile("front"), os.Args[0], append([]string{roleArgument, roleFront, net.JoinHostPort(FrontIP, apiPort)}, members...)...)
	c.front = p
	return err
}

// front forwards connections to the first of the servers that takes them, beginning with another one each time.
func front(args []string) error {
	listen, servers := args[0], args[1:]
	l, err := net.Listen("tcp", listen) //nolint:noctx // until the process ends
	if err != nil {
		return err
	}
	for turn := 0; ; turn++ {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		go forward(conn, servers, turn)
	}
}

func forward(conn net.Conn, servers []string, turn int) {
	defer conn.Close()
	for i := range servers {
		to, err := net.DialTimeout("tcp", servers[(turn+i)%len(servers)], time.Second) //nolint:noctx // has a time
		if err != nil {
			continue
		}
		defer to.Close()
		go func() {
			_, _ = io.Copy(to, conn)
			_ = to.(*net.TCPConn).CloseWrite()
		}()
		_, _ = io.Copy(conn, to)
		return
	}
}

// roleArgument is the first argument of the test binary when it is to be something else than tests: it is started again as the balancer,
// and as the first process of each worker.
const roleArgument = "cluster-role"

// Role does what the arguments say, when they are not those of tests; TestMain calls it first. It does not return then.
func Role() {
	if len(os.Args) < 3 || os.Args[1] != roleArgument {
		return
	}
	roles := map[string]func([]string) error{roleFront: front, roleOuter: outer, roleInner: inner}
	role := roles[os.Args[2]]
	if role == nil {
		role = func([]string) error { return errors.New("unknown role") }
	}
	if err := role(os.Args[3:]); err != nil {
		os.Stderr.WriteString(strings.Join(os.Args[1:3], " ") + ": " + err.Error() + "\n")
		os.Exit(1)
	}
	os.Exit(0)
}
