package authority

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"touchstone.dev/touchstone/internal/claims"
	"touchstone.dev/touchstone/internal/protocol"
)

// diskKeys is what AIAS knows of the keys that open the volumes of a node.
func (a *Authority) diskKeys(ctx context.Context, node string) (*claims.DiskKeys, error) {
	escrowed, err := a.escrow.Volumes(ctx, node)
	if err != nil {
		return nil, err
	}
	return &claims.DiskKeys{Keys: a.disks.Exchanges(node), Escrowed: escrowed}, nil
}

// inventory is what the facts of a node say of its volumes, read once.
type inventory struct {
	facts   []byte // digest
	volumes claims.Volumes
}

// volumes are those of the last Evidence of a node.
func (a *Authority) volumes(ctx context.Context, n *node) (claims.Volumes, error) {
	n.mu.RLock()
	c := n.checkpoint
	n.mu.RUnlock()
	if c == nil || len(c.FactsDigest) == 0 {
		return claims.Volumes{}, nil
	}
	if have := n.inventory.Load(); have != nil && bytes.Equal(have.facts, c.FactsDigest) {
		return have.volumes, nil
	}
	b, err := a.kept(ctx, c.FactsDigest)
	if notFound(err) {
		return claims.Volumes{}, nil // newer Evidence took its place just now
	}
	if err != nil {
		return claims.Volumes{}, err
	}
	facts, err := decodeFacts(b)
	if err != nil {
		return claims.Volumes{}, err
	}
	v := claims.ReadVolumes(facts)
	n.inventory.Store(&inventory{c.FactsDigest, v})
	return v, nil
}

// nodeVolumes are the volumes of a node as the API says them.
func (a *Authority) nodeVolumes(ctx context.Context, n *node) (*protocol.NodeVolumes, error) {
	v, err := a.volumes(ctx, n)
	if err != nil {
		return nil, fmt.Errorf("volumes of %s: %w", n.name, err)
	}
	keys, err := a.diskKeys(ctx, n.name)
	if err != nil {
		return nil, err
	}
	out := &protocol.NodeVolumes{Node: n.name, Problem: v.Problem, Volumes: make([]protocol.Volume, len(v.All))}
	switch {
	case v.Problem != "":
	case !v.Told:
		out.Problem = "the worker does not say which volumes it has"
	case v.Cut:
		out.Problem = "the worker has more volumes than its agent tells of"
	}
	for i := range v.All {
		out.Volumes[i] = volumeOf(&v.All[i], keys)
	}
	return out, nil
}

func volumeOf(v *claims.DataVolume, keys *claims.DiskKeys) protocol.Volume {
	out := protocol.Volume{Points: v.Points, Swap: v.Swap, Device: v.Device, Type: v.Type, Size: v.Size, Encrypted: v.Encrypted, Why: v.Why, Layers: v.Layers}
	for i := range v.Containers {
		c := &v.Containers[i]
		k := protocol.Container{Device: c.Device, UUID: c.UUID, Bindings: keys.Bindings(c), Why: c.Why}
		if h := c.Header; h != nil {
			k.Format, k.Cipher, k.Integrity = fmt.Sprintf("LUKS%d", h.Version), h.Cipher, h.Integrity
		}
		out.Containers = append(out.Containers, k)
	}
	return out
}

func (a *Authority) getVolumes(w http.ResponseWriter, r *http.Request, _ identity) error {
	out := protocol.VolumeList{Nodes: []protocol.NodeVolumes{}}
	for _, n := range a.all() {
		v, err := a.nodeVolumes(r.Context(), n)
		if err != nil {
			return err
		}
		out.Nodes = append(out.Nodes, *v)
	}
	slices.SortFunc(out.Nodes, func(a, b protocol.NodeVolumes) int { return strings.Compare(a.Node, b.Node) })
	return answer(w, out)
}
