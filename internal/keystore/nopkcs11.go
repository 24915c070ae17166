//go:build !pkcs11

package keystore

import "errors"

func openPKCS11(PKCS11) (source, error) {
	return nil, errors.New("keys.pkcs11: this aias was built without PKCS#11: build it with CGO_ENABLED=1 go build -tags pkcs11 ./cmd/aias")
}
