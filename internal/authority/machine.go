package authority

import (
	"bytes"
	"context"
	"regexp"
	"strings"

	"touchstone.dev/touchstone/internal/evidence"
	"touchstone.dev/touchstone/internal/result"
)

// maxKubeletKeys bounds the digests of one kubelet: the key in use, its certificate, and the key that a first certificate is asked for.
const maxKubeletKeys = 4

var (
	systemUUID = regexp.MustCompile(`^[0-9a-z-]{1,64}$`) // a UUID, or what stands for one on machines without
	bootID     = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)
	keyDigest  = regexp.MustCompile(`^[0-9a-f]{64}$`)
)

// machineOf reads what facts say about which machine this is. What has not the form that it should have is left out: a Relying Party then has
// nothing to recognise the node by.
func machineOf(facts map[string][]byte) result.Machine {
	text := func(name string, form *regexp.Regexp) string {
		s := strings.ToLower(string(bytes.Trim(facts[name], " \t\n\x00")))
		if !form.MatchString(s) {
			return ""
		}
		return s
	}
	m := result.Machine{SystemUUID: text(evidence.FactMachine, systemUUID), BootID: text(evidence.FactBootID, bootID)}
	for line := range bytes.Lines(facts[evidence.FactKubeletKeys]) {
		if s := string(bytes.TrimSpace(line)); keyDigest.MatchString(s) && len(m.KubeletKeys) < maxKubeletKeys {
			m.KubeletKeys = append(m.KubeletKeys, s)
		}
	}
	return m
}

// machine says which machine a document is of. Facts that the document only names are read once. The caller holds the node.
func (a *Authority) machine(ctx context.Context, n *node, doc *evidence.Document) (result.Machine, error) {
	if len(doc.Facts) > 0 || len(doc.FactsDigest) == 0 {
		return machineOf(doc.Facts), nil
	}
	if bytes.Equal(doc.FactsDigest, n.machineFacts) {
		return n.machine, nil
	}
	b, err := a.kept(ctx, doc.FactsDigest)
	if err != nil {
		return result.Machine{}, lost(err, "facts", doc.FactsDigest)
	}
	facts, err := decodeFacts(b)
	return machineOf(facts), err
}
