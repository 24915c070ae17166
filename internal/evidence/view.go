package evidence

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"time"
	"unicode"

	"touchstone.dev/touchstone/internal/assettag"
	"touchstone.dev/touchstone/internal/eventlog"
	"touchstone.dev/touchstone/internal/ima"
	"touchstone.dev/touchstone/internal/tpm"
)

// View is a document as people read it. Nothing in it is verified: it shows what was sent.
type View struct {
	Version  uint        `json:"version"`
	Node     string      `json:"node,omitempty"`
	Nonce    string      `json:"nonce,omitempty"` // hexadecimal, as all bytes here
	AK       KeyView     `json:"ak"`
	Quotes   []QuoteView `json:"quotes"`
	EventLog LogView     `json:"eventLog"`
	IMA      IMAView     `json:"ima"`
	EKCerts  []BlobView  `json:"ekCerts,omitempty"`
	Facts    []FactView  `json:"facts,omitempty"`
	// FactsUnchanged is the digest of the earlier facts that this document refers to.
	FactsUnchanged string         `json:"factsUnchanged,omitempty"`
	AssetTag       *TagView       `json:"assetTag,omitempty"`
	Statement      *StatementView `json:"statement,omitempty"`
}

// TagView is the certified NV index that holds the asset tag.
type TagView struct {
	Index      string `json:"index,omitempty"`
	Attributes string `json:"attributes,omitempty"`
	Nonce      string `json:"nonce,omitempty"`
	Serial     uint64 `json:"serial,omitempty"`
	EKSHA256   string `json:"ekSHA256,omitempty"` // of the TPM that it was issued for
	Issued     string `json:"issued,omitempty"`
	Problem    string `json:"problem,omitempty"`
}

// BlobView is the size in bytes and the SHA-256 of raw bytes.
type BlobView struct {
	Size   int    `json:"size"`
	SHA256 string `json:"sha256"`
}

// KeyView is the attestation key.
type KeyView struct {
	BlobView
	Type    string `json:"type,omitempty"` // rsa or ecc
	Name    string `json:"name,omitempty"` // TPM Name, without one for a PEM key
	Problem string `json:"problem,omitempty"`
}

// QuoteView is one quote.
type QuoteView struct {
	Signature       string            `json:"signature"` // scheme and hash: "ecdsa sha256"
	Nonce           string            `json:"nonce,omitempty"`
	Clock           uint64            `json:"clock,omitempty"` // milliseconds
	ResetCount      uint32            `json:"resetCount"`
	RestartCount    uint32            `json:"restartCount"`
	FirmwareVersion string            `json:"firmwareVersion,omitempty"`
	PCRDigest       string            `json:"pcrDigest,omitempty"`
	Selected        map[string]string `json:"selected,omitempty"` // PCR indices by bank
	PCRs            []BankView        `json:"pcrs,omitempty"`
	Problem         string            `json:"problem,omitempty"`
}

// BankView holds the values of one bank that came with a quote.
type BankView struct {
	Bank   string         `json:"bank"`
	Values map[int]string `json:"values"`
}

// LogView is the firmware log.
type LogView struct {
	BlobView
	Unchanged string      `json:"unchanged,omitempty"` // digest of the earlier log that this document refers to
	Events    []EventView `json:"events,omitempty"`
	Problem   string      `json:"problem,omitempty"`
}

// EventView is one event of the firmware log.
type EventView struct {
	Index       int               `json:"index"`
	PCR         int               `json:"pcr"` // -1: none
	Type        string            `json:"type"`
	Description string            `json:"description"`
	Digests     map[string]string `json:"digests,omitempty"`
}

// IMAView is the IMA list, or its new part.
type IMAView struct {
	BlobView
	Offset  uint64         `json:"offset,omitempty"`
	Entries []IMAEntryView `json:"entries,omitempty"`
	Problem string         `json:"problem,omitempty"`
}

// IMAEntryView is one entry of the IMA list. Its index counts from the first entry in this document.
type IMAEntryView struct {
	Index     uint64 `json:"index"`
	Template  string `json:"template"`
	Digest    string `json:"digest,omitempty"` // "sha256:hex"
	Path      string `json:"path"`
	Signed    bool   `json:"signed,omitempty"`
	Violation bool   `json:"violation,omitempty"`
	Problem   string `json:"problem,omitempty"`
}

// FactView is one fact; Text is its content when that is short text.
type FactView struct {
	Name string `json:"name"`
	BlobView
	Text string `json:"text,omitempty"`
}

// View reads the document for people. What cannot be read is told in the Problem beside it.
func (d *Document) View() View {
	v := View{
		Version: d.Version, Node: d.Node, Nonce: hex.EncodeToString(d.Nonce), AK: viewKey(d.AK),
		EventLog: viewLog(d), IMA: viewIMA(d), FactsUnchanged: hex.EncodeToString(d.FactsDigest),
	}
	for i := range d.Quotes {
		v.Quotes = append(v.Quotes, viewQuote(&d.Quotes[i]))
	}
	for _, c := range d.EKCerts {
		v.EKCerts = append(v.EKCerts, viewBlob(c))
	}
	for _, name := range slices.Sorted(maps.Keys(d.Facts)) {
		v.Facts = append(v.Facts, FactView{Name: name, BlobView: viewBlob(d.Facts[name]), Text: shortText(d.Facts[name])})
	}
	if d.AssetTag != nil {
		v.AssetTag = viewTag(d.AssetTag)
	}
	if len(d.Statement) > 0 {
		v.Statement = viewStatement(d.Statement)
	}
	return v
}

func viewTag(c *NVCertificate) *TagView {
	v := &TagView{}
	p, err := tpm.ParseNVPublic(c.Public)
	if err != nil {
		v.Problem = err.Error()
		return v
	}
	v.Index, v.Attributes = fmt.Sprintf("%#08x", p.Index), fmt.Sprintf("%#08x", p.Attributes)
	m, err := tpm.ParseNVCertify(c.Message)
	if err != nil {
		v.Problem = err.Error()
		return v
	}
	v.Nonce = hex.EncodeToString(m.ExtraData)
	r, err := assettag.Parse(m.Contents)
	if err != nil {
		v.Problem = err.Error()
		return v
	}
	v.Serial, v.EKSHA256, v.Issued = r.Serial, hex.EncodeToString(r.EK[:]), r.Issued.Format(time.RFC3339)
	return v
}

func viewBlob(b []byte) BlobView {
	if len(b) == 0 {
		return BlobView{}
	}
	sum := sha256.Sum256(b)
	return BlobView{Size: len(b), SHA256: hex.EncodeToString(sum[:])}
}

func viewKey(b []byte) KeyView {
	v := KeyView{BlobView: viewBlob(b)}
	if len(b) == 0 {
		return v
	}
	p, err := tpm.ParsePublic(b)
	if err != nil {
		v.Problem = err.Error()
		return v
	}
	v.Type, v.Name = p.Type.String(), hex.EncodeToString(p.Name())
	return v
}

func viewQuote(q *Quote) QuoteView {
	var v QuoteView
	if s, err := tpm.ParseSignature(q.Signature); err == nil {
		v.Signature = s.Alg.String() + " " + s.Hash.String()
	} else {
		v.Problem = err.Error()
	}
	for _, b := range q.PCRs {
		bank := BankView{Bank: b.Alg.String(), Values: map[int]string{}}
		for i, value := range b.Values {
			bank.Values[i] = hex.EncodeToString(value)
		}
		v.PCRs = append(v.PCRs, bank)
	}
	m, err := tpm.ParseQuote(q.Message)
	if err != nil {
		v.Problem = err.Error()
		return v
	}
	v.Nonce, v.PCRDigest = hex.EncodeToString(m.ExtraData), hex.EncodeToString(m.PCRDigest)
	v.Clock, v.ResetCount, v.RestartCount = m.Clock, m.ResetCount, m.RestartCount
	v.FirmwareVersion = fmt.Sprintf("%016x", m.FirmwareVersion)
	v.Selected = map[string]string{}
	for _, s := range m.Selections {
		v.Selected[s.Alg.String()] = s.PCRs.String()
	}
	return v
}

func viewLog(d *Document) LogView {
	v := LogView{BlobView: viewBlob(d.EventLog), Unchanged: hex.EncodeToString(d.EventLogDigest)}
	if len(d.EventLog) == 0 {
		return v
	}
	log, err := eventlog.Parse(d.EventLog)
	if err != nil {
		v.Problem = err.Error()
		return v
	}
	for i := range log.Events {
		e := &log.Events[i]
		ev := EventView{Index: e.Index, PCR: e.PCR, Type: e.Type.String(), Description: eventlog.Describe(e), Digests: map[string]string{}}
		for _, s := range e.Digests {
			ev.Digests[s.Alg.String()] = hex.EncodeToString(s.Sum)
		}
		v.Events = append(v.Events, ev)
	}
	return v
}

func viewIMA(d *Document) IMAView {
	v := IMAView{BlobView: viewBlob(d.IMA), Offset: d.IMAOffset}
	err := ima.Parse(d.IMA, func(e *ima.Entry) error {
		ev := IMAEntryView{Index: e.Index, Template: e.Template, Path: e.Path, Signed: len(e.Signature) > 0, Violation: e.Violation, Problem: e.Problem}
		if e.Alg != 0 {
			ev.Digest = e.Alg.String() + ":" + hex.EncodeToString(e.Digest)
		}
		v.Entries = append(v.Entries, ev)
		return nil
	})
	if err != nil {
		v.Problem = err.Error()
	}
	return v
}

// shortText returns b when it is one short piece of printable text.
func shortText(b []byte) string {
	if len(b) > 512 {
		return ""
	}
	for _, r := range string(b) {
		if !unicode.IsPrint(r) && r != '\n' && r != '\t' || r == unicode.ReplacementChar {
			return ""
		}
	}
	return string(b)
}
