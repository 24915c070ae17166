package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containers/ocicrypt/config"
	keyproviderconfig "github.com/containers/ocicrypt/config/keyprovider-config"
	stock "github.com/containers/ocicrypt/keywrap/keyprovider"

	"touchstone.dev/touchstone/internal/cli/render"
	"touchstone.dev/touchstone/internal/imagekey"
	"touchstone.dev/touchstone/internal/protocol"
)

// TestImageKeyProvider: one request on standard input, and a stock client on a socket, are answered by keys of AIAS; what AIAS refuses is not answered.
func TestImageKeyProvider(t *testing.T) {
	record := protocol.ImageKey{ID: imagekey.NewID(), Class: "regulated", Conditions: json.RawMessage(`{"levels":[1]}`), Created: time.Now()}
	key := bytes.Repeat([]byte{7}, imagekey.KeySize)
	bundle := operated(t, map[string]any{"POST /v1/image-keys": protocol.NewImageKey{ImageKey: record, Key: key}})
	start := func(ctx context.Context, in string, args ...string) (int, string, string) {
		var o, e bytes.Buffer
		app := &App{Out: &o, Err: &e, In: strings.NewReader(in), Style: render.Style{Width: 80}, Now: time.Now}
		return app.Run(ctx, append([]string{"touchstone", "image", "key-provider"}, args...)), o.String(), e.String()
	}
	opens := func(annotation []byte) {
		t.Helper()
		a, err := imagekey.Parse(annotation)
		if err != nil || a.Key != record.ID {
			t.Fatalf("the annotation %q: %v, want the key %s", annotation, err, record.ID)
		}
		if got, err := a.Open(key); err != nil || string(got) != "{}" {
			t.Errorf("the annotation opens to %q, %v", got, err)
		}
	}
	const ask = `{"op":"keywrap","keywrapparams":{"ec":{"Parameters":{"touchstone":["cmVndWxhdGVkQGFwcA=="]}},"optsdata":"e30="}}`
	code, out, errOut := start(t.Context(), ask, "--operator", bundle)
	var answer struct {
		Wrapped struct {
			Annotation []byte `json:"annotation"`
		} `json:"keywrapresults"`
	}
	if err := json.Unmarshal([]byte(out), &answer); code != 0 || err != nil {
		t.Fatalf("image key-provider: exit code %d, %q%q, %v", code, out, errOut, err)
	}
	opens(answer.Wrapped.Annotation)

	for name, tc := range map[string]struct{ in, bundle, want string }{
		"no request":    {"", bundle, "not the JSON"},
		"no class":      {`{"op":"keywrap","keywrapparams":{"ec":{},"optsdata":"e30="}}`, bundle, "who may open the image"},
		"AIAS says no":  {ask, operated(t, nil), "/v1/image-keys"},
		"no operator":   {ask, filepath.Join(t.TempDir(), "none"), "no such file"},
		"to open a key": {`{"op":"keyunwrap","keyunwrapparams":{"annotation":"e30="}}`, bundle, "only wraps"},
	} {
		if code, out, errOut := start(t.Context(), tc.in, "--operator", tc.bundle); code == 0 || out != "" || !strings.Contains(errOut, tc.want) {
			t.Errorf("%s: exit code %d, %q%q, want an error with %q and no answer", name, code, out, errOut, tc.want)
		}
	}

	socket := filepath.Join(t.TempDir(), "s")
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan int)
	go func() {
		code, _, _ := start(ctx, "", "--listen", socket, "--operator", bundle)
		ended <- code
	}()
	w := stock.NewKeyWrapper(imagekey.Provider, keyproviderconfig.KeyProviderAttrs{Grpc: "unix://" + socket})
	ec := &config.EncryptConfig{Parameters: map[string][][]byte{imagekey.Provider: {[]byte("regulated@app")}}}
	var annotation []byte
	var err error
	for range 100 { // until it listens
		if annotation, err = w.WrapKeys(ec, []byte("{}")); err == nil {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	if err != nil {
		t.Fatal(err)
	}
	opens(annotation)
	if _, err := w.UnwrapKey(&config.DecryptConfig{}, annotation); err == nil || !strings.Contains(err.Error(), "on workers") {
		t.Errorf("UnwrapKey(): got %v, want where images are opened", err)
	}
	stop()
	if code := <-ended; code != 0 {
		t.Errorf("image key-provider --listen: exit code %d when it is stopped", code)
	}
}
