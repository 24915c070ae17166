package evidence

import (
	"crypto/sha256"
	"fmt"
	"unicode"

	"touchstone.dev/touchstone/internal/tpm"
)

// maxOffset is beyond the IMA list of any boot, in bytes.
const maxOffset = 1 << 40

// checks collects the first limit that a document does not keep.
type checks struct{ err error }

func (c *checks) fail(format string, args ...any) {
	if c.err == nil {
		c.err = fmt.Errorf("%w: %s", ErrLimit, fmt.Sprintf(format, args...))
	}
}

// most refuses more than limit bytes in a field.
func (c *checks) most(field string, n, limit int) {
	if n > limit {
		c.fail("%s has %d bytes, at most %d", field, n, limit)
	}
}

// between refuses an empty field too.
func (c *checks) between(field string, n, limit int) {
	if n == 0 {
		c.fail("%s is empty", field)
	}
	c.most(field, n, limit)
}

// check compares the document with the limits of this package.
func (d *Document) check() error {
	var c checks
	if d.Version != Version {
		c.fail("version %d: this program reads version %d", d.Version, Version)
	}
	c.most("node", len(d.Node), MaxName)
	c.printable("node", d.Node)
	c.most("nonce", len(d.Nonce), MaxStructure)
	c.most("ak", len(d.AK), MaxStructure)
	c.most("event log", len(d.EventLog), MaxEventLog)
	if n := len(d.EventLogDigest); n != 0 && n != sha256.Size {
		c.fail("event log digest has %d bytes, want %d", n, sha256.Size)
	}
	if len(d.EventLog) > 0 && len(d.EventLogDigest) > 0 {
		c.fail("event log and its digest are both given: give one")
	}
	c.most("ima", len(d.IMA), MaxIMA)
	if d.IMAOffset > maxOffset {
		c.fail("ima offset is %d", d.IMAOffset)
	}
	if len(d.Quotes) == 0 || len(d.Quotes) > MaxQuotes {
		c.fail("%d quotes, want 1 to %d", len(d.Quotes), MaxQuotes)
	}
	for i := range d.Quotes {
		c.quote(fmt.Sprintf("quote %d", i), &d.Quotes[i])
	}
	if len(d.EKCerts) > MaxCerts {
		c.fail("%d EK certificates, at most %d", len(d.EKCerts), MaxCerts)
	}
	for i, cert := range d.EKCerts {
		c.between(fmt.Sprintf("EK certificate %d", i), len(cert), MaxCert)
	}
	c.facts(d.Facts)
	if n := len(d.FactsDigest); n != 0 && n != sha256.Size {
		c.fail("facts digest has %d bytes, want %d", n, sha256.Size)
	}
	if len(d.Facts) > 0 && len(d.FactsDigest) > 0 {
		c.fail("facts and their digest are both given: give one")
	}
	c.most("statement", len(d.Statement), MaxStatement)
	if t := d.AssetTag; t != nil {
		c.between("asset tag: public area", len(t.Public), MaxStructure)
		c.between("asset tag: message", len(t.Message), MaxStructure)
		c.between("asset tag: signature", len(t.Signature), MaxStructure)
	}
	return c.err
}

func (c *checks) quote(field string, q *Quote) {
	c.between(field+": message", len(q.Message), MaxStructure)
	c.between(field+": signature", len(q.Signature), MaxStructure)
	if len(q.PCRs) > len(tpm.HashAlgs) {
		c.fail("%s: %d banks, at most %d", field, len(q.PCRs), len(tpm.HashAlgs))
	}
	seen := map[tpm.Alg]bool{}
	for _, b := range q.PCRs {
		if b.Alg.Size() == 0 {
			c.fail("%s: bank of unknown algorithm %v", field, b.Alg)
			return
		}
		if seen[b.Alg] {
			c.fail("%s: bank %v is given twice", field, b.Alg)
		}
		seen[b.Alg] = true
		for i, v := range b.Values {
			if i < 0 || i >= tpm.NumPCRs {
				c.fail("%s: bank %v has a PCR %d", field, b.Alg, i)
			}
			if len(v) != b.Alg.Size() {
				c.fail("%s: PCR %d of bank %v has %d bytes, want %d", field, i, b.Alg, len(v), b.Alg.Size())
			}
		}
	}
}

func (c *checks) facts(facts map[string][]byte) {
	if len(facts) > MaxFacts {
		c.fail("%d facts, at most %d", len(facts), MaxFacts)
	}
	total := 0
	for name, b := range facts {
		c.between("name of a fact", len(name), MaxName)
		c.printable("name of a fact", name)
		c.most("fact "+name, len(b), MaxFact)
		total += len(b)
	}
	c.most("all facts", total, MaxFactsSize)
}

// printable refuses names that would play tricks on a terminal or in a log.
func (c *checks) printable(field, s string) {
	for _, r := range s {
		if !unicode.IsPrint(r) || r == unicode.ReplacementChar {
			c.fail("%s %q holds characters that cannot be printed", field, s[:min(len(s), MaxName)])
			return
		}
	}
}
