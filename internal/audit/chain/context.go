package chain

import (
	"fmt"

	"github.com/fxamacker/cbor/v2"
)

// Context says where an event comes from, as the agent found out when it took the event in. It is the agent's word: the kernel's records
// do not hold it.
type Context struct {
	Namespace   string `cbor:"1,keyasint,omitempty" json:"namespace,omitempty"`
	Pod         string `cbor:"2,keyasint,omitempty" json:"pod,omitempty"`
	PodUID      string `cbor:"3,keyasint,omitempty" json:"podUID,omitempty"`
	Container   string `cbor:"4,keyasint,omitempty" json:"container,omitempty"` // name
	ContainerID string `cbor:"5,keyasint,omitempty" json:"containerID,omitempty"`
	Image       string `cbor:"6,keyasint,omitempty" json:"image,omitempty"` // reference
	ImageDigest string `cbor:"7,keyasint,omitempty" json:"imageDigest,omitempty"`
	Unit        string `cbor:"8,keyasint,omitempty" json:"unit,omitempty"`      // of systemd, outside of pods
	User        string `cbor:"9,keyasint,omitempty" json:"user,omitempty"`      // who logged in (auid), by name
	Session     string `cbor:"10,keyasint,omitempty" json:"session,omitempty"`  // of the login
	Terminal    string `cbor:"11,keyasint,omitempty" json:"terminal,omitempty"` // or address that it came from
	// Partial says that records of the event are known to be missing, or that no end of it was seen.
	Partial bool `cbor:"12,keyasint,omitempty" json:"partial,omitempty"`
}

// maxField bounds one field of a context, in bytes; the sum stays below MaxContext.
const maxField = 300

var (
	encoder = must(cbor.EncOptions{Sort: cbor.SortBytewiseLexical, IndefLength: cbor.IndefLengthForbidden, TagsMd: cbor.TagsForbidden}.EncMode())
	decoder = must(cbor.DecOptions{
		DupMapKey: cbor.DupMapKeyEnforcedAPF, IndefLength: cbor.IndefLengthForbidden, TagsMd: cbor.TagsForbidden,
		ExtraReturnErrors: cbor.ExtraDecErrorUnknownField, UTF8: cbor.UTF8RejectInvalid, MaxNestedLevels: 4, MaxMapPairs: 64, MaxArrayElements: 64,
	}.DecMode())
)

// must is for options, which are constant: a wrong one is seen by every test.
func must[M any](m M, err error) M {
	if err != nil {
		panic(err)
	}
	return m
}

func (c *Context) fields() []*string {
	return []*string{&c.Namespace, &c.Pod, &c.PodUID, &c.Container, &c.ContainerID, &c.Image, &c.ImageDigest, &c.Unit, &c.User, &c.Session, &c.Terminal}
}

// encode writes the context as deterministic CBOR; nothing at all for an empty one.
func (c *Context) encode() ([]byte, error) {
	if *c == (Context{}) {
		return nil, nil
	}
	for _, f := range c.fields() {
		if len(*f) > maxField {
			return nil, fmt.Errorf("%w: a field of the context has %d bytes, at most %d", ErrEntry, len(*f), maxField)
		}
	}
	b, err := encoder.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("%w: context: %w", ErrEntry, err)
	}
	return b, nil
}

// ParseContext reads a context. Errors wrap ErrEntry.
func ParseContext(b []byte) (Context, error) {
	var c Context
	if len(b) == 0 {
		return c, nil
	}
	if len(b) > MaxContext {
		return c, fmt.Errorf("%w: a context of %d bytes, at most %d", ErrEntry, len(b), MaxContext)
	}
	if err := decoder.Unmarshal(b, &c); err != nil {
		return c, fmt.Errorf("%w: context: %w", ErrEntry, err)
	}
	for _, f := range c.fields() {
		if len(*f) > maxField {
			return c, fmt.Errorf("%w: a field of the context has %d bytes, at most %d", ErrEntry, len(*f), maxField)
		}
	}
	return c, nil
}
