package result

import (
	"encoding/json"
	"fmt"
	"time"

	"touchstone.dev/touchstone/internal/compliance/verdict"
)

// ImageProfile is the profile of what AIAS says of an image.
const ImageProfile = "tag:touchstone.dev,2026:image-result"

// Image is what AIAS says of the newest scan of a container image by one profile. It is a JWT as a Result is, with a profile of its own, so that neither is taken
// for the other.
type Image struct {
	Manifest  string    `json:"manifest,omitempty"` // digest
	Config    string    `json:"config"`             // digest
	Profile   string    `json:"profile,omitempty"`  // XCCDF; empty: only a feed of vulnerabilities was asked
	Content   string    `json:"content,omitempty"`  // SHA-256, hexadecimal
	Tailoring string    `json:"tailoring,omitempty"`
	Tool      string    `json:"tool,omitempty"` // version of oscap
	Scanned   time.Time `json:"scanned"`
	By        string    `json:"by"` // who sent the result
	Passed    int       `json:"passed"`
	// Failed is how many rules did not pass, by severity: high, medium, low. What could not be decided has not passed.
	Failed map[string]int `json:"failed,omitempty"`
	// Rules are all that were judged, by id, without words on them; Score is in per cent.
	Rules []verdict.Rule `json:"rules,omitempty"`
	Score float64        `json:"score"`
	// FeedMade is when the feed of vulnerabilities was made; zero: none was asked. Flaws is how many the image has, by severity, and Found which.
	FeedMade time.Time      `json:"feed-made,omitzero"`
	Flaws    map[string]int `json:"flaws,omitempty"`
	Found    []verdict.Flaw `json:"found,omitempty"`
	Issued   time.Time      `json:"-"`
	Expires  time.Time      `json:"-"`
}

// maxImageToken is how many bytes a statement on an image may have: it names each rule and each vulnerability.
const maxImageToken = 16 << 20

// Scan returns the scan as package verdict judges it; nil when there was none by a profile.
func (i *Image) Scan() *verdict.Scan {
	if i.Profile == "" {
		return nil
	}
	return &verdict.Scan{Profile: i.Profile, Content: i.Content, Tailoring: i.Tailoring, Tool: i.Tool, At: i.Scanned, Score: i.Score, Passed: i.Passed, Rules: i.Rules}
}

// Vulnerabilities returns what the feed says as package verdict judges it; nil when none was asked.
func (i *Image) Vulnerabilities() *verdict.Flaws {
	if i.FeedMade.IsZero() {
		return nil
	}
	return &verdict.Flaws{Made: i.FeedMade, At: i.Scanned, Found: i.Found}
}

// whole reports whether the statement names what it counts: one of an older AIAS does not.
func (i *Image) whole() bool {
	sum := func(n map[string]int) (all int) {
		for _, v := range n {
			all += v
		}
		return all
	}
	return i.Passed+sum(i.Failed) == len(i.Rules) && sum(i.Flaws) == len(i.Found)
}

type imageClaims struct {
	Profile string `json:"eat_profile"`
	Issued  int64  `json:"iat"`
	Expires int64  `json:"exp"`
	ID      string `json:"jti"`
	Image   Image  `json:"image"`
}

// SignImage returns i as a signed JWT in compact form.
func SignImage(key *Key, i *Image) (string, error) {
	payload, err := json.Marshal(imageClaims{Profile: ImageProfile, Issued: i.Issued.Unix(), Expires: i.Expires.Unix(), ID: NewID(), Image: *i})
	if err != nil {
		return "", fmt.Errorf("sign image result: %w", err)
	}
	jws, err := key.signer.Sign(payload)
	if err != nil {
		return "", fmt.Errorf("sign image result: %w", err)
	}
	return jws.CompactSerialize()
}

// VerifyImage checks what AIAS says of an image, against its keys. digest is that of the manifest or of the configuration.
func VerifyImage(token string, jwks []byte, digest string, now time.Time) (*Image, error) {
	payload, err := authentic(token, jwks, maxImageToken)
	if err != nil {
		return nil, err
	}
	var c imageClaims
	if err := json.Unmarshal(payload, &c); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrForm, err)
	}
	i := &c.Image
	i.Issued, i.Expires = time.Unix(c.Issued, 0).UTC(), time.Unix(c.Expires, 0).UTC()
	switch {
	case c.Profile != ImageProfile || i.Config == "":
		return nil, fmt.Errorf("%w: not a result of profile %s", ErrForm, ImageProfile)
	case digest == "" || digest != i.Manifest && digest != i.Config:
		return nil, fmt.Errorf("%w: image %q, want %q", ErrOther, i.Manifest, digest)
	case !now.Before(i.Expires):
		return nil, fmt.Errorf("%w: at %s", ErrExpired, i.Expires.Format(time.RFC3339))
	case i.Issued.After(now.Add(clockSkew)) || i.Scanned.After(now.Add(clockSkew)):
		return nil, fmt.Errorf("%w: of the future: check the clocks", ErrForm)
	}
	if !i.whole() {
		return nil, fmt.Errorf("%w: it counts rules or vulnerabilities that it does not name: AIAS is of an older version", ErrForm)
	}
	return i, nil
}
