package agent

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"touchstone.dev/touchstone/internal/evidence"
)

// Files of a kubelet in its folder of keys: the key that it asks its first certificate for, and the link to certificate and key in use.
var kubeletFiles = []string{"kubelet-client.key.tmp", "kubelet-client-current.pem"}

const maxKubeletFile = 64 << 10 // bytes

// kubelet is a host with a kubelet. The keys of the kubelet are read for their public halves' hashes only; nothing else of them leaves this file.
type kubelet struct {
	Host
	dir string
}

// withKubelet adds the kubelet's keys to the facts of a host. An empty folder means that there is no kubelet.
func withKubelet(host Host, root, dir string) Host {
	if dir == "" {
		return host
	}
	return kubelet{Host: host, dir: filepath.Join(root, dir)}
}

// Facts returns the facts of the host and the hashes of the kubelet's keys. A key that is not there (yet), or that is being written, is
// left out: without it the kubelet gets no certificate.
func (k kubelet) Facts() (map[string][]byte, error) {
	facts, err := k.Host.Facts()
	if err != nil {
		return nil, err
	}
	var hashes []string
	for _, name := range kubeletFiles {
		found, err := k.hashes(name)
		if err != nil {
			continue
		}
		for _, hash := range found {
			if !slices.Contains(hashes, hash) {
				hashes = append(hashes, hash)
			}
		}
	}
	if len(hashes) > 0 {
		var b bytes.Buffer
		for _, h := range hashes {
			b.WriteString(h + "\n")
		}
		facts[evidence.FactKubeletKeys] = b.Bytes()
	}
	return facts, nil
}

// stamp returns a number that changes when a kubelet's key may have.
func (k kubelet) stamp() uint64 {
	h := fnv.New64a()
	for _, name := range kubeletFiles {
		path, err := k.resolve(name)
		if err != nil {
			continue
		}
		if info, err := os.Lstat(path); err == nil {
			fmt.Fprintln(h, path, info.Size(), info.ModTime().UnixNano())
		}
	}
	return h.Sum64()
}

// resolve follows the link that the kubelet lays to another file of the same folder, by name: its path is the host's, not the agent's.
func (k kubelet) resolve(name string) (string, error) {
	path := filepath.Join(k.dir, name)
	to, err := os.Readlink(path)
	if errors.Is(err, syscall.EINVAL) { // no link
		return path, nil
	}
	return filepath.Join(k.dir, filepath.Base(to)), err
}

// hashes are the SHA-256 of the public key of a file, and of the certificate beside it when there is one.
func (k kubelet) hashes(name string) ([]string, error) {
	data, err := k.read(name)
	if err != nil {
		return nil, err
	}
	defer clear(data)
	public, err := publicKey(data)
	if err != nil {
		return nil, err
	}
	out := []string{digest(public)}
	if der := certificate(data); der != nil {
		out = append(out, digest(der))
	}
	return out, nil
}

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// read reads a file of the folder.
func (k kubelet) read(name string) ([]byte, error) {
	path, err := k.resolve(name)
	if err != nil {
		return nil, err
	}
	// What else could lie there must not hold the agent up, and a link leads nowhere.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, errors.New("no regular file")
	}
	data, err := io.ReadAll(io.LimitReader(f, maxKubeletFile+1))
	if err != nil || len(data) > maxKubeletFile {
		clear(data)
		return nil, errors.New("unreadable or too large")
	}
	return data, nil
}

// certificate returns the first certificate in a PEM file, DER; nil when there is none.
func certificate(data []byte) []byte {
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			return nil
		}
		if block.Type == "CERTIFICATE" {
			return block.Bytes
		}
		clear(block.Bytes)
	}
}

// publicKey returns the DER SubjectPublicKeyInfo of the first private key in a PEM file. Its errors hold nothing of the file.
func publicKey(data []byte) ([]byte, error) {
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			return nil, errors.New("no private key")
		}
		if key := privateKey(block); key != nil {
			return x509.MarshalPKIXPublicKey(key.Public())
		}
	}
}

// privateKey reads a private key in any form that a kubelet writes; nil when it is none.
func privateKey(block *pem.Block) crypto.Signer {
	defer clear(block.Bytes)
	switch block.Type {
	case "EC PRIVATE KEY":
		if key, err := x509.ParseECPrivateKey(block.Bytes); err == nil {
			return key
		}
	case "RSA PRIVATE KEY":
		if key, err := x509.ParsePKCS1PrivateKey(block.Bytes); err == nil {
			return key
		}
	case "PRIVATE KEY":
		if key, err := x509.ParsePKCS8PrivateKey(block.Bytes); err == nil {
			signer, _ := key.(crypto.Signer)
			return signer
		}
	}
	return nil
}
