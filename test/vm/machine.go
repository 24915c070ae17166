package vm

import (
	"context"
	"crypto/rand"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"touchstone.dev/touchstone/test/vm/control"
)

// jobDiskBytes is the size of the job disk.
const jobDiskBytes = control.MaxJob + 4096

// Machine is one worker: its TPM and firmware variables live as long as it does, boots come and go.
// Its methods must not be called at the same time.
type Machine struct {
	lab       *Lab
	opts      Options
	dir       string          // TPM state, variables, sockets, logs
	firmware  string          // store file that the variables were copied from
	disk      string          // what it boots from, "" until built
	persisted map[string]File // files of Options.Persist
	boots     int
	boot      *boot                   // nil while the machine is off
	console   atomic.Pointer[console] // of the latest boot
	guest     *Guest
}

// NewMachine makes a machine, switched off, with a TPM fresh from the factory. The caller closes it.
func (l *Lab) NewMachine(o Options) (*Machine, error) {
	o.setDefaults()
	state, err := l.tpmState(context.Background(), o.Name)
	if err != nil {
		return nil, err
	}
	// A short path: the sockets in it may not exceed 107 bytes.
	dir, err := os.MkdirTemp("", "vm-")
	if err != nil {
		return nil, err
	}
	m := &Machine{lab: l, opts: o, dir: dir, persisted: map[string]File{}}
	if err := os.CopyFS(m.path("tpm"), os.DirFS(state)); err != nil {
		m.Close()
		return nil, err
	}
	return m, nil
}

func (m *Machine) path(name string) string { return filepath.Join(m.dir, name) }

// Name returns the machine's name.
func (m *Machine) Name() string { return m.opts.Name }

// Options returns a copy of what the machine was made of.
func (m *Machine) Options() Options {
	o := m.opts
	o.Files, o.JobFiles = maps.Clone(o.Files), maps.Clone(o.JobFiles)
	o.IMARules, o.Persist = slices.Clone(o.IMARules), slices.Clone(o.Persist)
	return o
}

// Change changes what a machine that is off boots next. Its TPM stays; its firmware variables stay unless Options.Firmware changes.
func (m *Machine) Change(change func(*Options)) error {
	if m.boot != nil {
		return fmt.Errorf("machine %s runs: stop it before it is changed", m.opts.Name)
	}
	o := m.Options()
	change(&o)
	if o.Name != m.opts.Name {
		return fmt.Errorf("machine %s cannot be renamed: its name stands for its TPM", m.opts.Name)
	}
	o.setDefaults()
	m.opts = o
	m.disk = ""
	return nil
}

// prepare builds what the next boot needs.
func (m *Machine) prepare(ctx context.Context) error {
	firmware, err := m.lab.firmware(ctx, m.opts.Firmware)
	if err != nil {
		return err
	}
	if firmware != m.firmware {
		b, err := os.ReadFile(firmware)
		if err != nil {
			return err
		}
		if err := os.WriteFile(m.path("vars.fd"), b, 0o600); err != nil {
			return err
		}
		m.firmware = firmware
	}
	if m.disk == "" {
		m.disk, err = m.lab.bootDisk(ctx, &m.opts)
	}
	return err
}

// writeJob writes the job disk for the next boot.
func (m *Machine) writeJob(address, token string) error {
	files := maps.Clone(m.opts.JobFiles)
	if files == nil {
		files = map[string]File{}
	}
	maps.Copy(files, m.persisted)
	f, err := os.Create(m.path("job.img"))
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Truncate(jobDiskBytes); err != nil {
		return err
	}
	if err := control.WriteJob(f, &control.Job{Control: address, Token: token, Files: files}); err != nil {
		return err
	}
	return f.Close()
}

// Start boots the machine and returns when its /init answers. A boot that is refused, dies or takes longer than
// Options.BootTimeout ends with a *BootError, and the machine is off.
func (m *Machine) Start(ctx context.Context) (*Guest, error) {
	if m.boot != nil {
		return nil, fmt.Errorf("machine %s runs already", m.opts.Name)
	}
	if err := m.prepare(ctx); err != nil {
		return nil, fmt.Errorf("prepare machine %s: %w", m.opts.Name, err)
	}
	token := rand.Text()
	l, err := listen(token)
	if err != nil {
		return nil, err
	}
	defer l.close()
	if err := m.writeJob(l.guestAddress(), token); err != nil {
		return nil, err
	}
	m.boots++
	b, err := m.launch(ctx)
	if err != nil {
		return nil, err
	}
	m.console.Store(b.console)
	limit := time.NewTimer(m.opts.BootTimeout)
	defer limit.Stop()
	why := ""
	select {
	case g := <-l.guest:
		m.boot, m.guest = b, g
		m.lab.log("%s: boot %d up after %.1f s (kernel %s s): %d modules, %d IMA rules, problems %q", m.opts.Name, m.boots,
			time.Since(b.started).Seconds(), g.Hello.Uptime, len(g.Hello.Modules), len(g.Hello.IMARules), g.Hello.Problems)
		return g, nil
	case <-b.console.refused:
		why = "the boot was refused"
	case <-b.exited:
		why = "the machine ended before its /init answered"
	case <-limit.C:
		why = fmt.Sprintf("no answer from /init within %v", m.opts.BootTimeout)
	case <-ctx.Done():
		why = ctx.Err().Error()
	}
	b.kill()
	m.report(b)
	return nil, &BootError{Machine: m.opts.Name, Reason: why, Refusals: b.console.refusals(), Console: b.console.text()}
}

// Guest returns the way into the running machine, or nil while it is off.
func (m *Machine) Guest() *Guest { return m.guest }

// Console returns what the serial console of the latest boot showed so far, without escape sequences.
func (m *Machine) Console() string {
	b, err := os.ReadFile(m.path("console.log"))
	if err != nil {
		return ""
	}
	return string(b)
}

// Type types on the serial console of the latest boot. It may be called while Start waits.
func (m *Machine) Type(text string) error {
	c := m.console.Load()
	if c == nil {
		return fmt.Errorf("machine %s was never started", m.opts.Name)
	}
	return c.write(text)
}

// Stop switches the machine off in good order.
func (m *Machine) Stop(ctx context.Context) error { return m.end(ctx, control.OpPowerOff) }

// Reboot restarts the machine: the TPM sees a reset, as at any restart.
func (m *Machine) Reboot(ctx context.Context) (*Guest, error) {
	if err := m.end(ctx, control.OpReboot); err != nil {
		return nil, err
	}
	return m.Start(ctx)
}

// end saves what persists, tells the guest to end in the way op says, and waits until the machine is off.
func (m *Machine) end(ctx context.Context, op string) error {
	if m.boot == nil {
		return nil
	}
	b, g := m.boot, m.guest
	defer func() {
		g.close()
		b.kill()
		m.report(b)
		m.boot, m.guest = nil, nil
	}()
	for _, dir := range m.opts.Persist {
		files, err := g.Pack(ctx, dir)
		if err != nil {
			return fmt.Errorf("save %s of %s: %w", dir, m.opts.Name, err)
		}
		maps.DeleteFunc(m.persisted, func(path string, _ File) bool { return within(path, dir) })
		maps.Copy(m.persisted, files)
	}
	if _, err := g.do(ctx, &control.Request{Op: op}); err != nil {
		return fmt.Errorf("%s of %s: %w", op, m.opts.Name, err)
	}
	g.close() // the guest waits for this
	select {
	case <-b.exited:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%s of %s: %w", op, m.opts.Name, ctx.Err())
	case <-time.After(2 * time.Minute):
		return fmt.Errorf("%s of %s: the machine still runs after 2 minutes", op, m.opts.Name)
	}
}

// Kexec starts another kernel in the running machine, without its firmware: the TPM is not reset. What comes up is not waited for; [Machine.Kill] ends it.
func (m *Machine) Kexec(ctx context.Context, kernel, initrd []byte, line string) error {
	if m.boot == nil {
		return fmt.Errorf("machine %s is off", m.opts.Name)
	}
	const k, i = "/run/kexec-kernel", "/run/kexec-initrd"
	for name, data := range map[string][]byte{k: kernel, i: initrd} {
		if err := m.guest.WriteFile(ctx, name, data, 0o600); err != nil {
			return err
		}
	}
	_, err := m.guest.do(ctx, &control.Request{Op: control.OpKexec, Path: k, Args: []string{i, line}})
	m.guest.close()
	return err
}

// Kill switches the machine off at once.
func (m *Machine) Kill() {
	if m.boot != nil {
		m.guest.close()
		m.boot.kill()
		m.report(m.boot)
		m.boot, m.guest = nil, nil
	}
}

// within says whether path lies below dir.
func within(path, dir string) bool {
	rel, err := filepath.Rel(dir, path)
	return err == nil && filepath.IsLocal(rel)
}

// report says what a boot cost.
func (m *Machine) report(b *boot) {
	c := b.cost()
	m.lab.log("%s: boot %d off after %.1f s: %.1f CPU s, peak memory %d MB", m.opts.Name, m.boots, c.Wall.Seconds(), c.CPU.Seconds(), c.PeakMB)
}

// Close ends the machine at once, when it still runs, and removes it. It is safe to call after any error.
func (m *Machine) Close() error {
	m.Kill()
	return os.RemoveAll(m.dir)
}
