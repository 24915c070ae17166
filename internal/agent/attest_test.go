package agent

import (
	"crypto/sha256"
	"strings"
	"testing"

	"touchstone.dev/touchstone/internal/evidence"
	"touchstone.dev/touchstone/internal/protocol"
	"touchstone.dev/touchstone/internal/tpm"
)

// What travels depends on what AIAS has already.
func TestCollectSendsWhatIsNew(t *testing.T) {
	log, list := []byte("firmware log"), []byte("0123456789")
	facts := map[string][]byte{"tainted": []byte("0")}
	factsDigest, err := evidence.FactsDigest(facts)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(log)
	for _, tc := range []struct {
		name                string
		change              func(*protocol.Challenge)
		log, ima            string
		offset              uint64
		facts               bool
		logDigest, factsDig bool
	}{
		{"first", func(*protocol.Challenge) {}, string(log), string(list), 0, true, false, false},
		{"same log", func(c *protocol.Challenge) { c.EventLogDigest = sum[:] }, "", string(list), 0, true, true, false},
		{"other log", func(c *protocol.Challenge) { c.EventLogDigest = make([]byte, 32) }, string(log), string(list), 0, true, false, false},
		{"same facts", func(c *protocol.Challenge) { c.FactsDigest = factsDigest }, string(log), string(list), 0, false, false, true},
		{"resume", func(c *protocol.Challenge) { c.IMAOffset, c.ResetCount = 4, 7 }, string(log), "456789", 4, true, false, false},
		{"resume at the end", func(c *protocol.Challenge) { c.IMAOffset, c.ResetCount = 10, 7 }, string(log), "", 10, true, false, false},
		{"other boot", func(c *protocol.Challenge) { c.IMAOffset, c.ResetCount = 4, 6 }, string(log), string(list), 0, true, false, false},
		{"other restart", func(c *protocol.Challenge) { c.IMAOffset, c.ResetCount, c.RestartCount = 4, 7, 1 }, string(log), string(list), 0, true, false, false},
		{"beyond the end", func(c *protocol.Challenge) { c.IMAOffset, c.ResetCount = 11, 7 }, string(log), string(list), 0, true, false, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			ch := testChallenge()
			tc.change(&ch)
			doc, err := collect(newFakeTPM(), &fakeHost{log: log, list: list, facts: facts}, "worker-1", &ch)
			if err != nil {
				t.Fatalf("collect: %v", err)
			}
			if string(doc.EventLog) != tc.log || (doc.EventLogDigest != nil) != tc.logDigest {
				t.Errorf("firmware log: got %q and digest %x, want %q and digest %v", doc.EventLog, doc.EventLogDigest, tc.log, tc.logDigest)
			}
			if string(doc.IMA) != tc.ima || doc.IMAOffset != tc.offset {
				t.Errorf("IMA list: got %q from %d, want %q from %d", doc.IMA, doc.IMAOffset, tc.ima, tc.offset)
			}
			if (len(doc.Facts) > 0) != tc.facts || (doc.FactsDigest != nil) != tc.factsDig {
				t.Errorf("facts: got %d and digest %x, want sent %v", len(doc.Facts), doc.FactsDigest, tc.facts)
			}
		})
	}
}

// The list is read after the quote: what happens in between must be in it, or AIAS could not replay to the quoted PCR 10.
func TestQuoteBeforeList(t *testing.T) {
	host := &fakeHost{list: []byte("old"), facts: map[string][]byte{}}
	ch := testChallenge()
	doc, err := collect(&growing{fakeTPM: newFakeTPM(), host: host}, host, "worker-1", &ch)
	if err != nil {
		t.Fatalf("collect: %v", err)
	}
	if got := string(doc.IMA); got != "oldentry" {
		t.Errorf("IMA list: got %q, want the entry that was measured during the quote in it", got)
	}
}

// growing is a TPM during whose quote the list grows.
type growing struct {
	*fakeTPM
	host *fakeHost
}

func (g *growing) Banks() ([]tpm.Alg, error) {
	g.host.grow()
	return g.fakeTPM.Banks()
}

func TestBanks(t *testing.T) {
	for _, tc := range []struct {
		name  string
		quote []protocol.Selection
		want  int
		err   string
	}{
		{"one", []protocol.Selection{{Bank: "sha256", PCRs: []int{0}}}, 1, ""},
		{"leaves out what it lacks", []protocol.Selection{{Bank: "sha384", PCRs: []int{0}}, {Bank: "sha256", PCRs: []int{0}}}, 1, ""},
		{"leaves out what it does not know", []protocol.Selection{{Bank: "sm3", PCRs: []int{0}}, {Bank: "sha256", PCRs: []int{0}}}, 1, ""},
		{"none left", []protocol.Selection{{Bank: "sha512", PCRs: []int{0}}}, 0, "none of the banks"},
		{"no PCR left", []protocol.Selection{{Bank: "sha256", PCRs: []int{24, -1}}}, 0, "none of the banks"},
		{"nothing asked", nil, 0, "none of the banks"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			ch := testChallenge()
			ch.Quote = tc.quote
			doc, err := collect(newFakeTPM(), &fakeHost{facts: map[string][]byte{}}, "worker-1", &ch)
			if tc.err != "" {
				if err == nil || !strings.Contains(err.Error(), tc.err) {
					t.Errorf("collect: got %v, want %q", err, tc.err)
				}
				return
			}
			if err != nil || len(doc.Quotes) != tc.want {
				t.Errorf("collect: %v, %d quotes, want %d", err, len(doc.Quotes), tc.want)
			}
		})
	}
}

func TestAssetTags(t *testing.T) {
	plain := &fakeHost{facts: map[string][]byte{"tainted": []byte("0")}}
	host, err := withTags(plain, map[string]string{"site": "fra-2", "rack": "4"})
	if err != nil {
		t.Fatal(err)
	}
	ch := testChallenge()
	doc, err := collect(newFakeTPM(), host, "worker-1", &ch)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := string(doc.Facts[evidence.FactAssetTag]), `{"rack":"4","site":"fra-2"}`; got != want {
		t.Errorf("asset tags: got %s, want %s", got, want)
	}
	if host, err := withTags(plain, nil); err != nil || host != Host(plain) {
		t.Errorf("withTags without tags: got %v, %v, want the host itself", host, err)
	}
}
