package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"syscall"
	"time"

	"touchstone.dev/touchstone/internal/protocol"
	"touchstone.dev/touchstone/internal/tpm"
)

// Early boot: the disks are closed, and AIAS gives their keys to clevis after this worker has attested in this boot. There is no state to write,
// nobody to log in, and a console that somebody may be looking at.

// TriggerBoot is the reason of an attestation before the disks are open.
const TriggerBoot Trigger = "boot"

// Outcomes of BootAttest that are no success.
var (
	// ErrDisksClosed means that AIAS judged, and does not open the disks; what BootAttest said has the reasons.
	ErrDisksClosed = errors.New("AIAS does not open the disks of this machine")
	// ErrNoVerdict means that there was no verdict in time.
	ErrNoVerdict = errors.New("no verdict in time")
)

// BootOptions bound an attestation before the disks are open.
type BootOptions struct {
	// Wait is how long AIAS may take to be reached and to judge, all in all.
	Wait time.Duration
	// Again is the time between two attestations while the disks stay closed: what an operator does for this worker then counts without a reboot. 0:
	// the first verdict is the last.
	Again time.Duration
	// Console is where a person looks for why the disks stay closed.
	Console io.Writer
}

// bootPrefix begins each line on the console.
const bootPrefix = "trust-agent: "

// BootAttest attests until AIAS opens the disks, and returns nil then: clevis gets its answer now. It gives way with ErrDisksClosed or ErrNoVerdict when
// its time is over, so that the next pin or a passphrase has its turn. Nothing is written but to the console.
func (a *Agent) BootAttest(ctx context.Context, o BootOptions) error {
	ctx, cancel := context.WithTimeout(ctx, o.Wait)
	defer cancel()
	b := &booting{agent: a, options: o}
	defer b.close()
	b.say("attesting to %s before the disks are opened", a.cfg.Server)
	for {
		pause, err := b.try(ctx)
		if err == nil {
			b.say("AIAS opens the disks of %s", b.node)
			return nil
		}
		if errors.Is(err, ErrDisksClosed) && o.Again == 0 || errors.Is(err, ErrNotEnrolled) {
			return err
		}
		if !sleep(ctx, pause) {
			if b.judged {
				return ErrDisksClosed
			}
			return fmt.Errorf("%w (%v): the disks wait for AIAS, another pin or a passphrase; last: %w", ErrNoVerdict, o.Wait, b.last)
		}
	}
}

// booting is the state of BootAttest.
type booting struct {
	agent    *Agent
	options  BootOptions
	tpm      TPM
	attester *attester
	node     string
	said     string // last reasons on the console: a machine that waits says them once
	judged   bool   // there was a verdict
	last     error
}

// try attests once. It returns how long to wait after a failure.
func (b *booting) try(ctx context.Context) (time.Duration, error) {
	var r Report
	err := b.connect(ctx)
	if err == nil {
		err = guard(ctx, tpmTimeout+time.Duration(b.agent.cfg.Timeout), func() error { r = b.attester.attest(ctx, TriggerBoot); return r.Err })
	}
	if err != nil {
		if ctx.Err() == nil {
			b.last = err
			b.once(notYet(err))
		} else if b.last == nil {
			b.last = err
		}
		b.close() // a connection made before the network was there is of no use
		return b.agent.pause(err), err
	}
	b.agent.wait.reset()
	b.judged = true
	d := r.Attestation.Disks
	if d == nil {
		d = &protocol.DiskAnswer{Missing: []string{"AIAS knows no disk of this machine that opens by attestation: touchstone disk bind " + b.node}}
	}
	if d.Open {
		return 0, nil
	}
	b.once(refusalText(d))
	return max(b.options.Again, minInterval), ErrDisksClosed
}

// notYet says why there is no verdict yet. That the network is not up is no failure in an initramfs.
func notYet(err error) string {
	if errors.Is(err, syscall.ENETUNREACH) || errors.Is(err, syscall.EHOSTUNREACH) {
		return "waiting for the network"
	}
	return "not attested yet: " + err.Error()
}

// connect opens TPM and connection, when they are not.
func (b *booting) connect(ctx context.Context) error {
	if b.attester != nil {
		return nil
	}
	a := b.agent
	id, err := LoadIdentity(a.cfg.StateDir)
	if err != nil {
		return err
	}
	b.node = id.Node
	if b.tpm == nil {
		if err := guard(ctx, tpmTimeout, func() (err error) { b.tpm, err = a.open(); return err }); err != nil {
			return fmt.Errorf("open the TPM: %w", err)
		}
	}
	link, err := a.dial(id, b.tpm)
	if err != nil {
		return err
	}
	b.attester = &attester{node: id.Node, tpm: b.tpm, host: a.host, link: link, now: a.now, tap: a.Tap, tag: a.tag}
	return nil
}

// close gives connection and TPM back.
func (b *booting) close() {
	if b.attester != nil {
		b.attester.link.Close()
		b.attester = nil
	}
	if b.tpm != nil {
		_ = b.tpm.Close()
		b.tpm = nil
	}
}

func (b *booting) say(format string, a ...any) {
	for line := range strings.SplitSeq(fmt.Sprintf(format, a...), "\n") {
		fmt.Fprintln(b.options.Console, bootPrefix+printable(line))
	}
}

// once says something that was not the last thing said.
func (b *booting) once(text string) {
	if text != b.said {
		b.said = text
		b.say("%s", text)
	}
}

// Bounds on what AIAS can have written on the console.
const (
	maxBootReasons = 8
	maxBootLine    = 400 // characters
)

// refusalText says why the disks stay closed: what is missing, then each finding with its remedy.
func refusalText(d *protocol.DiskAnswer) string {
	lines := []string{"AIAS does not open the disks:"}
	for _, m := range d.Missing[:min(len(d.Missing), maxBootReasons)] {
		lines = append(lines, "  "+m)
	}
	for _, f := range d.Findings[:min(len(d.Findings), maxBootReasons)] {
		lines = append(lines, fmt.Sprintf("  level %d, %s: %s", f.Level, f.Rule, f.Message))
		if f.Remedy != "" {
			lines = append(lines, "    what to do: "+f.Remedy)
		}
	}
	return strings.Join(lines, "\n")
}

// printable leaves out what would control a terminal, and what is too long.
func printable(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 {
			return -1
		}
		return r
	}, s)
	if r := []rune(s); len(r) > maxBootLine {
		return string(r[:maxBootLine]) + "…"
	}
	return s
}

// CloseLatch says in the TPM that the disks of this boot are open, and shows that to AIAS, which then gives none of their keys out any more until the
// machine is reset. The TPM comes first: an AIAS that cannot be reached learns of it from the next attestation, and must see one before it gives a key.
// A latch that is closed already stays as it is, so that AIAS recognises it.
func (a *Agent) CloseLatch(ctx context.Context, o BootOptions) error {
	ctx, cancel := context.WithTimeout(ctx, o.Wait)
	defer cancel()
	b := &booting{agent: a, options: o}
	defer b.close()
	if err := guard(ctx, tpmTimeout, func() (err error) { b.tpm, err = a.open(); return err }); err != nil {
		return fmt.Errorf("open the TPM: %w", err)
	}
	if err := closeLatch(b.tpm); err != nil {
		return err
	}
	for {
		err := b.connect(ctx)
		if err == nil {
			err = guard(ctx, tpmTimeout+time.Duration(a.cfg.Timeout), func() error { return b.attester.attest(ctx, TriggerBoot).Err })
		}
		if err == nil {
			b.say("the disks are open: AIAS gives their keys out no more in this boot")
			return nil
		}
		b.close()
		if errors.Is(err, ErrNotEnrolled) || !sleep(ctx, a.pause(err)) {
			return fmt.Errorf("the TPM has it, AIAS not yet: %w", err)
		}
	}
}

// closeLatch extends tpm.LatchPCR, unless it was.
func closeLatch(t TPM) error {
	banks, err := t.Banks()
	if err != nil {
		return fmt.Errorf("%w: read its banks: %w", errTPM, err)
	}
	if len(banks) == 0 {
		return errors.New("the TPM has no active bank: enable one in the firmware setup")
	}
	q, err := t.Quote([]byte("latch"), banks[0], tpm.PCRs(tpm.LatchPCR))
	if err != nil {
		return fmt.Errorf("%w: read PCR %d: %w", errTPM, tpm.LatchPCR, err)
	}
	for _, bank := range q.PCRs {
		if bank.Alg == banks[0] && tpm.Latch(bank.Alg, bank.Values[tpm.LatchPCR]) == tpm.LatchClosed {
			return nil
		}
	}
	if err := t.Measure(tpm.LatchPCR, []byte(tpm.LatchEvent)); err != nil {
		return fmt.Errorf("%w: extend PCR %d: %w", errTPM, tpm.LatchPCR, err)
	}
	return nil
}

// BootIdentity returns the enrolment that an initramfs keeps: its certificate is good for attesting only, and valid for long, because nobody renews it
// there.
func BootIdentity(ctx context.Context, cfg *Config, id *Identity) (*Identity, error) {
	var out *Identity
	err := guard(ctx, tpmTimeout, func() error {
		t, err := OpenTPM(cfg.TPM)
		if err != nil {
			return err
		}
		defer t.Close() //nolint:errcheck // nothing is buffered
		c, err := Dial(cfg, id, t)
		if err != nil {
			return err
		}
		defer c.Close()
		out, err = bootIdentity(ctx, c, t, id)
		return err
	})
	return out, err
}

func bootIdentity(ctx context.Context, c Link, t TPM, id *Identity) (*Identity, error) {
	csr, err := request(id.Node, t)
	if err != nil {
		return nil, err
	}
	answer, err := c.Renew(ctx, &protocol.RenewRequest{CSR: csr, Boot: true})
	if err != nil {
		return nil, err
	}
	boot := *id
	boot.Certificate = answer.Certificate
	_, err = boot.chain()
	return &boot, err
}
