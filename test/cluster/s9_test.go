//go:build cluster

package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

// diskPort is the node port under which AIAS answers clevis.
const diskPort = 30844

// Where the disk of a worker is, and what opens it at first.
const (
	diskFile = "/var/lib/touchstone/disk.img"
	passFile = "/var/lib/touchstone/pass"
)

// TestS9: an encrypted disk of a worker opens by the AIAS of the chart and Debian's clevis while the worker is trusted, and not when it is not.
func TestS9(t *testing.T) {
	s := installed(t)
	ctx, w2 := t.Context(), s.Workers[1]
	program, err := s.Build(ctx, "touchstone")
	must(t, err)
	must(t, s.Step("S9 the chart answers clevis", func() error {
		_, err := s.Install(ctx, s.Workers[0], policySpec, map[string]any{"aias": map[string]any{"disks": map[string]any{
			"port": 7500, "type": "NodePort", "nodePort": diskPort, "address": fmt.Sprintf("%s:%d", s.Workers[0].IP, diskPort),
		}}})
		return err
	}))
	_, err = s.Until(ctx, w2.Name, "trusted", (*Trust).Trusted)
	must(t, err)

	// The agent is a pod here, whose address AIAS sees when it attests; clevis runs on the worker itself (docs/disks.md).
	text, err := output(ctx, program, "--operator", s.aias.Bundle, "disk", "bind", w2.Name, "--software-tpm", "--any-source")
	must(t, err)
	_, config, ok := strings.Cut(string(text), "tang '")
	config, _, _ = strings.Cut(config, "'")
	if !ok || !json.Valid([]byte(config)) {
		t.Fatalf("disk bind prints no line for clevis: %s", text)
	}
	// The Service leads to the pod a moment after the pod is ready.
	must(t, until(ctx, "the worker reaches AIAS", podTime, nil, func(ctx context.Context) error {
		_, err := w2.Run(ctx, "curl", "-sSf", "-o", "/dev/null", fmt.Sprintf("http://%s:%d/n/%s/adv", s.Workers[0].IP, diskPort, w2.Name))
		return err
	}))
	_, err = w2.Run(ctx, "bash", "-ec", `umask 077; printf 'a passphrase for a rescue' >"$2"; truncate -s 20M "$1"
		cryptsetup luksFormat --type luks2 --batch-mode --pbkdf pbkdf2 --pbkdf-force-iterations 1000 --key-file "$2" "$1"
		clevis luks bind -f -k "$2" -d "$1" tang "$3"; rm "$2"`, "-", diskFile, passFile, config)
	must(t, err)
	began := time.Now()
	// The AIAS of before has judged the worker: the new one waits for its next attestation.
	must(t, until(ctx, "the disk opens", podTime, nil, func(ctx context.Context) error { return s.opens(ctx, w2) }))
	s.logf("S9 clevis on %s opens its disk after %.2f s", w2.Name, time.Since(began).Seconds())

	must(t, w2.Execute("/var/tmp/m", []byte("run beside a disk")))
	_, err = s.Until(ctx, w2.Name, "fallen", (*Trust).Fallen)
	must(t, err)
	s.closed(t, w2, "level 5")

	s.recovers(t, w2)
	began = time.Now()
	must(t, until(ctx, "the disk opens", podTime, nil, func(ctx context.Context) error { return s.opens(ctx, w2) })) // clevis tries again by itself while a machine boots
	s.logf("S9 trust is back: the disk opens after %.2f s", time.Since(began).Seconds())

	_, err = output(ctx, program, "--operator", s.aias.Bundle, "disk", "revoke", w2.Name, "--reason", "it was stolen")
	must(t, err)
	s.closed(t, w2, "revoked")
	_, err = output(ctx, program, "--operator", s.aias.Bundle, "disk", "unrevoke", w2.Name)
	must(t, err)
	must(t, s.opens(ctx, w2))
}

// opens has clevis find the passphrase of the worker's disk, and cryptsetup try it. clevis cannot tell why AIAS refuses; AIAS can.
func (s *world) opens(ctx context.Context, w *Worker) error {
	_, err := w.Run(ctx, "bash", "-ec", `set -o pipefail; clevis luks pass -d "$1" -s 1 | cryptsetup open --test-passphrase --key-file - "$1"`, "-", diskFile)
	if err != nil {
		why, unknown := s.refusal(ctx, w)
		err = errors.Join(fmt.Errorf("%w: AIAS says %q", err, why), unknown)
	}
	return err
}

// refusal is why AIAS refused what the worker's disk asked for last.
func (s *world) refusal(ctx context.Context, w *Worker) (string, error) {
	list, err := s.aias.Client.Disks(ctx)
	if err != nil {
		return "", err
	}
	for _, d := range list.Nodes {
		if d.Node == w.Name && d.Last != nil && !d.Last.Released {
			return d.Last.Reason, nil
		}
	}
	return "", fmt.Errorf("AIAS refused nothing to %s: %+v", w.Name, list.Nodes)
}

// closed checks that the disk of a worker does not open, for a reason.
func (s *world) closed(t *testing.T, w *Worker, want string) {
	t.Helper()
	if err := s.opens(t.Context(), w); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("the disk of %s: got %v, want it closed for %q", w.Name, err, want)
	}
	why, err := s.refusal(t.Context(), w)
	must(t, err)
	s.logf("S9 refused: %s", why)
}
