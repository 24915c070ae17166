package release

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"touchstone.dev/touchstone/internal/assettag"
)

// Conditions are what a node must meet, in the words of a TrustClass.
type Conditions struct {
	// Levels that must hold (pass or warn); none: all five.
	Levels []int32 `json:"levels,omitempty"`
	// Warnings says whether a level with warnings holds; empty: Allow.
	Warnings string `json:"warnings,omitempty"`
	// SoftwareTPM says whether the TPM may be a program; empty: Deny.
	SoftwareTPM string `json:"softwareTPM,omitempty"`
	// MaxResultAge is how old the result may be, if that is sooner than its expiry.
	MaxResultAge *Duration `json:"maxResultAge,omitempty"`
	// Tags are asset tags that the node must have, each with one of the values.
	Tags map[string][]string `json:"tags,omitempty"`
}

// Words of conditions.
const (
	Allow = "Allow"
	Deny  = "Deny"
)

// Bounds, those of a TrustClass.
const (
	maxTags   = 16
	maxValues = 32
	maxBytes  = 64 << 10 // of conditions as JSON
)

// Duration is a time.Duration written as "10m" or "24h".
type Duration time.Duration

// UnmarshalText reads a Go duration.
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	if err != nil {
		return fmt.Errorf("duration %q: write it like 90s, 10m or 24h", b)
	}
	*d = Duration(v)
	return nil
}

// MarshalText writes a Go duration.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// Parse reads conditions, strictly: an unknown field or word is an error, never ignored. It may be a demand that an older program does not know.
func Parse(b []byte) (Conditions, error) {
	var c Conditions
	if len(b) > maxBytes {
		return c, fmt.Errorf("conditions of a release: %d bytes, want at most %d", len(b), maxBytes)
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&c); err != nil {
		return Conditions{}, fmt.Errorf("conditions of a release: %w", err)
	}
	if _, err := d.Token(); err != io.EOF {
		return Conditions{}, errors.New("conditions of a release: there is more after them")
	}
	if err := c.Validate(); err != nil {
		return Conditions{}, err
	}
	return c, nil
}

// Validate says what no node could meet, or nobody can have meant.
func (c *Conditions) Validate() error {
	bad := func(format string, a ...any) error { return fmt.Errorf("conditions of a release: "+format, a...) }
	for i, l := range c.Levels {
		if l < 1 || l > 5 || slices.Contains(c.Levels[:i], l) {
			return bad("levels %v: want some of 1 to 5, each once", c.Levels)
		}
	}
	for _, w := range []struct{ name, word string }{{"warnings", c.Warnings}, {"softwareTPM", c.SoftwareTPM}} {
		if w.word != "" && w.word != Allow && w.word != Deny {
			return bad("%s %q: want %s or %s", w.name, w.word, Allow, Deny)
		}
	}
	if c.MaxResultAge != nil && *c.MaxResultAge <= 0 {
		return bad("maxResultAge %s: want more than nothing", time.Duration(*c.MaxResultAge))
	}
	if len(c.Tags) > maxTags {
		return bad("%d tags, want at most %d", len(c.Tags), maxTags)
	}
	for name, values := range c.Tags {
		if len(values) == 0 || len(values) > maxValues {
			return bad("tag %s has %d values, want 1 to %d", name, len(values), maxValues)
		}
		for _, v := range values {
			if err := assettag.Validate(map[string]string{name: v}); err != nil {
				return bad("%w", err)
			}
		}
	}
	return nil
}
