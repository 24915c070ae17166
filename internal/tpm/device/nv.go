package device

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"
)

// ErrNoIndex says that an NV index is not defined, or was never written.
var ErrNoIndex = errors.New("no such NV index")

const (
	nvChunk    = 512      // bytes read at once; every PC Client TPM allows them
	maxNVIndex = 16 << 10 // bytes of one index; a TPM has some ten thousand in all
)

// NVRead reads a whole NV index: by the index's own empty authorization where it allows that, else by the owner's.
func (t *TPM) NVRead(index uint32) ([]byte, error) {
	var out []byte
	err := t.do(fmt.Sprintf("read NV index %#08x", index), func() (err error) {
		out, err = t.nvRead(context.Background(), index)
		return err
	})
	return out, err
}

func (t *TPM) nvRead(ctx context.Context, index uint32) ([]byte, error) {
	handle := tpm2.TPMHandle(index)
	public, err := tpm2.NVReadPublic{NVIndex: handle}.Execute(t.link)
	if errors.Is(err, tpm2.TPMRCHandle) || errors.Is(err, tpm2.TPMRCValue) {
		return nil, fmt.Errorf("%w: %#08x", ErrNoIndex, index)
	}
	if err != nil {
		return nil, err
	}
	info, err := public.NVPublic.Contents()
	if err != nil {
		return nil, err
	}
	if !info.Attributes.Written {
		return nil, fmt.Errorf("%w: %#08x was never written", ErrNoIndex, index)
	}
	if info.DataSize > maxNVIndex {
		return nil, fmt.Errorf("NV index %#08x has %d bytes, at most %d are read", index, info.DataSize, maxNVIndex)
	}
	auth := tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Auth: tpm2.PasswordAuth(nil)}
	if info.Attributes.AuthRead {
		auth = tpm2.AuthHandle{Handle: handle, Name: public.NVName, Auth: tpm2.PasswordAuth(nil)}
	}
	out := make([]byte, 0, info.DataSize)
	for len(out) < int(info.DataSize) {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		rsp, err := tpm2.NVRead{
			AuthHandle: auth, NVIndex: tpm2.NamedHandle{Handle: handle, Name: public.NVName},
			Size: min(nvChunk, info.DataSize-uint16(len(out))), Offset: uint16(len(out)),
		}.Execute(t.link)
		if err != nil {
			return nil, err
		}
		if len(rsp.Data.Buffer) == 0 {
			return nil, fmt.Errorf("the TPM ends NV index %#08x after %d of %d bytes", index, len(out), info.DataSize)
		}
		out = append(out, rsp.Data.Buffer...)
	}
	return out, nil
}
