// Package keytest has a key for all tests of a process: an RSA key takes a tenth of a
// second to make.
package keytest

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"sync"
)

// The id and the context of the key in the keyring, see package token.
const (
	ID      = "keyOfIDTokensInTests00"
	Context = "kwai server key/id/" + ID
)

// Plain is the key, as it is sealed.
var Plain = sync.OnceValue(func() []byte {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return x509.MarshalPKCS1PrivateKey(key)
})
