package operator

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"touchstone.dev/touchstone/internal/protocol"
)

// ErrSilent ends Results when AIAS has not said anything for a while, not even that it is there.
var ErrSilent = errors.New("AIAS is silent: its stream of results says nothing any more")

// silence is how long a stream of results may say nothing: AIAS says every 5 seconds that it is there.
const silence = 16 * time.Second

// Results streams the signed results of all nodes, until ctx ends, a callback returns an error, or the stream breaks. It calls fn for each enrolled
// node, then synced once: nodes that fn was not called for until then are not enrolled. Then it calls fn whenever a node gets a new result,
// falls, or is removed; of results that come faster than fn takes them, the newest of each node. synced may be nil. Both are called one after the
// other, never at the same time.
//
// It returns why it ended: the error of ctx or of a callback, io.EOF when AIAS closed the stream, ErrSilent, or what broke it. Whoever goes on calls it
// again, after a pause. Results are not verified: that is the caller's part, by package result.
func (c *Client) Results(ctx context.Context, fn func(protocol.NodeResult) error, synced func() error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watch := time.AfterFunc(c.patience(), func() { cancel(ErrSilent) })
	defer watch.Stop()
	resp, err := c.stream(ctx, protocol.PathResults, nil)
	if err != nil {
		return cause(ctx, err)
	}
	defer func() { _ = resp.Body.Close() }()
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(make([]byte, 0, 4<<10), maxEvent)
	kind := ""
	for lines.Scan() {
		watch.Stop() // the callbacks take the time they need
		if err := takeResult(lines.Text(), &kind, fn, synced); err != nil {
			return err
		}
		if ctx.Err() == nil {
			watch.Reset(c.patience())
		}
	}
	if err := lines.Err(); err != nil {
		return cause(ctx, err)
	}
	return cause(ctx, io.EOF)
}

// patience is how long a stream may say nothing.
func (c *Client) patience() time.Duration { return cmp.Or(c.silence, silence) }

// takeResult takes one line of the stream.
func takeResult(line string, kind *string, fn func(protocol.NodeResult) error, synced func() error) error {
	if k, ok := strings.CutPrefix(line, "event: "); ok {
		*kind = k
		return nil
	}
	data, ok := strings.CutPrefix(line, "data: ")
	if !ok {
		return nil
	}
	switch *kind {
	case "result":
		var r protocol.NodeResult
		if err := json.Unmarshal([]byte(data), &r); err != nil {
			return fmt.Errorf("read a result: %w", err)
		}
		return fn(r)
	case "synced":
		if synced != nil {
			return synced()
		}
	}
	return nil
}

// cause says why a stream ended: when ctx did, that is why, whatever broke by it.
func cause(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// stream asks for server-sent events.
func (c *Client) stream(ctx context.Context, path string, header http.Header) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base+path, nil)
	if err != nil {
		return nil, err
	}
	if header != nil {
		req.Header = header
	}
	req.Header.Set("Accept", "text/event-stream")
	resp, err := c.send(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		defer func() { _ = resp.Body.Close() }()
		data, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
		return nil, problem(resp, data)
	}
	return resp, nil
}
