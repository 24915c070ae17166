package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"touchstone.dev/touchstone/internal/protocol"
)

// keysOf runs `aias keys list`.
func keysOf(t *testing.T, config string) protocol.KeyList {
	t.Helper()
	out, err := command(t, "keys", "list", "--json", "--config", config).Output()
	var l protocol.KeyList
	if err == nil {
		err = json.Unmarshal(out, &l)
	}
	if err != nil {
		t.Fatalf("aias keys list: got %q, %v", out, err)
	}
	return l
}

// TestRotateKilled: kill -9 at any moment of a rotation loses nothing; the next brings it to its end. A rotation opens every secret, so one
// that succeeds proves that all are there.
func TestRotateKilled(t *testing.T) {
	config, data := setUp(t)
	cmd, c := served(t, config, data)
	ctx := context.Background()
	jwks, err := c.JWKS(ctx)
	if err != nil {
		t.Fatal(err)
	}
	const images = 60
	for i := range images {
		if _, err := c.NewImageKey(ctx, protocol.ImageKeyRequest{Image: fmt.Sprint("image ", i), Conditions: json.RawMessage("{}")}); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := command(t, "keys", "rotate", "--config", config).CombinedOutput(); err == nil || !strings.Contains(string(out), "touchstone keys rotate") {
		t.Errorf("aias keys rotate beside the service: got %q, %v; want a refusal that says how", out, err)
	}
	_ = cmd.Process.Signal(os.Interrupt)
	_ = cmd.Wait()
	took := time.Duration(0)
	for i := range 14 {
		rotate := command(t, "keys", "rotate", "--config", config)
		start := time.Now()
		if err := rotate.Start(); err != nil {
			t.Fatal(err)
		}
		if i > 0 {
			delay := took * time.Duration(i) / 13
			time.AfterFunc(delay, func() { _ = rotate.Process.Kill() })
		}
		_ = rotate.Wait()
		if i == 0 {
			took = time.Since(start)
		}
		if l := keysOf(t, config); len(l.Keys) > 2 || l.Moving {
			t.Errorf("round %d: got keys %+v, want at most two", i, l)
		}
	}
	for range 2 { // one ends what was stopped, one opens everything again
		if out, err := command(t, "keys", "rotate", "--config", config).CombinedOutput(); err != nil {
			t.Fatalf("aias keys rotate: %v\n%s", err, out)
		}
	}
	if l := keysOf(t, config); len(l.Keys) != 1 || l.Keys[0].Secrets < images+7 {
		t.Errorf("after all: got keys %+v, want one with all secrets", l)
	}
	if left, _ := filepath.Glob(filepath.Join(data, ".aias.key-*")); len(left) > 0 {
		t.Errorf("%d files are left over", len(left))
	}
	_, c = served(t, config, data)
	if again, err := c.JWKS(ctx); err != nil || !bytes.Equal(again, jwks) {
		t.Errorf("JWKS() after all: got %s, %v; want %s", again, err, jwks)
	}
	keys, err := c.ImageKeys(ctx)
	if err != nil || len(keys) != images {
		t.Errorf("ImageKeys() after all: got %d, %v; want %d", len(keys), err, images)
	}
}
