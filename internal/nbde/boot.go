package nbde

import (
	"context"
	"net/netip"

	"touchstone.dev/touchstone/internal/store"
)

// Attested notes that a node attested, in a boot that the proven reset counter of its TPM names, over a connection from an address.
func (s *Service) Attested(ctx context.Context, e Attestation) {
	n := s.node(e.Node)
	if n == nil {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.gone || n.record.Policy.Mode != ModeAttested {
		return
	}
	// Only the beginning of a boot and its latch are written: after a restart of AIAS the next attestation brings the rest.
	next := n.record
	if next.attested(&e, s.o.Now()) {
		if err := s.save(ctx, &next, &store.DiskStep{At: s.o.Now()}); err != nil {
			s.o.Log.Error("the boot of a node could not be written down: its disks stay closed until it attests again", "node", e.Node, "err", err)
			return
		}
	}
	n.record = next
}

// ByBoot reports whether the disks of a node hang on its boot: then it is to quote tpm.LatchPCR.
func (s *Service) ByBoot(node string) bool {
	n := s.node(node)
	if n == nil {
		return false
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	return !n.gone && n.record.Policy.Mode == ModeAttested
}

// Would says whether a recovery for a node that just attested from an address would be released, and if not, what is missing. levels are those that its
// disks hang on; none when they do not hang on its boot.
func (s *Service) Would(ctx context.Context, node string, from netip.Addr) (levels []int32, missing []string, err error) {
	n := s.node(node)
	if n == nil {
		return nil, nil, nil
	}
	n.mu.Lock()
	r, gone := n.record, n.gone
	n.mu.Unlock()
	if gone || r.Policy.Mode != ModeAttested {
		return nil, nil, nil
	}
	standing, err := s.o.Standing(ctx, node, false)
	if err != nil {
		return nil, nil, err
	}
	levels = []int32{1, 2, 3, 4, 5}
	if c := r.Policy.Conditions; c != nil && len(c.Levels) > 0 {
		levels = c.Levels
	}
	_, missing = Decide(&r, standing, from, s.o.Now())
	return levels, missing, nil
}
