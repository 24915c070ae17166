package keyprovider

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"

	"touchstone.dev/touchstone/internal/imagekey"
)

// maxMessage bounds a message in bytes. It holds one annotation, twice in base64, and what the runtime adds.
const maxMessage = 256 << 10

const (
	opWrap   = "keywrap"
	opUnwrap = "keyunwrap"
)

// input and output are the JSON of the protocol, as far as unwrapping needs it.
type input struct {
	Op     string       `json:"op"`
	Unwrap unwrapParams `json:"keyunwrapparams"`
}

type unwrapParams struct {
	Config     json.RawMessage `json:"dc,omitempty"` // what the runtime was told about keys; not looked at
	Annotation []byte          `json:"annotation"`
}

type output struct {
	Unwrapped unwrapResults `json:"keyunwrapresults"`
}

type unwrapResults struct {
	Options []byte `json:"optsdata"`
}

// annotation reads what a runtime asks to unwrap.
func annotation(message []byte) ([]byte, error) {
	var in input
	if len(message) > maxMessage {
		return nil, fmt.Errorf("the request has more than %d bytes", maxMessage)
	}
	if err := json.NewDecoder(bytes.NewReader(message)).Decode(&in); err != nil {
		return nil, errors.New("the request is not the JSON of the key provider protocol")
	}
	switch {
	case in.Op == opWrap:
		return nil, errors.New("this key provider only unwraps: encrypt images by `touchstone image encrypt`")
	case in.Op != opUnwrap:
		return nil, fmt.Errorf("operation %.20q: want %s", in.Op, opUnwrap)
	case len(in.Unwrap.Annotation) == 0 || len(in.Unwrap.Annotation) > imagekey.MaxAnnotation:
		return nil, fmt.Errorf("the annotation has %d bytes, want 1 to %d", len(in.Unwrap.Annotation), imagekey.MaxAnnotation)
	}
	return in.Unwrap.Annotation, nil
}
