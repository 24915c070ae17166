package authority

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"filippo.io/age"

	"touchstone.dev/touchstone/internal/backup"
	"touchstone.dev/touchstone/internal/keystore"
	"touchstone.dev/touchstone/internal/nbde"
)

// RestoreWithoutHSM is Restore also when exchange keys of disks are in an HSM that is not here. Their disks open when it is.
func RestoreWithoutHSM(ctx context.Context, cfg Config, in io.ReadSeeker, now time.Time, ids ...age.Identity) (backup.Head, error) {
	return (&restore{cfg: cfg, without: true}).run(ctx, in, now, ids)
}

// tryHSM tries the keys that the backup has by name only. It is better to hear of a missing token now than from machines that do not come up.
func (r *restore) tryHSM(ctx context.Context) error {
	if r.without {
		return nil
	}
	rows, err := r.store.DiskKeys(ctx)
	if err != nil {
		return err
	}
	var hsm nbde.HSM
	var away error
	if c := r.cfg.Disks.HSM; c != nil {
		token, err := keystore.OpenToken(*c)
		if err == nil {
			hsm = token
		}
		away = err
	}
	lost, err := nbde.LostKeys(ctx, rows, r.key, hsm)
	if err != nil || lost.Keys == 0 {
		return err
	}
	if away == nil {
		away = lost.Why
	}
	return fmt.Errorf("%d of %d exchange keys that are in an HSM cannot be used here, those of %s: %w. They are not in the backup; nothing was written. "+
		"Bring the token, or a restored copy of it with the same label, name it as disks.hsm in the configuration, and run aias restore again. "+
		"With --without-hsm it restores all else, and these disks open by a recovery passphrase, or when the token is back", lost.Keys, lost.Of, owners(lost.Nodes), away)
}

// maxOwners bounds how many nodes a message names.
const maxOwners = 8

// owners says whose keys are meant.
func owners(nodes []string) string {
	names := make([]string, 0, maxOwners+1)
	for i, n := range nodes {
		if i == maxOwners {
			names = append(names, fmt.Sprintf("%d more", len(nodes)-i))
			break
		}
		if n == "" {
			n = "all (disks.open)"
		}
		names = append(names, n)
	}
	return strings.Join(names, ", ")
}
