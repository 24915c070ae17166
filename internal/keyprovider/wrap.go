package keyprovider

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"sync"
	"time"

	"touchstone.dev/touchstone/internal/imagekey"
)

// keyLife is how long after its last use the key of an image takes further layers.
const keyLife = 10 * time.Minute

// maxImages bounds how many keys of images are in memory at a time.
const maxImages = 256

var (
	className = regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$`)
	imageName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._:/@-]{0,511}$`)
)

// ErrParameter says that a client did not say, or not so that it can be read, who may open the image.
var ErrParameter = errors.New("who may open the image? Want --encryption-key provider:" + imagekey.Provider + ":CLASS or provider:" + imagekey.Provider + ":CLASS@IMAGE")

// NewKey makes a key at AIAS for workers that meet a trust class.
type NewKey func(ctx context.Context, class, image string) (id string, key []byte, err error)

// Wrapper wraps the options of layers for clients that encrypt images (skopeo, buildah, whoever uses ocicrypt). The protocol says of a layer nothing but
// its options, so the client names the class and the image in the parameter of the provider: layers of one image get one key, and those of an image
// without a name get one each.
type Wrapper struct {
	New NewKey
	Now func() time.Time

	mu   sync.Mutex
	made map[wish]*madeKey
}

// wish is what a client said.
type wish struct{ class, image string }

// madeKey is a key of an image. Whoever makes it holds mu.
type madeKey struct {
	mu   sync.Mutex
	id   string
	key  []byte
	used time.Time
}

// Wrap answers a message of the key provider protocol that asks to wrap.
func (w *Wrapper) Wrap(ctx context.Context, message []byte) ([]byte, error) {
	want, options, err := wrapping(message)
	if err != nil {
		return nil, err
	}
	id, key, err := w.key(ctx, want)
	if err != nil {
		return nil, err
	}
	sealed, err := imagekey.Seal(key, imagekey.Annotation{Key: id}, options)
	if err != nil {
		return nil, err
	}
	return json.Marshal(wrapOutput{wrapResults{sealed}})
}

// key returns the key of an image, which is made when its first layer comes.
func (w *Wrapper) key(ctx context.Context, want wish) (string, []byte, error) {
	if want.image == "" {
		return w.New(ctx, want.class, "")
	}
	k, err := w.of(want)
	if err != nil {
		return "", nil, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.key == nil {
		if k.id, k.key, err = w.New(ctx, want.class, want.image); err != nil {
			return "", nil, err
		}
	}
	return k.id, k.key, nil
}

// of returns the place of the key of an image, and forgets those that were not used for long.
func (w *Wrapper) of(want wish) (*madeKey, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := w.Now()
	for other, k := range w.made {
		if now.Sub(k.used) > keyLife {
			delete(w.made, other)
		}
	}
	k := w.made[want]
	if k == nil {
		if len(w.made) >= maxImages {
			return nil, fmt.Errorf("%d images are being encrypted: try again later", maxImages)
		}
		if w.made == nil {
			w.made = map[wish]*madeKey{}
		}
		k = &madeKey{}
		w.made[want] = k
	}
	k.used = now
	return k, nil
}

type wrapInput struct {
	Op   string     `json:"op"`
	Wrap wrapParams `json:"keywrapparams"`
}

type wrapParams struct {
	Config  encryptConfig `json:"ec"`
	Options []byte        `json:"optsdata"`
}

type encryptConfig struct {
	Parameters map[string][][]byte `json:"Parameters"`
}

type wrapOutput struct {
	Wrapped wrapResults `json:"keywrapresults"`
}

type wrapResults struct {
	Annotation []byte `json:"annotation"`
}

// wrapping reads what a client asks to wrap, and for whom.
func wrapping(message []byte) (wish, []byte, error) {
	var in wrapInput
	if len(message) > maxMessage {
		return wish{}, nil, fmt.Errorf("the request has more than %d bytes", maxMessage)
	}
	if err := json.NewDecoder(bytes.NewReader(message)).Decode(&in); err != nil {
		return wish{}, nil, errors.New("the request is not the JSON of the key provider protocol")
	}
	switch {
	case in.Op == opUnwrap:
		return wish{}, nil, errors.New("this key provider only wraps: images are opened on workers, by trust-agent")
	case in.Op != opWrap:
		return wish{}, nil, fmt.Errorf("operation %.20q: want %s", in.Op, opWrap)
	case len(in.Wrap.Options) == 0 || len(in.Wrap.Options) > imagekey.MaxOptions || !json.Valid(in.Wrap.Options):
		return wish{}, nil, fmt.Errorf("the options of the layer have %d bytes, or are no JSON: want 1 to %d", len(in.Wrap.Options), imagekey.MaxOptions)
	}
	said := in.Wrap.Config.Parameters[imagekey.Provider]
	if len(said) != 1 {
		return wish{}, nil, fmt.Errorf("%w, once", ErrParameter)
	}
	class, image, named := strings.Cut(string(said[0]), "@")
	if !className.MatchString(class) || named && !imageName.MatchString(image) {
		return wish{}, nil, fmt.Errorf("%w: not %.80q", ErrParameter, said[0])
	}
	return wish{class, image}, in.Wrap.Options, nil
}
