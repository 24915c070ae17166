//go:build !pkcs11

package keystore

import "errors"

var errNoPKCS11 = errors.New("this aias was built without PKCS#11: build it with CGO_ENABLED=1 go build -tags pkcs11 ./cmd/aias")

func openPKCS11(PKCS11) (source, error) { return nil, errNoPKCS11 }

// OpenToken opens a token for exchange keys; this aias cannot.
func OpenToken(PKCS11) (*Token, error) { return nil, errNoPKCS11 }
