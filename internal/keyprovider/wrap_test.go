package keyprovider

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containers/ocicrypt"
	"github.com/containers/ocicrypt/config"
	keyproviderconfig "github.com/containers/ocicrypt/config/keyprovider-config"
	stock "github.com/containers/ocicrypt/keywrap/keyprovider"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"touchstone.dev/touchstone/internal/imagekey"
)

// broker is AIAS, as far as making keys and giving them goes.
type broker struct {
	mu   sync.Mutex
	keys map[string][]byte
	made []string // class and image of each, in order
}

func (b *broker) make(_ context.Context, class, image string) (string, []byte, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if class != "regulated" {
		return "", nil, fmt.Errorf("AIAS knows no trust class %s", class)
	}
	id := imagekey.NewID()
	b.keys[id] = bytes.Repeat([]byte{byte(len(b.made) + 1)}, imagekey.KeySize)
	b.made = append(b.made, strings.TrimSpace(class+" "+image))
	return id, b.keys[id], nil
}

// open is what an agent does with an annotation, with a broker that releases.
func (b *broker) open(_ context.Context, annotation []byte) ([]byte, error) {
	a, err := imagekey.Parse(annotation)
	if err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return a.Open(b.keys[a.Key])
}

// use makes ocicrypt use a key provider.
func use(attrs keyproviderconfig.KeyProviderAttrs) {
	ocicrypt.RegisterKeyWrapper("provider."+imagekey.Provider, stock.NewKeyWrapper(imagekey.Provider, attrs))
}

// encrypt encrypts a layer by ocicrypt, as skopeo and buildah do with --encryption-key provider:PARAMETER.
func encrypt(t testing.TB, parameter, plain string) (layer []byte, desc v1.Descriptor, err error) {
	t.Helper()
	cc, err := config.EncryptWithKeyProvider([][]byte{[]byte(parameter)})
	if err != nil {
		t.Fatal(err)
	}
	desc = v1.Descriptor{MediaType: v1.MediaTypeImageLayerGzip, Digest: "sha256:" + "00000000000000000000000000000000000000000000000000000000000000aa", Size: int64(len(plain))}
	r, finish, err := ocicrypt.EncryptLayer(cc.EncryptConfig, strings.NewReader(plain), desc)
	if err != nil {
		return nil, desc, err
	}
	if layer, err = io.ReadAll(r); err != nil {
		return nil, desc, err
	}
	desc.Annotations, err = finish()
	return layer, desc, err
}

// TestStockClientEncrypts: a stock client encrypts by the gRPC provider; layers of one image share a key, and a worker's provider opens them.
func TestStockClientEncrypts(t *testing.T) {
	b := &broker{keys: map[string][]byte{}}
	now := time.Now()
	wraps := serve(t, &Server{Wrap: (&Wrapper{New: b.make, Now: func() time.Time { return now }}).Wrap})
	opens := serve(t, &Server{Unwrap: b.open})
	for _, image := range []string{"registry.example/app:1", "registry.example/app:1", "registry.example:5000/app@sha256:0a", ""} {
		use(keyproviderconfig.KeyProviderAttrs{Grpc: "unix://" + wraps})
		parameter := strings.TrimRight(imagekey.Provider+":regulated@"+image, "@")
		layer, desc, err := encrypt(t, parameter, "what is in "+image)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(layer, []byte("what is in")) || desc.Annotations[imagekey.KeysAnnotation] == "" {
			t.Fatalf("the layer is not encrypted, or has no key: %q, %v", layer, desc.Annotations)
		}
		use(keyproviderconfig.KeyProviderAttrs{Grpc: "unix://" + opens})
		dc, err := config.DecryptWithKeyProvider([][]byte{[]byte(imagekey.Provider)})
		if err != nil {
			t.Fatal(err)
		}
		r, _, err := ocicrypt.DecryptLayer(dc.DecryptConfig, bytes.NewReader(layer), desc, false)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(r); err != nil || string(got) != "what is in "+image {
			t.Errorf("%q: the layer opens to %q, %v", image, got, err)
		}
	}
	want := "regulated registry.example/app:1,regulated registry.example:5000/app@sha256:0a,regulated"
	if got := strings.Join(b.made, ","); got != want {
		t.Errorf("keys were made for %q, want %q", got, want)
	}
	// After a while the same name is another image.
	use(keyproviderconfig.KeyProviderAttrs{Grpc: "unix://" + wraps})
	now = now.Add(keyLife + time.Second)
	if _, _, err := encrypt(t, imagekey.Provider+":regulated@registry.example/app:1", "x"); err != nil || len(b.made) != 4 {
		t.Errorf("after %s: %d keys were made, %v; want another one", keyLife, len(b.made), err)
	}
}

// TestNoPolicyNoEncryption: whatever does not say clearly who may open the image, or names a class that AIAS does not know, ends the encryption.
func TestNoPolicyNoEncryption(t *testing.T) {
	b := &broker{keys: map[string][]byte{}}
	use(keyproviderconfig.KeyProviderAttrs{Grpc: "unix://" + serve(t, &Server{Wrap: (&Wrapper{New: b.make, Now: time.Now}).Wrap})})
	for parameter, want := range map[string]string{
		"": ErrParameter.Error(), ":": ErrParameter.Error(), ":@registry.example/app": ErrParameter.Error(), ":Regulated": ErrParameter.Error(), ":regulated@": ErrParameter.Error(),
		":regulated@a b": ErrParameter.Error(), ":regulated\n": ErrParameter.Error(), ":../regulated": ErrParameter.Error(), ":" + strings.Repeat("a", 300): ErrParameter.Error(),
		":regulated@" + strings.Repeat("a", 600): ErrParameter.Error(), ":unregulated": "AIAS knows no trust class unregulated",
	} {
		if _, desc, err := encrypt(t, imagekey.Provider+parameter, "x"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q: got %v, %v; want %q", parameter, desc.Annotations, err, want)
		}
	}
	if len(b.made) != 0 {
		t.Errorf("keys were made for %q", b.made)
	}
}

func TestWrapRefuses(t *testing.T) {
	w := &Wrapper{Now: time.Now, New: func(context.Context, string, string) (string, []byte, error) {
		t.Error("a key was made")
		return "", nil, errors.New("made")
	}}
	message := func(change func(*wrapInput)) []byte {
		in := wrapInput{opWrap, wrapParams{encryptConfig{map[string][][]byte{imagekey.Provider: {[]byte("regulated")}}}, []byte("{}")}}
		change(&in)
		b, err := json.Marshal(in)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for name, m := range map[string][]byte{
		"nothing": nil, "no JSON": []byte("x"), "list": []byte("[]"), "deep": []byte(strings.Repeat("[", 100000)), "large": make([]byte, maxMessage+1),
		"unwrap": message(func(in *wrapInput) { in.Op = opUnwrap }), "no operation": message(func(in *wrapInput) { in.Op = "" }),
		"no options": message(func(in *wrapInput) { in.Wrap.Options = nil }), "options no JSON": message(func(in *wrapInput) { in.Wrap.Options = []byte("{") }),
		"large options": message(func(in *wrapInput) { in.Wrap.Options = []byte(`"` + strings.Repeat("a", imagekey.MaxOptions) + `"`) }),
		"no parameters": message(func(in *wrapInput) { in.Wrap.Config.Parameters = nil }),
		"two classes":   message(func(in *wrapInput) { in.Wrap.Config.Parameters[imagekey.Provider] = [][]byte{[]byte("a"), []byte("b")} }),
		"another's":     message(func(in *wrapInput) { in.Wrap.Config.Parameters = map[string][][]byte{"other": {[]byte("a")}} }),
	} {
		if out, err := w.Wrap(t.Context(), m); err == nil {
			t.Errorf("%s: Wrap(): got %q, want an error", name, out)
		}
	}
	full := &Wrapper{Now: time.Now, New: (&broker{keys: map[string][]byte{}}).make}
	for i := range maxImages + 1 {
		_, err := full.Wrap(t.Context(), message(func(in *wrapInput) {
			in.Wrap.Config.Parameters[imagekey.Provider] = [][]byte{fmt.Appendf(nil, "regulated@app:%d", i)}
		}))
		if (err != nil) != (i == maxImages) {
			t.Errorf("image %d: Wrap(): %v", i, err)
		}
	}
}

// TestConcurrentLayers: layers of an image that come at the same time get one key.
func TestConcurrentLayers(t *testing.T) {
	b := &broker{keys: map[string][]byte{}}
	w := &Wrapper{New: b.make, Now: time.Now}
	message := []byte(`{"op":"keywrap","keywrapparams":{"ec":{"Parameters":{"touchstone":["cmVndWxhdGVkQGFwcA=="]}},"optsdata":"e30="}}`)
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			if _, err := w.Wrap(context.Background(), message); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if len(b.made) != 1 || b.made[0] != "regulated app" {
		t.Errorf("keys were made for %q, want one for app", b.made)
	}
}

// envCommand makes the test binary the command of a key provider.
const envCommand = "KEYPROVIDER_TEST_COMMAND"

func TestMain(m *testing.M) {
	if os.Getenv(envCommand) == "" {
		os.Exit(m.Run())
	}
	in, err := io.ReadAll(os.Stdin)
	if err == nil {
		in, err = (&Wrapper{New: (&broker{keys: map[string][]byte{}}).make, Now: time.Now}).Wrap(context.Background(), in)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	_, _ = os.Stdout.Write(in)
}

// TestStockClientRunsTheCommand: ocicrypt's other form, a program that is run for each layer.
func TestStockClientRunsTheCommand(t *testing.T) {
	t.Setenv(envCommand, "1")
	use(keyproviderconfig.KeyProviderAttrs{Command: &keyproviderconfig.Command{Path: os.Args[0]}})
	layer, desc, err := encrypt(t, imagekey.Provider+":regulated@app", "what is in it")
	if err != nil || bytes.Contains(layer, []byte("what")) || desc.Annotations[imagekey.KeysAnnotation] == "" {
		t.Errorf("got %q, %v, %v", layer, desc.Annotations, err)
	}
	if _, _, err := encrypt(t, imagekey.Provider+":nobody", "x"); err == nil {
		t.Error("a class that AIAS does not know: got no error")
	}
}

func FuzzWrapping(f *testing.F) {
	f.Add([]byte(`{"op":"keywrap","keywrapparams":{"ec":{"Parameters":{"touchstone":["cmVndWxhdGVkQGFwcA=="]}},"optsdata":"e30="}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if want, options, err := wrapping(b); err == nil && (!className.MatchString(want.class) || len(options) == 0) {
			t.Errorf("wrapping(%q): got %+v, %q", b, want, options)
		}
	})
}
