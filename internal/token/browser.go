package token

import (
	"crypto/hmac"
	"encoding/base64"
	"encoding/hex"
	"strconv"
	"strings"
	"sync"

	"github.com/google/uuid"
)

// browserToken is numbered by the proofs that were given in the session.
var browserToken = numbered{version: 2, key: func(k *macKey) *sync.Pool { return k.browser }}

// Browser returns the value of a browser session's cookie at a number, which each
// proof raises. It has 60 characters.
func (k *Keyring) Browser(session uuid.UUID, number uint64) string {
	return k.makeNumbered(browserToken, session, number)
}

// ParseBrowser returns what the value of a cookie was made of. For anything else the
// error matches ErrRefresh.
func (k *Keyring) ParseBrowser(value string) (session uuid.UUID, number uint64, err error) {
	return k.parseNumbered(browserToken, value)
}

// FormMAC binds a form to what it is for: the session that it was made in, the user,
// and what else the parts say. Whoever sends the form must send the value with it.
func (k *Keyring) FormMAC(parts ...string) string {
	return formMAC(k.active, parts)
}

// CheckFormMAC reports whether the value was made for the same parts.
func (k *Keyring) CheckFormMAC(value string, parts ...string) bool {
	id, _, _ := strings.Cut(value, ".")
	raw, ok := parseMACID(id)
	key := k.macs[raw]
	return ok && key != nil && hmac.Equal([]byte(value), []byte(formMAC(key, parts)))
}

func formMAC(key *macKey, parts []string) string {
	var text strings.Builder
	for _, p := range parts { // with their lengths: no two lists look the same
		text.WriteString(strconv.Itoa(len(p)))
		text.WriteByte(':')
		text.WriteString(p)
	}
	sum := sumString(key.form, text.String())
	return hex.EncodeToString(key.id[:]) + "." + base64.RawURLEncoding.EncodeToString(sum[:])
}
