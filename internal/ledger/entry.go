package ledger

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"
)

// Kind says what an entry is about.
type Kind string

// The kinds.
const (
	Service     Kind = "service"      // AIAS itself: started, restored, ledger begun anew
	Verdict     Kind = "verdict"      // a node's verdict changed
	Act         Kind = "act"          // an administrator did something
	Enrolment   Kind = "enrolment"    // a node enrolled, or was removed
	Tag         Kind = "tag"          // asset tags were set, proven or lost
	AuditHead   Kind = "audit-head"   // up to where the audit events of a node are at AIAS, as its TPM signed
	KeyCreated  Kind = "key-created"  // a disk or image key was made or imported
	KeyReleased Kind = "key-released" // a node was given the use of a key
	KeyRefused  Kind = "key-refused"  // a node was not
	KeyRotated  Kind = "key-rotated"  // a key, or the key-encryption key, was replaced
	KeyRevoked  Kind = "key-revoked"  // a key was revoked, un-revoked or destroyed
)

var kinds = map[Kind]bool{
	Service: true, Verdict: true, Act: true, Enrolment: true, Tag: true, AuditHead: true,
	KeyCreated: true, KeyReleased: true, KeyRefused: true, KeyRotated: true, KeyRevoked: true,
}

// Entry is one thing that happened. Time and Repeated are set by Append when they are not.
type Entry struct {
	Time     time.Time         `json:"time"`
	Kind     Kind              `json:"kind"`
	Node     string            `json:"node,omitempty"`     // whom it concerns
	Actor    string            `json:"actor,omitempty"`    // who did it: "operator:NAME", "node:NAME", "aias"
	Subject  string            `json:"subject,omitempty"`  // what it was done to: key ID, image, token, policy
	Decision string            `json:"decision,omitempty"` // how it went: "trusted", "released", "refused"
	Reason   string            `json:"reason,omitempty"`   // why, in words for a person
	Verdict  string            `json:"verdict,omitempty"`  // of the node at that time
	Detail   map[string]string `json:"detail,omitempty"`
	Ref      string            `json:"ref,omitempty"`      // row of the database that the entry repeats
	Repeated int               `json:"repeated,omitempty"` // how often the same happened since the entry before, this one not counted
}

// Limits of an entry. Longer text is cut, so that whoever chose it (a node, a registry) does not keep the act out of the ledger.
const (
	maxText   = 1024
	maxDetail = 16
	maxEntry  = 60 << 10 // bytes encoded; a tile has two for the size
)

func cut(s string, most int) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	if len(s) <= most {
		return s
	}
	n := most - len("…")
	for !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + "…"
}

// encode gives the entry the form it is hashed in.
func (e Entry) encode() ([]byte, error) {
	if !kinds[e.Kind] {
		return nil, fmt.Errorf("ledger entry of kind %q", e.Kind)
	}
	if e.Time.IsZero() {
		return nil, errors.New("ledger entry without a time")
	}
	if len(e.Detail) > maxDetail {
		return nil, fmt.Errorf("ledger entry with %d details: at most %d", len(e.Detail), maxDetail)
	}
	for most := maxText; ; most /= 4 { // escaping makes text up to six times as long
		if data, err := e.shortened(most); err != nil || len(data) <= maxEntry {
			return data, err
		}
	}
}

// shortened encodes the entry with texts of at most so many bytes.
func (e Entry) shortened(most int) ([]byte, error) {
	e.Time = e.Time.UTC()
	for _, s := range []*string{&e.Node, &e.Actor, &e.Subject, &e.Decision, &e.Reason, &e.Verdict, &e.Ref} {
		*s = cut(*s, most)
	}
	detail := make(map[string]string, len(e.Detail))
	for k, v := range e.Detail {
		detail[cut(k, most)] = cut(v, most)
	}
	e.Detail = detail
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	err := enc.Encode(e)
	return bytes.TrimRight(b.Bytes(), "\n"), err
}

// Decode reads an entry as it stands in the ledger. Fields that a later version added are ignored.
func Decode(data []byte) (Entry, error) {
	var e Entry
	if err := json.Unmarshal(data, &e); err != nil {
		return Entry{}, fmt.Errorf("ledger entry: %w", err)
	}
	return e, nil
}
