package operator

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"touchstone.dev/touchstone/internal/protocol"
)

// Evidence that AIAS keeps of a node.
const (
	LastGood = "last-good" // the last Evidence that was trusted
	FirstBad = "first-bad" // the first Evidence of the last fall
	Last     = "last"      // the last Evidence that was judged
)

// at fills the first path parameter of a path pattern.
func at(pattern, value string) string {
	start, end := strings.IndexByte(pattern, '{'), strings.IndexByte(pattern, '}')
	return pattern[:start] + url.PathEscape(value) + pattern[end+1:]
}

// Nodes lists all nodes, sorted by name.
func (c *Client) Nodes(ctx context.Context) ([]protocol.Node, error) {
	var out protocol.NodeList
	err := c.do(ctx, http.MethodGet, protocol.PathNodes, nil, &out)
	return out.Nodes, err
}

// Node returns one node.
func (c *Client) Node(ctx context.Context, node string) (*protocol.Node, error) {
	out := &protocol.Node{}
	return out, c.do(ctx, http.MethodGet, at(protocol.PathNode, node), nil, out)
}

// Why returns the whole verdict on a node; Report.Verdict decodes into an appraisal.Verdict.
func (c *Client) Why(ctx context.Context, node string) (*protocol.Report, error) {
	out := &protocol.Report{}
	return out, c.do(ctx, http.MethodGet, at(protocol.PathVerdict, node), nil, out)
}

// Result returns the last signed Attestation Result of a node.
func (c *Client) Result(ctx context.Context, node string) (*protocol.SignedResult, error) {
	out := &protocol.SignedResult{}
	return out, c.do(ctx, http.MethodGet, at(protocol.PathResult, node), nil, out)
}

// History returns the changes of the verdict on a node, or on all nodes when node is empty, newest first. A limit of 0 means 100;
// before continues below a Change.ID, 0 starts at the newest.
func (c *Client) History(ctx context.Context, node string, limit int, before int64) ([]protocol.Change, error) {
	path := protocol.PathHistory
	if node != "" {
		path = at(protocol.PathNodeLog, node)
	}
	q := url.Values{}
	if limit > 0 {
		q.Set("limit", strconv.Itoa(limit))
	}
	if before > 0 {
		q.Set("before", strconv.FormatInt(before, 10))
	}
	if len(q) > 0 {
		path += "?" + q.Encode()
	}
	var out protocol.History
	err := c.do(ctx, http.MethodGet, path, nil, &out)
	return out.Changes, err
}

// Evidence returns a whole Evidence document (CBOR) that AIAS keeps of a node: LastGood, FirstBad or Last.
func (c *Client) Evidence(ctx context.Context, node, which string) ([]byte, error) {
	var out []byte
	return out, c.do(ctx, http.MethodGet, at(at(protocol.PathEvidence, node), which), nil, &out)
}

// Delete removes a node: its certificate no longer works and its name and TPM are free again.
func (c *Client) Delete(ctx context.Context, node string) error {
	return c.do(ctx, http.MethodDelete, at(protocol.PathNode, node), nil, nil)
}

// Rebind lets another TPM take the name of a node for a while.
func (c *Client) Rebind(ctx context.Context, node string, r protocol.RebindRequest) error {
	return c.do(ctx, http.MethodPost, at(protocol.PathRebind, node), r, nil)
}

// Tokens lists the join tokens.
func (c *Client) Tokens(ctx context.Context) ([]protocol.Token, error) {
	var out protocol.TokenList
	err := c.do(ctx, http.MethodGet, protocol.PathTokens, nil, &out)
	return out.Tokens, err
}

// CreateToken makes a join token; its secret is in the answer and nowhere else.
func (c *Client) CreateToken(ctx context.Context, r protocol.TokenRequest) (*protocol.NewToken, error) {
	out := &protocol.NewToken{}
	return out, c.do(ctx, http.MethodPost, protocol.PathTokens, r, out)
}

// RevokeToken makes a join token useless.
func (c *Client) RevokeToken(ctx context.Context, id string) error {
	return c.do(ctx, http.MethodDelete, at(protocol.PathToken, id), nil, nil)
}

// Policy returns the policy in force, YAML.
func (c *Client) Policy(ctx context.Context) ([]byte, error) {
	var out []byte
	err := c.do(ctx, http.MethodGet, protocol.PathPolicy, nil, &out)
	return out, err
}

// SetPolicy validates a policy, puts it in force and has all nodes judged again from kept Evidence.
func (c *Client) SetPolicy(ctx context.Context, yaml []byte) (*protocol.Snapshot, error) {
	out := &protocol.Snapshot{}
	return out, c.do(ctx, http.MethodPut, protocol.PathPolicy, yaml, out)
}

// References lists the Reference Values in force by their sources.
func (c *Client) References(ctx context.Context) (*protocol.ReferenceList, error) {
	out := &protocol.ReferenceList{}
	return out, c.do(ctx, http.MethodGet, protocol.PathReferences, nil, out)
}

// Reload reads policy and references again.
func (c *Client) Reload(ctx context.Context) (*protocol.Snapshot, error) {
	out := &protocol.Snapshot{}
	return out, c.do(ctx, http.MethodPost, protocol.PathReload, nil, out)
}

// EKs lists the allow-list of endorsement keys.
func (c *Client) EKs(ctx context.Context) ([]protocol.EK, error) {
	var out protocol.EKList
	err := c.do(ctx, http.MethodGet, protocol.PathEKs, nil, &out)
	return out.EKs, err
}

// AllowEK puts an endorsement key on the allow-list.
func (c *Client) AllowEK(ctx context.Context, ek protocol.EK) error {
	return c.do(ctx, http.MethodPost, protocol.PathEKs, ek, nil)
}

// DisallowEK takes an endorsement key off the allow-list; nodes that enrolled with it stay.
func (c *Client) DisallowEK(ctx context.Context, sha256 string) error {
	return c.do(ctx, http.MethodDelete, at(protocol.PathEK, sha256), nil, nil)
}

// Acts lists what operators did, newest first. A limit of 0 means 100.
func (c *Client) Acts(ctx context.Context, limit int) ([]protocol.Act, error) {
	path := protocol.PathActs
	if limit > 0 {
		path += "?limit=" + strconv.Itoa(limit)
	}
	var out protocol.ActList
	err := c.do(ctx, http.MethodGet, path, nil, &out)
	return out.Acts, err
}

// Keys lists the key-encryption keys of AIAS, oldest first.
func (c *Client) Keys(ctx context.Context) (*protocol.KeyList, error) {
	out := &protocol.KeyList{}
	return out, c.do(ctx, http.MethodGet, protocol.PathKeys, nil, out)
}

// RotateKeys makes a new key-encryption key and has all secrets sealed anew.
func (c *Client) RotateKeys(ctx context.Context) (*protocol.KeyRotation, error) {
	out := &protocol.KeyRotation{}
	return out, c.do(ctx, http.MethodPost, protocol.PathKeysRotate, nil, out)
}

// JWKS returns the public keys that verify Attestation Results, as JSON (RFC 7517).
func (c *Client) JWKS(ctx context.Context) ([]byte, error) {
	var out []byte
	err := c.do(ctx, http.MethodGet, protocol.PathJWKS, nil, &out)
	return out, err
}

// Ready returns nil when AIAS can judge.
func (c *Client) Ready(ctx context.Context) error {
	return c.do(ctx, http.MethodGet, protocol.PathReady, nil, nil)
}

// Tags returns the asset tags of a node.
func (c *Client) Tags(ctx context.Context, node string) (*protocol.TagState, error) {
	out := &protocol.TagState{}
	return out, c.do(ctx, http.MethodGet, at(protocol.PathTags, node), nil, out)
}

// SetTags gives a node other asset tags. They count when its TPM has certified that it holds them.
func (c *Client) SetTags(ctx context.Context, node string, tags map[string]string) (*protocol.TagState, error) {
	out := &protocol.TagState{}
	return out, c.do(ctx, http.MethodPut, at(protocol.PathTags, node), protocol.TagRequest{Tags: tags}, out)
}

// Detections returns the misuse that was found in the audit events of a node, or of all when node is "".
func (c *Client) Detections(ctx context.Context, node string) (*protocol.DetectionList, error) {
	out := new(protocol.DetectionList)
	path := protocol.PathDetections
	if node != "" {
		path = at(protocol.PathNodeDetections, node)
	}
	return out, c.do(ctx, http.MethodGet, path, nil, out)
}

// ClearDetections ends detections of a node: one by its ID, those of a rule, or "all". It returns them.
func (c *Client) ClearDetections(ctx context.Context, node, which, reason string) (*protocol.DetectionList, error) {
	out := new(protocol.DetectionList)
	path := at(at(protocol.PathDetectionsClear, node), which)
	return out, c.do(ctx, http.MethodPost, path, protocol.ClearRequest{Reason: reason}, out)
}

// ClearTags takes the asset tags of a node away.
func (c *Client) ClearTags(ctx context.Context, node string) (*protocol.TagState, error) {
	out := &protocol.TagState{}
	return out, c.do(ctx, http.MethodDelete, at(protocol.PathTags, node), nil, out)
}

// Compliance returns the newest compliance scan of a node, judged by the policy in force.
func (c *Client) Compliance(ctx context.Context, node string) (*protocol.NodeCompliance, error) {
	out := &protocol.NodeCompliance{}
	return out, c.do(ctx, http.MethodGet, at(protocol.PathNodeCompliance, node), nil, out)
}

// AskScan asks a node for a compliance scan, and for its documents (ARF, HTML) too if they are wanted; it learns so with its next challenge.
func (c *Client) AskScan(ctx context.Context, node string, documents bool) (*protocol.ScanRequest, error) {
	path := at(protocol.PathNodeScan, node)
	if documents {
		path += "?documents=1"
	}
	out := &protocol.ScanRequest{}
	return out, c.do(ctx, http.MethodPost, path, nil, out)
}

// ScanDocument returns a document of the newest scan that was asked for with documents, compressed (gzip), as the node sent it.
func (c *Client) ScanDocument(ctx context.Context, node, kind string) ([]byte, error) {
	var out []byte
	return out, c.do(ctx, http.MethodGet, at(at(protocol.PathNodeScanDocument, node), kind), nil, &out)
}
