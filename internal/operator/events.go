package operator

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	"touchstone.dev/touchstone/internal/protocol"
)

const maxEvent = 1 << 20 // bytes of one line of the stream

// Events calls fn for each change of a verdict as it happens, in order, until ctx ends, fn returns an error or the stream breaks. With
// after >= 0 the changes with a greater ID come first; after < 0 starts with what happens from now on. It returns the ID of the last
// change that fn took, so that a caller can go on from there, and why it ended (io.EOF when AIAS closed the stream). ready, when not nil, is called
// once, when AIAS has accepted the subscription: no later change is missed.
func (c *Client) Events(ctx context.Context, after int64, ready func(), fn func(protocol.Change) error) (int64, error) {
	header := http.Header{}
	if after >= 0 {
		header.Set("Last-Event-ID", strconv.FormatInt(after, 10))
	}
	resp, err := c.stream(ctx, protocol.PathEvents, header)
	if err != nil {
		return after, err
	}
	defer func() { _ = resp.Body.Close() }()
	if ready != nil {
		ready()
	}
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(make([]byte, 0, 4<<10), maxEvent)
	for lines.Scan() {
		data, ok := strings.CutPrefix(lines.Text(), "data: ")
		if !ok {
			continue
		}
		var change protocol.Change
		if err := json.Unmarshal([]byte(data), &change); err != nil {
			return after, fmt.Errorf("read an event: %w", err)
		}
		if err := fn(change); err != nil {
			return after, err
		}
		after = change.ID
	}
	if err := ctx.Err(); err != nil {
		return after, err // a stream that is cut by the context may look like one that ended
	}
	if err := lines.Err(); err != nil {
		return after, err
	}
	return after, io.EOF
}
