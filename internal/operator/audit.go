package operator

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"touchstone.dev/touchstone/internal/audit/chain"
	"touchstone.dev/touchstone/internal/protocol"
)

// AuditQuery says which audit events to read; zero fields do not limit.
type AuditQuery struct {
	Since, Until time.Time
	Last         int  // batches before the end
	Follow       bool // go on with what comes
}

// Audit returns where the audit chain of a node stands.
func (c *Client) Audit(ctx context.Context, node string) (*protocol.AuditReport, error) {
	out := new(protocol.AuditReport)
	return out, c.do(ctx, http.MethodGet, at(protocol.PathNodeAudit, node), nil, out)
}

// AcceptAudit takes responsibility for what is odd about the audit chain of a node.
func (c *Client) AcceptAudit(ctx context.Context, node string) (*protocol.AuditReport, error) {
	out := new(protocol.AuditReport)
	return out, c.do(ctx, http.MethodPost, at(protocol.PathAuditAccept, node), struct{}{}, out)
}

// AuditEvents calls fn with the batches of a node's audit chain, oldest first; received is when AIAS took a batch in. Without Follow it returns
// nil at the end.
func (c *Client) AuditEvents(ctx context.Context, node string, q AuditQuery, fn func(received time.Time, b *chain.Batch) error) error {
	v := url.Values{}
	for name, t := range map[string]time.Time{"since": q.Since, "until": q.Until} {
		if !t.IsZero() {
			v.Set(name, t.UTC().Format(time.RFC3339Nano))
		}
	}
	if q.Last > 0 {
		v.Set("last", strconv.Itoa(q.Last))
	}
	if q.Follow {
		v.Set("follow", "1")
	}
	resp, err := c.stream(ctx, at(protocol.PathAuditEvents, node)+"?"+v.Encode(), http.Header{})
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	for {
		var head [12]byte
		if _, err := io.ReadFull(resp.Body, head[:]); errors.Is(err, io.EOF) {
			return ctx.Err()
		} else if err != nil {
			return fmt.Errorf("read audit events: %w", err)
		}
		size := binary.BigEndian.Uint32(head[:])
		if size > chain.MaxBatch {
			return fmt.Errorf("read audit events: a batch of %d bytes, at most %d are possible", size, chain.MaxBatch)
		}
		body := make([]byte, size)
		if _, err := io.ReadFull(resp.Body, body); err != nil {
			return fmt.Errorf("read audit events: %w", err)
		}
		b, err := chain.Unpack(body)
		if err != nil {
			return err
		}
		if err := fn(time.Unix(0, int64(binary.BigEndian.Uint64(head[4:]))).UTC(), b); err != nil { //nolint:gosec // a time
			return err
		}
	}
}
