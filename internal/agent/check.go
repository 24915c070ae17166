package agent

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"touchstone.dev/touchstone/internal/tpm"
)

// Checked is one thing that a machine needs to be attested.
type Checked struct {
	What string
	Seen string // what is there
	Err  error  // what is missing, and what to do
}

// Text is what to show: what is there, or what is missing.
func (c Checked) Text() string {
	if c.Err != nil {
		return c.Err.Error()
	}
	return c.Seen
}

// Check looks at everything that attestation needs. It changes nothing.
func Check(ctx context.Context, cfg *Config) []Checked {
	host := HostAt(cfg.HostRoot)
	out := []Checked{checkTPM(ctx, cfg), checkLog(host), checkIMA(host), checkIdentity(cfg, time.Now())}
	return append(out, checkServer(ctx, cfg))
}

func checkTPM(ctx context.Context, cfg *Config) (c Checked) {
	c.What = "TPM"
	c.Err = guard(ctx, tpmTimeout, func() error {
		t, err := OpenTPM(cfg.TPM)
		if err != nil {
			return fmt.Errorf("%w: enable TPM 2.0 in the firmware setup, and run as root", err)
		}
		defer t.Close() //nolint:errcheck // nothing is buffered
		banks, err := t.Banks()
		if err != nil {
			return err
		}
		if !slices.Contains(banks, tpm.AlgSHA256) && !slices.Contains(banks, tpm.AlgSHA384) {
			return errors.New("no sha256 or sha384 bank: enable one in the firmware setup")
		}
		_, certs, err := t.Endorsement()
		if err != nil {
			return err
		}
		c.Seen = fmt.Sprintf("%s, %d banks, %d EK certificates", cfg.TPM, len(banks), len(certs))
		return nil
	})
	return c
}

func checkLog(host Host) Checked {
	c := Checked{What: "firmware log"}
	log, err := host.EventLog()
	switch {
	case err != nil:
		c.Err = err
	case len(log) == 0:
		c.Err = errors.New("the kernel has none: boot with UEFI; Debian's GRUB hands it over only with Secure Boot on")
	default:
		c.Seen = fmt.Sprintf("%d bytes", len(log))
	}
	return c
}

func checkIMA(host Host) Checked {
	c := Checked{What: "IMA list"}
	n, err := host.IMACount()
	switch {
	case err != nil:
		c.Err = fmt.Errorf("%w: use a kernel with CONFIG_IMA, mount securityfs and run as root", err)
	case n < 2:
		c.Err = fmt.Errorf("it has %d entries: boot with ima_policy=tcb", n)
	default:
		c.Seen = fmt.Sprintf("%d entries", n)
	}
	return c
}

func checkIdentity(cfg *Config, now time.Time) Checked {
	c := Checked{What: "enrolment"}
	id, err := LoadIdentity(cfg.StateDir)
	if errors.Is(err, ErrNotEnrolled) && cfg.TokenFile != "" {
		c.Seen = "not yet: " + cfg.TokenFile + " will be used"
		return c
	}
	if err != nil {
		c.Err = err
		return c
	}
	if c.Err = id.expired(now); c.Err != nil {
		return c
	}
	_, until, _ := id.Validity() //nolint:errcheck // expired looked at it
	c.Seen = fmt.Sprintf("%s with %s, certificate valid until %s", id.Node, id.Server, until.Local().Format(time.DateTime))
	return c
}

// checkServer asks for the readiness of AIAS, which needs no client certificate.
func checkServer(ctx context.Context, cfg *Config) Checked {
	c := Checked{What: "AIAS"}
	id, err := LoadIdentity(cfg.StateDir)
	if err != nil {
		id = nil
	}
	trust, err := trustFrom(cfg, id)
	if err != nil {
		c.Err = err
		return c
	}
	client, err := newClient(cfg.Server, trust, nil, time.Duration(cfg.Timeout))
	if err != nil {
		c.Err = err
		return c
	}
	defer client.Close()
	var any struct{}
	err = client.do(ctx, http.MethodGet, "/healthz", "", nil, &any)
	var refused *Refusal
	// Whatever it answers: it was reached, and its certificate was good.
	if err == nil || errors.As(err, &refused) || strings.Contains(err.Error(), "read the answer") {
		c.Seen = cfg.Server + " answers"
		return c
	}
	c.Err = err
	return c
}
