// Command init is the /init of the machines that the end-to-end tests boot: a small static program that brings a worker up
// the way a Debian initrd would, starts the product's trust agent, and then does what the test on the host asks for
// (see package control).
//
// It is part of the measured initrd. It takes nothing from the kernel command line, so that the tests may vary that freely.
// It ends only by reboot or power off: a panic of the kernel would be all that is seen of an error.
package main

import (
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"touchstone.dev/touchstone/test/vm/control"
)

// machine is what /init learnt while it brought the machine up.
type machine struct {
	hello control.Hello
}

// say writes a line to the console, which the host records.
func say(format string, a ...any) {
	fmt.Printf("init: %s %s\n", uptime(), fmt.Sprintf(format, a...))
}

// problem records what did not work; the host sees it in Hello.
func (m *machine) problem(format string, a ...any) {
	s := fmt.Sprintf(format, a...)
	say("problem: %s", s)
	m.hello.Problems = append(m.hello.Problems, s)
}

func uptime() string {
	b, _ := os.ReadFile("/proc/uptime")
	up, _, _ := strings.Cut(string(b), " ")
	return up
}

func main() {
	m := &machine{}
	os.Setenv("PATH", "/bin:/sbin:/usr/bin:/usr/sbin")
	os.Setenv("HOME", "/root")
	m.mount()
	say("started")
	m.loadModules("/modules")
	m.mountEFI()
	m.setClock("/dev/rtc0")
	m.imaRules("/etc/ima/rules", "/sys/kernel/security/ima/policy")
	m.network("eth0")

	job, err := waitForJob(2 * time.Minute)
	if err != nil {
		m.problem("%v", err)
		job = &control.Job{}
	}
	for path, f := range job.Files {
		if err := writeFile(path, f.Data, f.Mode); err != nil {
			m.problem("job file: %v", err)
		}
	}
	go superviseAgent("/bin/trust-agent", "/etc/trust-agent.yaml")
	say("up")
	if err := m.serve(job); err != nil {
		say("control channel ended: %v", err)
	}
	halt(unix.LINUX_REBOOT_CMD_POWER_OFF)
}

// halt ends the machine in the way that cmd says.
func halt(cmd int) {
	unix.Sync()
	if err := unix.Reboot(cmd); err != nil {
		say("reboot(%#x): %v", cmd, err)
	}
	select {}
}
