package device

import (
	"context"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"touchstone.dev/touchstone/internal/swtpm"
	"touchstone.dev/touchstone/internal/tpm"
)

// TestBootCounters: the reset count in a quote by our attestation key is that of the TPM, counts boots, and nothing else: neither a restart of what asks,
// nor a boot from a saved state, which counts as a restart. A key of the owner hierarchy shows it obfuscated (TPM 2.0 Library part 1, 36.7), by the
// same amount always.
func TestBootCounters(t *testing.T) {
	o := swtpm.Options{Dir: t.TempDir()}
	p, err := swtpm.Start(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Stop() })
	type counters struct{ reset, restart uint32 }
	read := func(shutdown ...tpm2.TPMSU) (plain, ak, owner counters) {
		dev, err := Open(p.Address())
		if err != nil {
			t.Fatal(err)
		}
		defer dev.Close() //nolint:errcheck // nothing is buffered
		clock, err := tpm2.ReadClock{}.Execute(dev.link)
		if err != nil {
			t.Fatal(err)
		}
		plain = counters{clock.CurrentTime.ClockInfo.ResetCount, clock.CurrentTime.ClockInfo.RestartCount}
		theirs := akECC
		theirs.name, theirs.owner = "ak-owner", true
		foreign, err := dev.key(theirs)
		if err != nil {
			t.Fatal(err)
		}
		for to, key := range map[*counters]*Key{&ak: mustAK(t, dev, "ecc"), &owner: foreign} {
			quotes, err := dev.Quote(key, nil, []tpm.Selection{{Alg: tpm.AlgSHA256, PCRs: tpm.PCRs(0)}})
			if err != nil {
				t.Fatal(err)
			}
			q, err := tpm.ParseQuote(quotes[0].Message)
			if err != nil {
				t.Fatal(err)
			}
			*to = counters{q.ResetCount, q.RestartCount}
		}
		for _, s := range shutdown {
			if _, err := (tpm2.Shutdown{ShutdownType: s}).Execute(dev.link); err != nil {
				t.Fatal(err)
			}
		}
		return plain, ak, owner
	}
	again := func() {
		if err := p.Stop(); err != nil {
			t.Fatal(err)
		}
		if p, err = swtpm.Start(context.Background(), o); err != nil {
			t.Fatal(err)
		}
	}
	first, _, hidden := read()
	if hidden == first {
		t.Errorf("a key of the owner hierarchy shows the counters plainly: %+v", hidden)
	}
	shift := counters{hidden.reset - first.reset, hidden.restart - first.restart}
	for _, c := range []struct {
		name string
		do   func()
		want counters // further than first
	}{
		{"the same boot", func() {}, counters{0, 0}},
		{"an orderly boot", func() {
			if err := p.Reboot(context.Background()); err != nil {
				t.Fatal(err)
			}
		}, counters{1, 0}},
		{"the power went", again, counters{2, 0}},
		{"a boot from a saved state", func() { read(tpm2.TPMSUState); again() }, counters{2, 1}},
		{"and an orderly one", func() {
			if err := p.Reboot(context.Background()); err != nil {
				t.Fatal(err)
			}
		}, counters{3, 0}},
	} {
		c.do()
		plain, ak, owner := read()
		want := counters{first.reset + c.want.reset, c.want.restart}
		if plain != want || ak != plain {
			t.Errorf("%s: the TPM counts %+v, the attestation key shows %+v, want %+v", c.name, plain, ak, want)
		}
		if got := (counters{owner.reset - plain.reset, owner.restart - plain.restart}); got != shift {
			t.Errorf("%s: the key of the owner hierarchy is off by %+v, and was by %+v before", c.name, got, shift)
		}
	}
}
