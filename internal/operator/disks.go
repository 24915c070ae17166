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
