package luks

import (
	"crypto/sha1" //nolint:gosec // old clevis names keys by it
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// protected is the protected header of a JWE by clevis: what of it is needed to open it stays out (epk, the private half of tpm2).
type protected struct {
	Clevis clevis `json:"clevis"`
	Kid    string `json:"kid,omitempty"`
}

type clevis struct {
	Pin  string      `json:"pin"`
	Tang *tangPin    `json:"tang,omitempty"`
	TPM2 *tpm2Pin    `json:"tpm2,omitempty"`
	SSS  *sharingPin `json:"sss,omitempty"`
}

type tangPin struct {
	URL string `json:"url"`
	Adv struct {
		Keys []publicKey `json:"keys"`
	} `json:"adv"`
}

// publicKey is the public half of an EC key; the order of the fields is that of RFC 7638, 3.2.
type publicKey struct {
	Crv string `json:"crv"`
	Kty string `json:"kty"`
	X   string `json:"x"`
	Y   string `json:"y"`
}

type tpm2Pin struct {
	Bank string `json:"pcr_bank,omitempty"`
	PCRs string `json:"pcr_ids,omitempty"`
}

type sharingPin struct {
	Threshold int      `json:"t"`
	JWE       []string `json:"jwe"`
}

var errClevis = errors.New("the header of clevis cannot be read")

// readProtected reads a protected header in base64url (RFC 7515, 2).
func readProtected(s string) (*protected, error) {
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil {
		return nil, errClevis
	}
	var p protected
	if err := json.Unmarshal(b, &p); err != nil {
		return nil, errClevis
	}
	return &p, nil
}

// stripProtected leaves out what opens, in it and in the shares within.
func stripProtected(s string, depth int) (string, error) {
	p, err := readProtected(s)
	if err != nil {
		return "", err
	}
	if t := p.Clevis.Tang; t != nil {
		t.Adv.Keys = t.Adv.Keys[:min(len(t.Adv.Keys), maxWays)]
	}
	if sss := p.Clevis.SSS; sss != nil {
		if depth == maxDepth || len(sss.JWE) > maxWays {
			return "", errClevis
		}
		for i, share := range sss.JWE {
			head, _, _ := strings.Cut(share, ".") // RFC 7516, 7.1: the protected header comes first
			if sss.JWE[i], err = stripProtected(head, depth+1); err != nil {
				return "", err
			}
		}
	}
	b, err := json.Marshal(p)
	if err != nil {
		return "", errClevis
	}
	return base64.RawURLEncoding.EncodeToString(b), nil
}

// way is what a token says about how to open its slots.
func (t *token) way() Way {
	switch t.Type {
	case "clevis":
		if t.JWE == nil {
			return Way{Pin: PinUnknown, By: "clevis", Note: errClevis.Error()}
		}
		return clevisWay(t.JWE.Protected, 0)
	case "systemd-tpm2":
		w := Way{Pin: PinTPM2, By: t.Type, PCRs: numbers(t.PCRs), Bank: shown(t.Bank), PIN: t.PIN}
		if w.PCRs == "" && len(t.Signed) > 0 {
			w.PCRs = "signed " + numbers(t.Signed)
		}
		return w
	case "systemd-fido2":
		return Way{Pin: PinFIDO2, By: t.Type, PIN: t.UserPIN}
	case "systemd-pkcs11":
		return Way{Pin: PinPKCS11, By: t.Type}
	case "systemd-recovery":
		return Way{Pin: PinRecovery, By: t.Type}
	case "luks2-keyring":
		return Way{Pin: PinKeyring, By: t.Type}
	}
	return Way{Pin: PinUnknown, By: shown(t.Type), Note: "a token of a type that is not known here"}
}

// clevisWay reads what clevis bound.
func clevisWay(s string, depth int) Way {
	unread := Way{Pin: PinUnknown, By: "clevis", Note: errClevis.Error()}
	s, _, _ = strings.Cut(s, ".")
	p, err := readProtected(s)
	if err != nil {
		return unread
	}
	c := &p.Clevis
	switch {
	case c.Pin == PinTang && c.Tang != nil:
		return Way{Pin: PinTang, By: "clevis", URL: shown(c.Tang.URL), Key: c.Tang.thumbprint(p.Kid)}
	case c.Pin == PinTPM2 && c.TPM2 != nil:
		return Way{Pin: PinTPM2, By: "clevis", PCRs: shown(c.TPM2.PCRs), Bank: shown(c.TPM2.Bank)}
	case c.Pin == PinSharing && c.SSS != nil:
		sss := c.SSS
		if depth == maxDepth || len(sss.JWE) > maxWays || sss.Threshold < 1 || sss.Threshold > len(sss.JWE) {
			return unread
		}
		w := Way{Pin: PinSharing, By: "clevis", Threshold: sss.Threshold}
		for _, share := range sss.JWE {
			w.Ways = append(w.Ways, clevisWay(share, depth+1))
		}
		return w
	}
	unread.Note = fmt.Sprintf("the pin %s of clevis, which is not known here", strconv.Quote(shown(c.Pin)))
	return unread
}

// thumbprint is the SHA-256 one of the key that kid names, which old clevis does by SHA-1. A kid of none of the advertised keys stays as it is.
func (t *tangPin) thumbprint(kid string) string {
	for _, k := range t.Adv.Keys {
		b, err := json.Marshal(k)
		if err != nil {
			continue
		}
		s1, s256, s224, s384, s512 := sha1.Sum(b), sha256.Sum256(b), sha256.Sum224(b), sha512.Sum384(b), sha512.Sum512(b) //nolint:gosec // a name
		for _, sum := range [][]byte{s256[:], s1[:], s224[:], s384[:], s512[:]} {
			if base64.RawURLEncoding.EncodeToString(sum) == kid {
				return base64.RawURLEncoding.EncodeToString(s256[:])
			}
		}
	}
	return shown(kid)
}

// numbers joins numbers of PCRs.
func numbers(v []int) string {
	var s []string
	for _, n := range v[:min(len(v), maxSlots)] {
		s = append(s, strconv.Itoa(n))
	}
	return strings.Join(s, ",")
}
