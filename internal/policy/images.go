package policy

import (
	"slices"
	"strings"
)

// Images says which scans of container images count that workers make.
type Images struct {
	// Workers says whose count: nobody's but those of operators (none), or those of workers that were trusted when they made them (trusted).
	Workers string `json:"workers,omitempty" words:"none trusted"`
	// Content are the SHA-256 of content that workers may scan by, or the word baseline; empty: any.
	Content []string `json:"content,omitempty"`
	// Tailorings are the SHA-256 of tailorings that they may use; empty: none.
	Tailorings []string `json:"tailorings,omitempty"`
	// MaxAge is how old the newest scan of an image may get before a worker makes another one; 0: 144h.
	MaxAge Duration `json:"maxAge,omitempty"`
	// Revoke is how far back a worker that loses trust loses the scans that it made; 0: 24h.
	Revoke Duration `json:"revoke,omitempty"`
}

// Allows reports whether workers may scan by content and tailoring (SHA-256; the latter may be empty).
func (i *Images) Allows(sum, tailoring string) bool {
	return (len(i.Content) == 0 || slices.Contains(digests(i.Content), sum)) && (tailoring == "" || slices.Contains(i.Tailorings, tailoring))
}

func (i *Images) validate(e *errs) {
	for name, list := range map[string][]string{"content": digests(i.Content), "tailorings": i.Tailorings} {
		for _, d := range list {
			if !isDigest(d) || d != strings.ToLower(d) {
				e.add("runtime.images.%s: %q is not a SHA-256 in lower case", name, d)
			}
		}
	}
	if i.MaxAge.Duration < 0 || i.Revoke.Duration < 0 {
		e.add("runtime.images: maxAge and revoke must not be negative")
	}
}
