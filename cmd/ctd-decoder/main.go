// Command ctd-decoder decrypts one layer of an encrypted image from standard input to standard output: containerd starts it as a stream
// processor, once for each layer. It asks the trust agent to open the layer's key, and says on standard error why that is refused; containerd
// shows it in the events of the pod. It has the name and the arguments that the configuration of containerd has by default.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"touchstone.dev/touchstone/internal/imagekey"
	"touchstone.dev/touchstone/internal/keyprovider"
	"touchstone.dev/touchstone/internal/layercrypt"
	"touchstone.dev/touchstone/internal/version"
)

const (
	payloadFile = 3 // the file that containerd writes the descriptor of the layer to
	payloadType = "io.containerd.ocicrypt.v1.Payload"
	maxPayload  = 1 << 20 // bytes
	keyTime     = 90 * time.Second
	envConfig   = "OCICRYPT_KEYPROVIDER_CONFIG"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		linger()
		os.Exit(1)
	}
}

// lingerTime is how long standard output outlives a decoder that failed.
const lingerTime = 300 * time.Millisecond

// linger lets a child hold standard output open for a moment after this process has ended. containerd reads the layer until its end and then looks whether
// the decoder failed; when the end comes with the exit, the layer's digest may be found wrong before the reason is known, and nobody is told the reason.
func linger() {
	self, err := os.Executable()
	if err != nil {
		return
	}
	cmd := exec.Command(self, "-linger") //nolint:gosec,noctx // this program; it outlives this process
	cmd.Stdout = os.Stdout
	_ = cmd.Start() // without it the reason is lost sometimes
}

func run(ctx context.Context, args []string) error {
	f := flag.NewFlagSet("ctd-decoder", flag.ContinueOnError)
	socket := f.String("socket", "", "socket of the key provider (default: the one in $"+envConfig+", else "+keyprovider.DefaultSocket+")")
	f.String("decryption-keys-path", "", "not used: keys come from AIAS")
	wait := f.Bool("linger", false, "hold standard output for a moment: what a decoder that failed starts")
	show := f.Bool("version", false, "print the version")
	if err := f.Parse(args); err != nil {
		return err
	}
	if *wait {
		time.Sleep(lingerTime)
		return nil
	}
	if *show {
		fmt.Println("ctd-decoder " + version.String())
		return nil
	}
	if *socket == "" {
		*socket = configuredSocket(os.Getenv(envConfig))
	}
	payload := os.NewFile(payloadFile, "payload")
	if payload == nil {
		return errNoPayload
	}
	layer, err := readPayload(payload)
	if err != nil {
		return err
	}
	private, err := unwrap(ctx, *socket, layer)
	if err != nil {
		return err
	}
	plain, err := layercrypt.Decrypt(os.Stdin, layer.Annotations, private)
	if err != nil {
		return err
	}
	// Without the wrappers io.Copy would choose a small buffer of its own.
	_, err = io.CopyBuffer(struct{ io.Writer }{os.Stdout}, struct{ io.Reader }{plain}, make([]byte, 1<<20))
	return err
}

// errNoPayload: containerd starts decoders without a payload for whoever does not decrypt.
var errNoPayload = errors.New("containerd has not said which layer this is, so it cannot be decrypted: only pulls through CRI are, and since containerd 2.1 only " +
	"with use_local_image_pull = true; see `trust-agent image-provider check`")

// descriptor is what containerd knows of the layer.
type descriptor struct {
	Digest      string            `json:"digest"`
	Annotations map[string]string `json:"annotations"`
}

func readPayload(r io.Reader) (*descriptor, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxPayload+1))
	if err != nil || len(b) == 0 {
		return nil, errNoPayload
	}
	if len(b) > maxPayload {
		return nil, fmt.Errorf("what containerd says of the layer has more than %d bytes", maxPayload)
	}
	var message anypb.Any
	if err := proto.Unmarshal(b, &message); err != nil || !strings.HasSuffix(message.GetTypeUrl(), payloadType) {
		return nil, errNoPayload
	}
	var payload struct{ Descriptor descriptor }
	if err := json.Unmarshal(message.GetValue(), &payload); err != nil {
		return nil, errors.New("what containerd says of the layer cannot be read")
	}
	return &payload.Descriptor, nil
}

// unwrap has the first annotation opened that can be. The reasons of those that cannot are all said.
func unwrap(ctx context.Context, socket string, layer *descriptor) ([]byte, error) {
	packets, err := layercrypt.Packets(layer.Annotations)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, keyTime)
	defer cancel()
	var failed []error
	for _, p := range packets {
		if a, err := imagekey.Parse(p); err == nil && a.Layer != "" && layer.Digest != "" && a.Layer != layer.Digest {
			failed = append(failed, fmt.Errorf("the key in the annotation is that of layer %s, this is %s: the image was changed", a.Layer, layer.Digest))
			continue
		}
		private, err := keyprovider.Unwrap(ctx, socket, p)
		if err == nil {
			return private, nil
		}
		failed = append(failed, err)
	}
	return nil, errors.Join(failed...)
}

// configuredSocket finds the socket of the key provider in the configuration file of ocicrypt.
func configuredSocket(file string) string {
	var config struct {
		Providers map[string]struct {
			GRPC string `json:"grpc"`
		} `json:"key-providers"`
	}
	b, err := os.ReadFile(file)
	if err != nil || json.Unmarshal(b, &config) != nil {
		return keyprovider.DefaultSocket
	}
	if path, ok := strings.CutPrefix(config.Providers[imagekey.Provider].GRPC, "unix:"); ok {
		return "/" + strings.TrimLeft(path, "/")
	}
	return keyprovider.DefaultSocket
}
