package token

import (
	"errors"
	"fmt"
	"sync"

	"github.com/google/uuid"
)

// ErrRefresh means that a text is no refresh token made under one of the
// keyring's keys.
var ErrRefresh = errors.New("not a refresh token of this server")

// ErrRefreshKey is an ErrRefresh: it is given where the keyring lacks the key that
// a text names. Anyone can make such a text: bound what it makes you do.
var ErrRefreshKey = fmt.Errorf("%w: its key is not in the keyring", ErrRefresh)

// refreshToken is numbered by renewals.
var refreshToken = numbered{version: 1, key: func(k *macKey) *sync.Pool { return k.refresh }}

// Refresh returns the refresh token of a session at a counter: the same one
// each time as long as the active MAC key stays the same. It has 60 characters.
func (k *Keyring) Refresh(session uuid.UUID, counter uint64) string {
	return k.makeNumbered(refreshToken, session, counter)
}

// ParseRefresh returns what a refresh token was made of. For anything else the
// error matches ErrRefresh; for a text of another length, at once.
func (k *Keyring) ParseRefresh(token string) (session uuid.UUID, counter uint64, err error) {
	return k.parseNumbered(refreshToken, token)
}

// appRefresh is numbered by an app's renewals. It opens nothing at the API.
var appRefresh = numbered{version: 3, key: func(k *macKey) *sync.Pool { return k.app }}

// AppRefresh is Refresh for an app's session.
func (k *Keyring) AppRefresh(session uuid.UUID, counter uint64) string {
	return k.makeNumbered(appRefresh, session, counter)
}

// ParseAppRefresh is ParseRefresh for an app's session.
func (k *Keyring) ParseAppRefresh(token string) (session uuid.UUID, counter uint64, err error) {
	return k.parseNumbered(appRefresh, token)
}
