package authority

import (
	"context"
	"errors"
	"net/http"

	"touchstone.dev/touchstone/internal/escrow"
	"touchstone.dev/touchstone/internal/ledger"
	"touchstone.dev/touchstone/internal/protocol"
)

// noteEscrow puts into the ledger that an operator is given a passphrase; without that nobody is.
func (a *Authority) noteEscrow(ctx context.Context, s escrow.State) error {
	return a.record(ctx, ledger.Entry{
		Kind: ledger.KeyReleased, Node: s.Node, Actor: "operator:" + s.TakenBy, Subject: "disk-passphrase:" + s.Volume, Decision: "released", Reason: "recovery passphrase from escrow",
	})
}

func (a *Authority) getEscrows(w http.ResponseWriter, r *http.Request, _ identity) error {
	all, err := a.escrow.List(r.Context())
	if err != nil {
		return err
	}
	out := protocol.EscrowList{Escrows: make([]protocol.Escrow, len(all))}
	for i := range all {
		out.Escrows[i] = escrowView(&all[i])
	}
	return answer(w, out)
}

func escrowView(s *escrow.State) protocol.Escrow {
	v := protocol.Escrow{Node: s.Node, Volume: s.Volume, Deposited: s.Deposited, By: s.By, Taken: s.Taken, TakenBy: s.TakenBy}
	if r := s.Request; r != nil {
		v.AskedBy, v.Reason, v.Until, v.ConfirmedBy = r.By, r.Reason, r.Until, r.Confirmed
	}
	return v
}

func (a *Authority) putEscrow(w http.ResponseWriter, r *http.Request, id identity) error {
	node, volume := r.PathValue("node"), r.PathValue("volume")
	if err := checkNodeName(node); err != nil {
		return refuse(http.StatusBadRequest, "node-name", "this is no node name", err.Error(), "")
	}
	var req protocol.EscrowDeposit
	if err := decode(w, r, &req); err != nil {
		return err
	}
	act := a.act(id, "escrow.deposit", node, clip(volume, 64))
	if err := a.escrow.Deposit(r.Context(), node, volume, req.Passphrase, act); err != nil {
		return escrowProblem(err)
	}
	return answer(w, protocol.Escrow{Node: node, Volume: volume, Deposited: act.At, By: id.name})
}

func (a *Authority) deleteEscrow(w http.ResponseWriter, r *http.Request, id identity) error {
	node, volume := r.PathValue("node"), r.PathValue("volume")
	if err := a.escrow.Remove(r.Context(), node, volume, a.act(id, "escrow.remove", clip(node, maxName), clip(volume, 64))); err != nil {
		return escrowProblem(err)
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (a *Authority) postEscrow(w http.ResponseWriter, r *http.Request, id identity) error {
	node, volume, step := r.PathValue("node"), r.PathValue("volume"), r.PathValue("step")
	var req protocol.EscrowStep
	if err := decode(w, r, &req); err != nil {
		return err
	}
	act := a.act(id, "escrow."+clip(step, 20), clip(node, maxName), clip(volume, 64)+" "+clip(req.Reason, maxNote))
	var s *escrow.State
	var passphrase []byte
	var err error
	switch step {
	case protocol.EscrowAsk:
		s, err = a.escrow.Ask(r.Context(), node, volume, req.Reason, act)
	case protocol.EscrowConfirm:
		s, err = a.escrow.Confirm(r.Context(), node, volume, act)
	case protocol.EscrowCancel:
		s, err = a.escrow.Cancel(r.Context(), node, volume, act)
	case protocol.EscrowTake:
		passphrase, s, err = a.escrow.Take(r.Context(), node, volume, act)
	default:
		return refuse(http.StatusNotFound, "not-found", "there is no such step", clip(step, 40), "want ask, confirm, take or cancel")
	}
	if err != nil {
		a.log.Warn("passphrase of a disk", "step", clip(step, 20), "node", clip(node, maxName), "volume", clip(volume, 64), "operator", id.name, "refused", err)
		return escrowProblem(err)
	}
	a.log.Warn("passphrase of a disk", "step", step, "node", node, "volume", volume, "operator", id.name)
	v := escrowView(s)
	v.Passphrase = passphrase
	w.Header().Set("Cache-Control", "no-store")
	return answer(w, v)
}

// escrowProblem is how an error of the escrow is told.
func escrowProblem(err error) error {
	switch {
	case errors.Is(err, escrow.ErrNone):
		return refuse(http.StatusNotFound, "no-escrow", "no passphrase of this volume is kept here", "", "see touchstone disk escrow list")
	case errors.Is(err, escrow.ErrRefused):
		return refuse(http.StatusConflict, "escrow", "the passphrase is not given out so", because(err, escrow.ErrRefused), "see docs/disks.md")
	}
	return err
}
