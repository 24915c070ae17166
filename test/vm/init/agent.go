package main

import (
	"bufio"
	"io"
	"os"
	"os/exec"
	"time"
)

// agentPause is how long the supervisor waits before it starts an agent again that ended.
const agentPause = 2 * time.Second

// superviseAgent runs the trust agent as a service manager would: it starts it again whenever it ends. Its output goes to
// the console, each line with a prefix. Without a program or its configuration there is no agent on this machine.
func superviseAgent(program, config string) {
	for _, f := range []string{program, config} {
		if _, err := os.Stat(f); err != nil {
			say("no agent: %v", err)
			return
		}
	}
	for {
		say("agent starts")
		say("agent ended: %v", runAgent(program, "run", "--config", config))
		time.Sleep(agentPause)
	}
}

func runAgent(program string, args ...string) error {
	cmd := exec.Command(program, args...)
	r, w := io.Pipe()
	cmd.Stdout, cmd.Stderr = w, w
	done := make(chan struct{})
	go func() {
		defer close(done)
		prefix(r, "agent: ")
	}()
	err := cmd.Run()
	w.Close()
	<-done
	return err
}

// prefix copies lines to the console.
func prefix(r io.Reader, with string) {
	in := bufio.NewReader(r)
	for {
		line, err := in.ReadString('\n')
		if line != "" {
			if line[len(line)-1] != '\n' {
				line += "\n"
			}
			_, _ = os.Stdout.WriteString(with + line)
		}
		if err != nil {
			return
		}
	}
}
