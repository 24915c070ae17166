package operator

import (
	"context"
	"net/http"

	"touchstone.dev/touchstone/internal/protocol"
)

// NewImageKey has AIAS make the key of a new encrypted image, or keep one of another broker.
func (c *Client) NewImageKey(ctx context.Context, req protocol.ImageKeyRequest) (*protocol.NewImageKey, error) {
	out := &protocol.NewImageKey{}
	return out, c.do(ctx, http.MethodPost, protocol.PathImageKeys, req, out)
}

// ImageKeys lists the keys of encrypted images, newest first.
func (c *Client) ImageKeys(ctx context.Context) ([]protocol.ImageKey, error) {
	var out protocol.ImageKeyList
	err := c.do(ctx, http.MethodGet, protocol.PathImageKeys, nil, &out)
	return out.Keys, err
}

// ChangeImageKey changes who gets a key, or revokes or restores it.
func (c *Client) ChangeImageKey(ctx context.Context, id string, change protocol.ImageKeyChange) (*protocol.ImageKey, error) {
	out := &protocol.ImageKey{}
	return out, c.do(ctx, http.MethodPut, at(protocol.PathImageKey, id), change, out)
}

// Classes lists the trust classes that AIAS knows.
func (c *Client) Classes(ctx context.Context) ([]protocol.Class, error) {
	var out protocol.ClassList
	err := c.do(ctx, http.MethodGet, protocol.PathClasses, nil, &out)
	return out.Classes, err
}

// SetClass says what a trust class demands.
func (c *Client) SetClass(ctx context.Context, class protocol.Class) (*protocol.Class, error) {
	out := &protocol.Class{}
	return out, c.do(ctx, http.MethodPut, at(protocol.PathClass, class.Name), class, out)
}

// DeleteClass removes a trust class. Keys keep what it said.
func (c *Client) DeleteClass(ctx context.Context, name string) error {
	return c.do(ctx, http.MethodDelete, at(protocol.PathClass, name), nil, nil)
}
