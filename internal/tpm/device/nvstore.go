package device

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"

	"touchstone.dev/touchstone/internal/tpm"
)

// ErrIndexTaken says that an NV index is defined in another way than asked for: it belongs to somebody else, and is left alone.
var ErrIndexTaken = errors.New("the NV index belongs to another program")

// maxWrite is the most that NVStore writes, in bytes: what every PC Client TPM takes in one command, so that a write is all or nothing.
const maxWrite = 512

// NVStore makes an NV index of the owner hold content: it defines the index with these attributes when it is not there, and writes when the
// content is another one. Whoever is stopped in between leaves the old content, the new one, or an index that was never written, and can call
// it again. owner is the authorization of the owner hierarchy, empty on most machines.
func (t *TPM) NVStore(index, attributes uint32, content, owner []byte) error {
	if len(content) == 0 || len(content) > maxWrite {
		return fmt.Errorf("TPM: NV content of %d bytes, want 1 to %d", len(content), maxWrite)
	}
	return t.do(fmt.Sprintf("write NV index %#08x", index), func() error {
		public, err := t.nvOwn(index, attributes, len(content))
		if errors.Is(err, ErrNoIndex) {
			if err = t.nvDefine(index, attributes, len(content), owner); err == nil {
				public, err = t.nvOwn(index, attributes, len(content))
			}
		}
		if err != nil {
			return err
		}
		if public.attributes&tpm.NVWritten != 0 {
			if old, err := t.nvRead(context.Background(), index); err != nil || bytes.Equal(old, content) {
				return err // a write wears the chip out
			}
		}
		_, err = tpm2.NVWrite{
			AuthHandle: ownerAuth(owner), NVIndex: public.handle(), Data: tpm2.TPM2BMaxNVBuffer{Buffer: content},
		}.Execute(t.link)
		return explainOwner(err)
	})
}

// NVDelete removes an NV index that NVStore made; one that is not there is no error.
func (t *TPM) NVDelete(index, attributes uint32, size int, owner []byte) error {
	return t.do(fmt.Sprintf("remove NV index %#08x", index), func() error {
		public, err := t.nvOwn(index, attributes, size)
		if errors.Is(err, ErrNoIndex) {
			return nil
		}
		if err != nil {
			return err
		}
		_, err = tpm2.NVUndefineSpace{AuthHandle: ownerAuth(owner), NVIndex: public.handle()}.Execute(t.link)
		return explainOwner(err)
	})
}

// NVCertify has ak sign what an NV index holds, with nonce as qualifying data (TPM2_NV_Certify). It returns the index's TPMS_NV_PUBLIC, a
// TPMS_ATTEST and a TPMT_SIGNATURE, to be checked by tpm.VerifyNV. An index that is not there or was never written is ErrNoIndex.
func (t *TPM) NVCertify(ak *Key, index uint32, nonce []byte) (public, message, signature []byte, err error) {
	if ak == nil {
		return nil, nil, nil, errors.New("TPM: certify NV index: attestation key is missing")
	}
	err = t.do(fmt.Sprintf("certify NV index %#08x", index), func() error {
		p, err := t.nvPublic(index)
		if err != nil {
			return err
		}
		if p.attributes&tpm.NVWritten == 0 {
			return fmt.Errorf("%w: %#08x was never written", ErrNoIndex, index)
		}
		if p.size > maxWrite {
			return fmt.Errorf("%w: %#08x has %d bytes, at most %d are certified", ErrIndexTaken, index, p.size, maxWrite)
		}
		auth := tpm2.AuthHandle{Handle: tpm2.TPMHandle(index), Name: p.name, Auth: tpm2.PasswordAuth(nil)}
		return t.with(ak, func(key tpm2.NamedHandle) error {
			rsp, err := tpm2.NVCertify{
				SignHandle: tpm2.AuthHandle{Handle: key.Handle, Name: key.Name, Auth: tpm2.PasswordAuth(nil)},
				AuthHandle: auth, NVIndex: p.handle(), QualifyingData: tpm2.TPM2BData{Buffer: nonce}, InScheme: ak.scheme(), Size: p.size,
			}.Execute(t.link)
			if err != nil {
				return err
			}
			public, message, signature = p.area, rsp.CertifyInfo.Bytes(), tpm2.Marshal(rsp.Signature)
			return nil
		})
	})
	return public, message, signature, err
}

// nvIndex is an NV index that exists.
type nvIndex struct {
	index      uint32
	area       []byte // TPMS_NV_PUBLIC
	name       tpm2.TPM2BName
	attributes uint32
	policy     bool
	size       uint16
}

func (n *nvIndex) handle() tpm2.NamedHandle {
	return tpm2.NamedHandle{Handle: tpm2.TPMHandle(n.index), Name: n.name}
}

// nvPublic reads the public area of an index, or returns ErrNoIndex.
func (t *TPM) nvPublic(index uint32) (*nvIndex, error) {
	rsp, err := tpm2.NVReadPublic{NVIndex: tpm2.TPMHandle(index)}.Execute(t.link)
	if errors.Is(err, tpm2.TPMRCHandle) || errors.Is(err, tpm2.TPMRCValue) {
		return nil, fmt.Errorf("%w: %#08x", ErrNoIndex, index)
	}
	if err != nil {
		return nil, err
	}
	p, err := tpm.ParseNVPublic(rsp.NVPublic.Bytes())
	if err != nil {
		return nil, err
	}
	return &nvIndex{index: index, area: rsp.NVPublic.Bytes(), name: rsp.NVName, attributes: p.Attributes, policy: len(p.AuthPolicy) > 0, size: p.DataSize}, nil
}

// nvOwn is nvPublic for an index that must be defined as this program defines it.
func (t *TPM) nvOwn(index, attributes uint32, size int) (*nvIndex, error) {
	n, err := t.nvPublic(index)
	if err != nil {
		return nil, err
	}
	if n.attributes&^tpm.NVWritten != attributes || int(n.size) != size || n.policy {
		return nil, fmt.Errorf("%w: %#08x has attributes %#08x and %d bytes, want %#08x and %d: choose another index, or remove it with tpm2_nvundefine",
			ErrIndexTaken, index, n.attributes&^tpm.NVWritten, n.size, attributes, size)
	}
	return n, nil
}

func (t *TPM) nvDefine(index, attributes uint32, size int, owner []byte) error {
	area := binary.BigEndian.AppendUint32(nil, index)
	area = binary.BigEndian.AppendUint16(area, uint16(tpm.AlgSHA256))
	area = binary.BigEndian.AppendUint32(area, attributes)
	area = binary.BigEndian.AppendUint16(area, 0) // no policy
	area = binary.BigEndian.AppendUint16(area, uint16(size))
	_, err := tpm2.NVDefineSpace{AuthHandle: ownerAuth(owner), PublicInfo: tpm2.BytesAs2B[tpm2.TPMSNVPublic](area)}.Execute(t.link)
	return explainOwner(err)
}

// ownerAuth authorizes by the owner hierarchy. A secret is never sent: it is proven by an HMAC.
func ownerAuth(secret []byte) tpm2.AuthHandle {
	if len(secret) == 0 {
		return tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Auth: tpm2.PasswordAuth(nil)}
	}
	return tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Auth: tpm2.HMAC(tpm2.TPMAlgSHA256, 16, tpm2.Auth(secret))}
}

// explainOwner says what to do when the owner's authorization is another one.
func explainOwner(err error) error {
	if errors.Is(err, tpm2.TPMRCBadAuth) || errors.Is(err, tpm2.TPMRCAuthFail) {
		return fmt.Errorf("the owner hierarchy has another authorization: give it to the agent in a file: %w", err)
	}
	return err
}
