package device

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"touchstone.dev/touchstone/internal/tpm"
)

// ErrClosed says that the TPM was closed.
var ErrClosed = errors.New("the TPM is closed")

// TPM is an open TPM. It is safe for concurrent use: one operation runs at a time.
type TPM struct {
	address string

	mu     sync.Mutex // held for a whole operation, so that its keys and sessions find room
	link   transport.TPMCloser
	closed bool
	keys   map[string]*Key         // made in this process, by template name
	loaded map[tpm2.TPMHandle]bool // keys that the operation under way has loaded
}

// Close closes the TPM. Nothing stays loaded in it. A second call does nothing.
func (t *TPM) Close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return nil
	}
	t.closed = true
	return t.link.Close()
}

// Address returns what Open was given.
func (t *TPM) Address() string { return t.address }

// do runs one operation alone.
func (t *TPM) do(what string, f func() error) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	err := ErrClosed
	if !t.closed {
		err = f()
	}
	if err != nil {
		return fmt.Errorf("TPM: %s: %w", what, err)
	}
	return nil
}

// Info describes a TPM (TPM_PT, part 2, 6.13).
type Info struct {
	Manufacturer    string // "IFX", "STM", "IBM" ...
	Vendor          string // vendor string: model
	FirmwareVersion uint64 // as in a quote, vendor specific
	Revision        uint32 // revision of the specification times 100: 138, 159, 164
}

// Info reads what the TPM says about itself. Nothing proves it but an EK certificate.
func (t *TPM) Info() (Info, error) {
	var info Info
	err := t.do("read properties", func() error {
		p, err := t.properties(tpm2.TPMPTFamilyIndicator, 16)
		if err != nil {
			return err
		}
		info.Manufacturer = text(p[tpm2.TPMPTManufacturer])
		for _, part := range []tpm2.TPMPT{tpm2.TPMPTVendorString1, tpm2.TPMPTVendorString2, tpm2.TPMPTVendorString3, tpm2.TPMPTVendorString4} {
			info.Vendor += text(p[part])
		}
		info.Vendor = strings.TrimSpace(info.Vendor)
		info.FirmwareVersion = uint64(p[tpm2.TPMPTFirmwareVersion1])<<32 | uint64(p[tpm2.TPMPTFirmwareVersion2])
		info.Revision = p[tpm2.TPMPTRevision]
		return nil
	})
	return info, err
}

// text reads the four characters of a property, without padding.
func text(v uint32) string {
	return strings.Trim(string(binary.BigEndian.AppendUint32(nil, v)), "\x00")
}

func (t *TPM) properties(first tpm2.TPMPT, count uint32) (map[tpm2.TPMPT]uint32, error) {
	rsp, err := tpm2.GetCapability{Capability: tpm2.TPMCapTPMProperties, Property: uint32(first), PropertyCount: count}.Execute(t.link)
	if err != nil {
		return nil, err
	}
	list, err := rsp.CapabilityData.Data.TPMProperties()
	if err != nil {
		return nil, err
	}
	out := make(map[tpm2.TPMPT]uint32, len(list.TPMProperty))
	for _, p := range list.TPMProperty {
		out[p.Property] = p.Value
	}
	return out, nil
}

// handles lists the handles from first to last that exist.
func (t *TPM) handles(first, last uint32) ([]tpm2.TPMHandle, error) {
	var out []tpm2.TPMHandle
	for first <= last {
		rsp, err := tpm2.GetCapability{Capability: tpm2.TPMCapHandles, Property: first, PropertyCount: 64}.Execute(t.link)
		if err != nil {
			return nil, err
		}
		list, err := rsp.CapabilityData.Data.Handles()
		if err != nil {
			return nil, err
		}
		for _, h := range list.Handle {
			if uint32(h) < first || uint32(h) > last {
				return out, nil
			}
			out = append(out, h)
			first = uint32(h) + 1
		}
		if len(list.Handle) == 0 || !rsp.MoreData {
			break
		}
	}
	return out, nil
}

// Banks returns the active PCR banks that can be replayed, weakest first. A bank with another hash (SM3) is left out: nothing
// could judge it.
func (t *TPM) Banks() ([]tpm.Alg, error) {
	var active []tpm.Alg
	err := t.do("list PCR banks", func() error {
		rsp, err := tpm2.GetCapability{Capability: tpm2.TPMCapPCRs, PropertyCount: 1}.Execute(t.link)
		if err != nil {
			return err
		}
		list, err := rsp.CapabilityData.Data.AssignedPCR()
		if err != nil {
			return err
		}
		for _, s := range list.PCRSelections {
			if slices.ContainsFunc(s.PCRSelect, func(b byte) bool { return b != 0 }) {
				active = append(active, tpm.Alg(s.Hash))
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	var out []tpm.Alg
	for _, a := range tpm.HashAlgs {
		if slices.Contains(active, a) {
			out = append(out, a)
		}
	}
	return out, nil
}
