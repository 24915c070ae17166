package authority

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"touchstone.dev/touchstone/internal/nbde"
	"touchstone.dev/touchstone/internal/protocol"
	"touchstone.dev/touchstone/internal/store"
)

func (a *Authority) getDisks(w http.ResponseWriter, r *http.Request, _ identity) error {
	out, err := a.diskList(r.Context())
	if err != nil {
		return err
	}
	return answer(w, out)
}

func (a *Authority) diskList(ctx context.Context) (*protocol.DiskList, error) {
	o, err := a.disks.Overview(ctx)
	if err != nil {
		return nil, err
	}
	out := &protocol.DiskList{Open: a.cfg.Disks.Open, Signers: o.Signers, Shared: diskKeys(o.Shared), Nodes: make([]protocol.Disk, len(o.Nodes))}
	if a.cfg.Disks.Listen != "" {
		out.URL = "http://" + a.cfg.Disks.Address
	}
	if out.Signers == nil {
		out.Signers = []string{}
	}
	for i := range o.Nodes {
		if out.Nodes[i], err = diskOf(&o.Nodes[i], a.now()); err != nil {
			return nil, err
		}
		if n := a.node(out.Nodes[i].Node); n != nil {
			if out.Nodes[i].Volumes, err = a.nodeVolumes(ctx, n); err != nil {
				return nil, err
			}
		}
	}
	return out, nil
}

// diskOf is the disks of a node as the API says it. What is over at time now is left out.
func diskOf(v *nbde.NodeView, now time.Time) (protocol.Disk, error) {
	d := protocol.Disk{Node: v.Node, Ready: v.Ready, Why: v.Why, Revoked: v.Revoked != nil, Keys: diskKeys(v.Keys), Rebind: v.Rebind}
	b, err := json.Marshal(v.Policy)
	if err != nil {
		return d, err
	}
	if err := json.Unmarshal(b, &d.Policy); err != nil {
		return d, err
	}
	if l := v.Last; l != nil {
		d.Last = &protocol.DiskLast{At: l.At, Released: l.Released, Reason: l.Reason}
		if l.Source.IsValid() {
			d.Last.Source = l.Source.String()
		}
	}
	if v.Policy.Mode == nbde.ModeAttested && v.Revoked == nil && now.Before(v.BindUntil) {
		d.BindUntil = v.BindUntil
	}
	if m := v.Maintenance; m != nil && now.Before(m.Until) {
		d.MaintenanceUntil = m.Until
	}
	if p := v.Approval; p != nil && now.Before(p.Until) {
		d.ApprovedUntil = p.Until
	}
	return d, nil
}

func diskKeys(views []nbde.KeyView) []protocol.DiskKey {
	out := make([]protocol.DiskKey, len(views))
	for i, v := range views {
		k := protocol.DiskKey{Thumbprint: v.Thumbprint, Created: v.Created, Rotated: v.Rotated, Imported: v.Imported}
		for _, u := range v.Uses {
			k.Clients = append(k.Clients, protocol.DiskClient{Client: u.Client, Last: u.Last, Count: u.Count})
		}
		out[i] = k
	}
	return out
}

// answerDisk answers with the disks of one node.
func (a *Authority) answerDisk(w http.ResponseWriter, r *http.Request, node string) error {
	all, err := a.diskList(r.Context())
	if err != nil {
		return err
	}
	for i := range all.Nodes {
		if all.Nodes[i].Node == node {
			return answer(w, all.Nodes[i])
		}
	}
	return diskProblem(nbde.ErrNoNode)
}

func (a *Authority) putDisk(w http.ResponseWriter, r *http.Request, id identity) error {
	node := r.PathValue("node")
	if err := checkNodeName(node); err != nil {
		return refuse(http.StatusBadRequest, "node-name", "this is no node name", err.Error(), "")
	}
	var req protocol.DiskPolicy
	if err := decode(w, r, &req); err != nil {
		return err
	}
	b, err := json.Marshal(req)
	if err != nil {
		return err
	}
	var p nbde.Policy
	if err := strictJSON(b, &p); err != nil {
		return refuse(http.StatusBadRequest, "disks", "this policy of disks cannot be read", err.Error(), "see docs/disks.md")
	}
	if err := a.disks.Bind(r.Context(), node, p, a.act(id, "disk.bind", node, string(b))); err != nil {
		return diskProblem(err)
	}
	if err := a.attestedBefore(r.Context(), node); err != nil {
		return err
	}
	return a.answerDisk(w, r, node)
}

// attestedBefore lets what a node attested before its disks were bound count, while its verdict is in force: what is bound can be tried at once.
func (a *Authority) attestedBefore(ctx context.Context, name string) error {
	n := a.node(name)
	if n == nil {
		return nil // it may enrol later
	}
	if err := n.lock(ctx); err != nil {
		if errors.Is(err, errGone) {
			return nil
		}
		return err
	}
	defer n.unlock()
	if n.boot.Node != "" && a.now().Before(n.expires) {
		a.disks.Attested(ctx, n.boot)
	}
	return nil
}

func (a *Authority) deleteDisk(w http.ResponseWriter, r *http.Request, id identity) error {
	node := r.PathValue("node")
	if err := a.disks.Forget(r.Context(), node, a.act(id, "disk.destroy", clip(node, maxName), "")); err != nil {
		return diskProblem(err)
	}
	a.log.Warn("the keys of the disks of a node were destroyed", "node", node, "operator", id.name)
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (a *Authority) postDisk(w http.ResponseWriter, r *http.Request, id identity) error {
	node, what := r.PathValue("node"), r.PathValue("act")
	var req protocol.DiskAct
	if err := decode(w, r, &req); err != nil {
		return err
	}
	req.Reason = clip(req.Reason, maxNote)
	act := a.act(id, "disk."+clip(what, 20), clip(node, maxName), req.Reason)
	if err := a.diskAct(r.Context(), node, what, req, act); err != nil {
		return diskProblem(err)
	}
	a.log.Info("disks of a node", "act", what, "node", node, "operator", id.name, "reason", req.Reason)
	return a.answerDisk(w, r, node)
}

func (a *Authority) diskAct(ctx context.Context, node, what string, req protocol.DiskAct, act store.Act) error {
	if req.Seconds < 0 || req.Seconds > int64(nbde.MaxWindow/time.Second) {
		return refuse(http.StatusBadRequest, "disks", "that many seconds are not taken", "", "give at most 31 days")
	}
	life := time.Duration(req.Seconds) * time.Second
	switch what {
	case protocol.DiskRevoke:
		return a.disks.Revoke(ctx, node, req.Reason, act)
	case protocol.DiskUnrevoke:
		return a.disks.Unrevoke(ctx, node, act)
	case protocol.DiskRotate:
		return a.disks.Rotate(ctx, node, act)
	case protocol.DiskMaintain:
		if life == 0 {
			return a.disks.Maintain(ctx, node, nil, act)
		}
		return a.disks.Maintain(ctx, node, &nbde.Window{Until: a.now().Add(life), Reason: req.Reason}, act)
	case protocol.DiskApprove:
		p := nbde.Approval{Reason: req.Reason}
		if req.Source != "" {
			from, err := netip.ParseAddr(req.Source)
			if err != nil {
				return refuse(http.StatusBadRequest, "disks", "source is no address", clip(req.Source, 60), "give an IP address")
			}
			p.Source = from.Unmap().WithZone("")
		}
		return a.disks.Approve(ctx, node, life, p, act)
	}
	return refuse(http.StatusNotFound, "not-found", "there is no such act", clip(what, 40), "see "+protocol.PathOpenAPI)
}

func (a *Authority) postDiskKeys(w http.ResponseWriter, r *http.Request, id identity) error {
	use, ok := map[string]nbde.Use{protocol.DiskSigning: nbde.Sign, protocol.DiskShared: nbde.Exchange}[r.PathValue("use")]
	if !ok {
		return refuse(http.StatusNotFound, "not-found", "there are no such keys", clip(r.PathValue("use"), 40), "want signing or shared")
	}
	if err := a.disks.RotateShared(r.Context(), use, a.act(id, "disk.rotate", r.PathValue("use"), "")); err != nil {
		return diskProblem(err)
	}
	return a.getDisks(w, r, id)
}

// because is the reason of a refusal, without the word.
func because(err, refused error) string {
	return strings.TrimPrefix(err.Error(), refused.Error()+": ")
}

// diskProblem is how an error of the disks is told.
func diskProblem(err error) error {
	switch {
	case errors.Is(err, nbde.ErrNoNode):
		return refuse(http.StatusNotFound, "no-disks", "the node has no disks bound here", "", "bind them first: touchstone disk bind NODE")
	case errors.Is(err, nbde.ErrRefused):
		return refuse(http.StatusConflict, "disks", "this cannot be done to the disks of the node", because(err, nbde.ErrRefused), "")
	}
	return err
}
