// Command localkey is what `make e2e-images` compares the speed of ctd-decoder with: a stream processor of containerd that decrypts a layer by
// ocicrypt as it comes, with a private key in a file beside it.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/containers/ocicrypt"
	"github.com/containers/ocicrypt/config"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	b, err := io.ReadAll(os.NewFile(3, "payload")) // what containerd says of the layer
	if err != nil {
		return err
	}
	var message anypb.Any
	if err := proto.Unmarshal(b, &message); err != nil {
		return err
	}
	var payload struct{ Descriptor ocispec.Descriptor }
	if err := json.Unmarshal(message.GetValue(), &payload); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	key, err := os.ReadFile(filepath.Join(filepath.Dir(self), "local.key"))
	if err != nil {
		return err
	}
	c, err := config.DecryptWithPrivKeys([][]byte{key}, [][]byte{nil})
	if err != nil {
		return err
	}
	plain, _, err := ocicrypt.DecryptLayer(c.DecryptConfig, os.Stdin, payload.Descriptor, false)
	if err != nil {
		return err
	}
	_, err = io.CopyBuffer(struct{ io.Writer }{os.Stdout}, struct{ io.Reader }{plain}, make([]byte, 1<<20))
	return err
}
