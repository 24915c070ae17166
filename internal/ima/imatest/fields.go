package imatest

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"strings"

	"touchstone.dev/touchstone/internal/ima"
	"touchstone.dev/touchstone/internal/tpm"
)

// Fields are the values of an entry; a template takes those that it has a field for.
type Fields struct {
	Violation bool
	Alg       tpm.Alg
	AlgName   string // instead of Alg, for algorithms that package tpm does not know
	Type      string // for d-ngv2; empty: "ima"
	Digest    []byte
	Path      string
	Signature []byte
	ModAlg    tpm.Alg
	ModDigest []byte
	ModSig    []byte
	Buffer    []byte

	EVMSignature []byte
	UID, GID     uint32
	Mode         uint16
	XattrNames   []string
	XattrValues  [][]byte
}

// Digest returns a digest that is different for each i.
func Digest(i int) []byte {
	d := sha256.Sum256(binary.BigEndian.AppendUint64(nil, uint64(i)))
	return d[:]
}

func (f Fields) data(template string, order byteOrder) []byte {
	digest := f.Digest
	if f.Violation {
		digest = make([]byte, 20)
	}
	if template == "ima" {
		if len(digest) != 20 {
			panic("imatest: the template ima takes SHA-1 digests only")
		}
		return append(order.AppendUint32(append([]byte(nil), digest...), uint32(len(f.Path))), f.Path...)
	}
	format, ok := ima.Templates()[template]
	if !ok {
		format = template
	}
	var out []byte
	for _, name := range strings.Split(format, "|") {
		v := f.field(name, digest, order)
		out = append(order.AppendUint32(out, uint32(len(v))), v...)
	}
	return out
}

func (f Fields) field(name string, digest []byte, order byteOrder) []byte {
	alg := f.AlgName
	if alg == "" {
		alg = f.Alg.String()
	}
	switch name {
	case "d":
		return digest
	case "d-ng":
		return append([]byte(alg+":\x00"), digest...)
	case "d-ngv2":
		typ := f.Type
		if typ == "" {
			typ = "ima"
		}
		return append([]byte(typ+":"+alg+":\x00"), digest...)
	case "n", "n-ng":
		return append([]byte(f.Path), 0)
	case "sig":
		return f.Signature
	case "buf":
		return f.Buffer
	case "modsig":
		return f.ModSig
	case "d-modsig":
		if f.ModDigest == nil {
			return nil
		}
		return append([]byte(f.ModAlg.String()+":\x00"), f.ModDigest...)
	}
	return f.inode(name, order)
}

func (f Fields) inode(name string, order byteOrder) []byte {
	var out []byte
	switch name {
	case "evmsig":
		return f.EVMSignature
	case "iuid":
		return order.AppendUint32(nil, f.UID)
	case "igid":
		return order.AppendUint32(nil, f.GID)
	case "imode":
		return order.AppendUint16(nil, f.Mode)
	case "xattrnames":
		return append([]byte(strings.Join(f.XattrNames, "|")), 0)
	case "xattrlengths":
		for _, v := range f.XattrValues {
			out = order.AppendUint32(out, uint32(len(v)))
		}
	case "xattrvalues":
		for _, v := range f.XattrValues {
			out = append(out, v...)
		}
	default:
		panic(fmt.Sprintf("imatest: unknown template field %q", name))
	}
	return out
}

// hashed is what the kernel hashes for an entry.
func hashed(template string, data []byte, order byteOrder) []byte {
	if template != "ima" {
		return data
	}
	out := make([]byte, 20+256)
	copy(out, data[:20])
	copy(out[20:], data[24:24+order.Uint32(data[20:])])
	return out
}
