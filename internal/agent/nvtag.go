package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"golang.org/x/time/rate"

	"touchstone.dev/touchstone/internal/assettag"
	"touchstone.dev/touchstone/internal/evidence"
	"touchstone.dev/touchstone/internal/protocol"
)

// NVTagConfig says where in the TPM the asset tag of AIAS is kept.
type NVTagConfig struct {
	// Index is an NV index of the owner (0x01800000 to 0x01bfffff) that nobody else uses.
	Index uint32 `json:"index"`
	// OwnerAuthFile holds the authorization of the owner hierarchy; empty where it has none, as on most machines.
	OwnerAuthFile string `json:"ownerAuthFile"`
}

const (
	maxOwnerAuth = 64 // bytes, of the largest hash

	// NV memory wears out: whatever AIAS says, it is written no more often than this in the long run, and at once.
	tagWriteEvery = time.Minute
	tagWrites     = 10
)

// nvTag keeps the asset tag of AIAS in the TPM. It judges nothing: AIAS does, by what the TPM certifies.
type nvTag struct {
	cfg     NVTagConfig
	log     *slog.Logger
	writes  *rate.Limiter
	removed uint64 // serial at which the index was removed
	seen    uint64 // serial in the challenge that was answered last
}

func newNVTag(cfg NVTagConfig, log *slog.Logger) *nvTag {
	return &nvTag{cfg: cfg, log: log, writes: rate.NewLimiter(rate.Every(tagWriteEvery), tagWrites)}
}

// answer does what a challenge wants of the asset tag, and returns the certificate for the Evidence; nil when there is none to show. A tag that
// AIAS has seen before is certified as it is found, so that a change by somebody else shows before it is mended. A failure is no reason
// not to attest: AIAS gives no tags then.
func (k *nvTag) answer(t TPM, want *protocol.AssetTag, nonce []byte) *evidence.NVCertificate {
	if k == nil || want == nil {
		return nil
	}
	k.seen = want.Serial
	if err := k.settle(t, want); err != nil {
		k.log.Warn("the asset tag could not be written into the TPM: this worker shows none", "serial", want.Serial, "error", err)
		return nil
	}
	if len(want.Record) == 0 {
		return nil
	}
	cert, err := t.CertifyTag(k.cfg.Index, nonce)
	if err != nil {
		k.log.Warn("the TPM does not certify the asset tag: this worker shows none", "serial", want.Serial, "error", err)
		return nil
	}
	return cert
}

// isNew reports that a challenge brings a tag which this agent has not seen and is to write: that need not wait for the timer.
func (k *nvTag) isNew(want *protocol.AssetTag) bool {
	return want != nil && len(want.Record) > 0 && !want.Proven && want.Serial != k.seen
}

// settle brings the NV index to what AIAS wants.
func (k *nvTag) settle(t TPM, want *protocol.AssetTag) error {
	if len(want.Record) == 0 {
		if k.removed == want.Serial {
			return nil
		}
		owner, err := k.owner()
		if err == nil {
			err = t.RemoveTag(k.cfg.Index, owner)
		}
		if err == nil {
			k.removed = want.Serial
		}
		return err
	}
	if want.Proven {
		return nil
	}
	if _, err := assettag.Parse(want.Record); err != nil {
		return fmt.Errorf("what AIAS sent: %w", err)
	}
	if !k.writes.Allow() {
		return errors.New("it changes too often: NV memory wears out")
	}
	owner, err := k.owner()
	if err != nil {
		return err
	}
	return t.StoreTag(k.cfg.Index, want.Record, owner)
}

// owner reads the authorization of the owner hierarchy. It is read anew each time, and not kept.
func (k *nvTag) owner() ([]byte, error) {
	if k.cfg.OwnerAuthFile == "" {
		return nil, nil
	}
	b, err := readBounded(k.cfg.OwnerAuthFile, maxOwnerAuth+1)
	if err != nil {
		return nil, fmt.Errorf("read nvTag.ownerAuthFile: %w", err)
	}
	if b = bytes.TrimRight(b, "\r\n"); len(b) > maxOwnerAuth {
		return nil, fmt.Errorf("nvTag.ownerAuthFile has more than %d bytes", maxOwnerAuth)
	}
	return b, nil
}

// listen waits at AIAS for news until d is over or ctx ends, and reports whether there are some. It needs no port here, and one connection: between
// two requests and the next attestation that is not idle for long. After a failure the timer does: AIAS may be away, or have no room.
func listen(ctx context.Context, link Link, known *protocol.AssetTag, timeout, d time.Duration) bool {
	var serial uint64
	if known != nil {
		serial = known.Serial
	}
	for end := time.Now().Add(d); ; {
		hold := min(timeout/2, time.Until(end)).Truncate(time.Second)
		if hold <= 0 {
			return false
		}
		if attest, err := link.News(ctx, serial, hold); err != nil || attest {
			return err == nil
		}
	}
}
