package evidence

import (
	"crypto/ecdsa"
	"crypto/rsa"
	"encoding/asn1"
	"encoding/binary"
	"errors"
	"fmt"
	"math/big"

	"touchstone.dev/touchstone/internal/tpm"
)

// packSignature returns b as TPMT_SIGNATURE. What tpm2_quote writes with --format plain names neither scheme nor hash: they come from
// the public area of the key. A PEM has none: then the hash is that of the PCR digest in the quote, which has the same (TPM 2.0 Part 3,
// TPM2_Quote), and the scheme of an RSA key is the one by which the signature of message is valid.
func packSignature(b, ak, message []byte, quote *tpm.Quote) ([]byte, error) {
	_, err := tpm.ParseSignature(b)
	if err == nil {
		return b, nil
	}
	if len(ak) == 0 {
		return nil, fmt.Errorf("want TPMT_SIGNATURE (tpm2_quote --format tss); a plain signature needs the attestation key beside it: %w", err)
	}
	key, kerr := tpm.ParsePublic(ak)
	if kerr != nil {
		return nil, kerr
	}
	plain, perr := fromPlain(b, message, key, quote)
	if perr != nil {
		return nil, fmt.Errorf("neither TPMT_SIGNATURE (%w) nor a plain signature (%w)", err, perr)
	}
	return plain, nil
}

// plainHash is the hash of a signature that does not name it.
func plainHash(key *tpm.Public, quote *tpm.Quote) tpm.Alg {
	if key.SchemeHash.Hash() != 0 {
		return key.SchemeHash
	}
	for _, a := range []tpm.Alg{tpm.AlgSHA256, tpm.AlgSHA384, tpm.AlgSHA512} {
		if quote != nil && len(quote.PCRDigest) == a.Size() {
			return a
		}
	}
	return tpm.AlgSHA256
}

func fromPlain(b, message []byte, key *tpm.Public, quote *tpm.Quote) ([]byte, error) {
	hash := plainHash(key, quote)
	head := func(scheme tpm.Alg) []byte {
		return binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, uint16(scheme)), uint16(hash))
	}
	sized := func(out, b []byte) []byte {
		return append(binary.BigEndian.AppendUint16(out, uint16(len(b))), b...)
	}
	switch k := key.Key.(type) {
	case *rsa.PublicKey:
		if len(b) != k.Size() {
			return nil, fmt.Errorf("%d bytes for an RSA key of %d", len(b), k.Size())
		}
		pss := sized(head(tpm.AlgRSAPSS), b)
		if key.SchemeAlg == tpm.AlgRSAPSS || key.SchemeAlg != tpm.AlgRSASSA && valid(key, message, pss) {
			return pss, nil
		}
		return sized(head(tpm.AlgRSASSA), b), nil
	case *ecdsa.PublicKey:
		var rs struct{ R, S *big.Int }
		if rest, err := asn1.Unmarshal(b, &rs); err != nil || len(rest) > 0 {
			return nil, errors.New("not the DER of an ECDSA signature")
		}
		n := (k.Curve.Params().BitSize + 7) / 8
		if rs.R.Sign() <= 0 || rs.S.Sign() <= 0 || rs.R.BitLen() > 8*n || rs.S.BitLen() > 8*n {
			return nil, errors.New("numbers of the ECDSA signature do not fit the curve of the key")
		}
		out := sized(head(tpm.AlgECDSA), rs.R.FillBytes(make([]byte, n)))
		return sized(out, rs.S.FillBytes(make([]byte, n))), nil
	}
	return nil, errors.New("key is neither RSA nor ECC")
}

func valid(key *tpm.Public, message, signature []byte) bool {
	s, err := tpm.ParseSignature(signature)
	return err == nil && key.Verify(message, s) == nil
}
