package signature

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
)

// object reads one JSON object. Go's decoder would take the last of two equal names, and names in another case: who signs and who verifies could
// then read different documents.
func object(b []byte) (map[string]json.RawMessage, error) {
	d := json.NewDecoder(bytes.NewReader(b))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, errors.New("not a JSON object")
	}
	out := map[string]json.RawMessage{}
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return nil, errors.New("not a JSON object")
		}
		name, ok := t.(string)
		if _, twice := out[name]; !ok || twice {
			return nil, fmt.Errorf("%q is there twice", name)
		}
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return nil, fmt.Errorf("%q is not JSON", name)
		}
		out[name] = value
	}
	if _, err := d.Token(); err != nil {
		return nil, errors.New("the JSON object does not end")
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("there is more behind the JSON object")
	}
	return out, nil
}

// only reads an object that has exactly these names.
func only(b []byte, names ...string) (map[string]json.RawMessage, error) {
	o, err := object(b)
	if err != nil {
		return nil, err
	}
	for _, n := range names {
		if _, ok := o[n]; !ok {
			return nil, fmt.Errorf("%q is missing", n)
		}
	}
	for n := range o {
		if len(o) > len(names) && !slices.Contains(names, n) {
			return nil, fmt.Errorf("%q is not known", n)
		}
	}
	return o, nil
}

// text reads a JSON string.
func text(b json.RawMessage) (string, error) {
	var s *string
	if err := json.Unmarshal(b, &s); err != nil || s == nil {
		return "", errors.New("not a string")
	}
	return *s, nil
}
