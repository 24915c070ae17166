package operator

import (
	"context"
	"net/http"

	"touchstone.dev/touchstone/internal/protocol"
)

// Disks lists the keys of disks.
func (c *Client) Disks(ctx context.Context) (*protocol.DiskList, error) {
	out := &protocol.DiskList{}
	return out, c.do(ctx, http.MethodGet, protocol.PathDisks, nil, out)
}

// BindDisk lets a node bind disks, or changes what their recovery hangs on.
func (c *Client) BindDisk(ctx context.Context, node string, p protocol.DiskPolicy) (*protocol.Disk, error) {
	out := &protocol.Disk{}
	return out, c.do(ctx, http.MethodPut, at(protocol.PathDisk, node), p, out)
}

// DestroyDisk destroys the keys of the disks of a node.
func (c *Client) DestroyDisk(ctx context.Context, node string) error {
	return c.do(ctx, http.MethodDelete, at(protocol.PathDisk, node), nil, nil)
}

// ActOnDisk revokes, un-revokes, rotates, approves or opens a window.
func (c *Client) ActOnDisk(ctx context.Context, node, act string, r protocol.DiskAct) (*protocol.Disk, error) {
	out := &protocol.Disk{}
	return out, c.do(ctx, http.MethodPost, at(at(protocol.PathDiskAct, node), act), r, out)
}

// RotateDiskKeys makes a new key that all nodes share: protocol.DiskSigning or protocol.DiskShared.
func (c *Client) RotateDiskKeys(ctx context.Context, use string) (*protocol.DiskList, error) {
	out := &protocol.DiskList{}
	return out, c.do(ctx, http.MethodPost, at(protocol.PathDiskRotate, use), nil, out)
}

// Escrows lists the recovery passphrases that AIAS keeps.
func (c *Client) Escrows(ctx context.Context) ([]protocol.Escrow, error) {
	var out protocol.EscrowList
	err := c.do(ctx, http.MethodGet, protocol.PathEscrows, nil, &out)
	return out.Escrows, err
}

// Deposit has AIAS keep the recovery passphrase of a volume.
func (c *Client) Deposit(ctx context.Context, node, volume string, passphrase []byte) (*protocol.Escrow, error) {
	out := &protocol.Escrow{}
	return out, c.do(ctx, http.MethodPut, at(at(protocol.PathEscrow, node), volume), protocol.EscrowDeposit{Passphrase: passphrase}, out)
}

// RemoveEscrow has AIAS forget a passphrase.
func (c *Client) RemoveEscrow(ctx context.Context, node, volume string) error {
	return c.do(ctx, http.MethodDelete, at(at(protocol.PathEscrow, node), volume), nil, nil)
}

// Escrow takes a step towards a passphrase: protocol.EscrowAsk with a reason, EscrowConfirm, EscrowTake or EscrowCancel.
func (c *Client) Escrow(ctx context.Context, node, volume, step, reason string) (*protocol.Escrow, error) {
	out := &protocol.Escrow{}
	return out, c.do(ctx, http.MethodPost, at(at(at(protocol.PathEscrowStep, node), volume), step), protocol.EscrowStep{Reason: reason}, out)
}

// Volumes lists what the nodes say of their volumes.
func (c *Client) Volumes(ctx context.Context) (*protocol.VolumeList, error) {
	out := &protocol.VolumeList{}
	return out, c.do(ctx, http.MethodGet, protocol.PathVolumes, nil, out)
}
