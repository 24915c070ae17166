package vm

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// boot is one run of QEMU, from power on to power off.
type boot struct {
	qemu, tpm *exec.Cmd
	console   *console
	started   time.Time
	exited    chan struct{} // closed when QEMU and the TPM have ended
	ended     time.Time     // valid once exited is closed
	once      sync.Once
}

// cost is what a boot took.
type cost struct {
	Wall, CPU time.Duration
	PeakMB    int
}

// launch starts the TPM and QEMU.
func (m *Machine) launch(ctx context.Context) (*boot, error) {
	for _, s := range []string{"tpm.sock", "console.sock"} {
		_ = os.Remove(m.path(s))
	}
	logFile, err := os.Create(m.path("console.log"))
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("unix", m.path("console.sock"))
	if err != nil {
		return nil, err
	}
	b := &boot{console: newConsole(logFile, m.opts.Console), exited: make(chan struct{}), started: time.Now()}
	b.tpm, err = startTPM(ctx, m.path("tpm"), m.path("tpm.sock"), m.path("tpm.log"))
	if err != nil {
		l.Close()
		return nil, err
	}
	qemuLog, err := os.Create(m.path("qemu.log"))
	if err != nil {
		l.Close()
		return nil, err
	}
	defer qemuLog.Close()
	// Niceness keeps the machine that the tests run on usable: emulation takes all the time it is given.
	b.qemu = exec.Command("nice", append([]string{"-n", "5", "qemu-system-x86_64"}, m.arguments()...)...)
	b.qemu.Stdout, b.qemu.Stderr = qemuLog, qemuLog
	b.qemu.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := b.qemu.Start(); err != nil {
		l.Close()
		_ = b.tpm.Process.Kill()
		_ = b.tpm.Wait()
		return nil, fmt.Errorf("start qemu: %w", err)
	}
	go b.console.serve(l)
	go func() {
		_ = b.qemu.Wait()
		l.Close()
		<-b.console.done
		// The TPM ends by itself when QEMU hangs up; the signal is for one that QEMU never reached.
		_ = b.tpm.Process.Signal(syscall.SIGTERM)
		_ = b.tpm.Wait()
		b.ended = time.Now()
		if out, err := os.ReadFile(m.path("qemu.log")); err == nil && len(out) > 0 && !bytes.Contains(out, []byte("terminating on signal")) {
			m.lab.log("%s: qemu says: %s", m.opts.Name, out)
		}
		close(b.exited)
	}()
	return b, nil
}

// arguments returns QEMU's command line, all of whose parts that firmware can see stay the same from boot to boot.
func (m *Machine) arguments() []string {
	args := []string{
		"-name", m.opts.Name, "-machine", "q35,smm=on,vmport=off,hpet=off", "-accel", "tcg,thread=multi,tb-size=256",
		"-cpu", "max,la57=off", "-smp", "1", "-m", strconv.Itoa(m.opts.MemoryMB), "-rtc", "base=utc",
		"-global", "driver=cfi.pflash01,property=secure,value=on", "-global", "ICH9-LPC.disable_s3=1",
		"-drive", "if=pflash,format=raw,unit=0,readonly=on,file=" + ovmfCode,
		"-drive", "if=pflash,format=raw,unit=1,file=" + m.path("vars.fd"),
		"-chardev", "socket,id=tpm,path=" + m.path("tpm.sock"), "-tpmdev", "emulator,id=tpm0,chardev=tpm", "-device", "tpm-tis,tpmdev=tpm0",
		"-drive", "if=none,id=d0,format=raw,readonly=on,file=" + m.disk, "-device", "virtio-blk-pci,drive=d0,bootindex=1,serial=boot",
		"-drive", "if=none,id=d1,format=raw,file=" + m.path("job.img"), "-device", "virtio-blk-pci,drive=d1,serial=job",
		// Without its option ROM the network card adds nothing to PCR 2, and the firmware does not try to boot from it.
		"-netdev", "user,id=n0", "-device", "virtio-net-pci,netdev=n0,romfile=",
		"-chardev", "socket,id=con,path=" + m.path("console.sock"), "-serial", "chardev:con",
		"-display", "none", "-vga", "none", "-monitor", "none", "-no-reboot",
	}
	if m.opts.RootDisk != "" {
		args = append(args, "-drive", "if=none,id=d2,format=raw,readonly=on,file="+m.opts.RootDisk, "-device", "virtio-blk-pci,drive=d2,serial=root")
	}
	return args
}

// kill ends QEMU, when it still runs, and waits until everything has ended.
func (b *boot) kill() {
	b.once.Do(func() { _ = b.qemu.Process.Signal(syscall.SIGTERM) })
	select {
	case <-b.exited:
	case <-time.After(30 * time.Second):
		_ = b.qemu.Process.Kill()
		<-b.exited
	}
}

// cost returns what the boot took; it must have ended.
func (b *boot) cost() cost {
	c := cost{Wall: b.ended.Sub(b.started), CPU: b.qemu.ProcessState.UserTime() + b.qemu.ProcessState.SystemTime()}
	if u, ok := b.qemu.ProcessState.SysUsage().(*syscall.Rusage); ok {
		c.PeakMB = int(u.Maxrss >> 10) // Linux counts in kilobytes
	}
	return c
}
