package operator

import (
	"context"
	"net/http"

	"touchstone.dev/touchstone/internal/protocol"
)

// Images lists the newest scans of images.
func (c *Client) Images(ctx context.Context) ([]protocol.ImageResult, error) {
	var out protocol.ImageResultList
	err := c.do(ctx, http.MethodGet, protocol.PathImages, nil, &out)
	return out.Images, err
}

// Image returns the newest scans of one image, by the digest of its manifest or configuration: one for each profile.
func (c *Client) Image(ctx context.Context, digest string) ([]protocol.ImageResult, error) {
	var out protocol.ImageResultList
	err := c.do(ctx, http.MethodGet, at(protocol.PathImage, digest), nil, &out)
	return out.Images, err
}

// SubmitImage sends what a scan of an image found.
func (c *Client) SubmitImage(ctx context.Context, digest string, r *protocol.ImageReport) (*protocol.ImageResult, error) {
	out := &protocol.ImageResult{}
	return out, c.do(ctx, http.MethodPut, at(protocol.PathImage, digest), r, out)
}
