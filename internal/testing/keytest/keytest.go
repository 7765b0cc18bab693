// Package keytest gives the servers of a process's tests one key for ID tokens: an RSA key
// takes a tenth of a second to make.
package keytest

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"sync"
	"testing"

	"kwai/internal/store"
	"kwai/internal/token"
)

const id = "keyOfIDTokensInTests00"

var plain = sync.OnceValues(func() ([]byte, error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, err
	}
	return x509.MarshalPKCS1PrivateKey(key), nil
})

// Insert adds the key to a database that has none for ID tokens, sealed by its master key.
// It is in use from the time of the store's clock.
func Insert(tb testing.TB, s *store.Store, master *token.Master) {
	tb.Helper()
	key, err := plain()
	if err != nil {
		tb.Fatal(err)
	}
	sealed, err := master.Seal(key, "kwai server key/id/"+id) // as package token does
	if err != nil {
		tb.Fatal(err)
	}
	if err := s.Statement(tb.Context(), func(tx *store.Tx) error {
		return tx.InsertKey(store.Key{ID: id, Purpose: string(token.ID), Sealed: sealed, CreatedAt: tx.Now, ActiveAt: tx.Now})
	}); err != nil {
		tb.Fatal(err)
	}
}
