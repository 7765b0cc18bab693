// Package totp is an authenticator app for tests, written from RFC 4226 and RFC 6238 and
// not from kwai's own code.
package totp

import (
	"crypto/hmac"
	"crypto/sha1" //nolint:gosec // RFC 6238's default
	"encoding/base32"
	"encoding/binary"
	"fmt"
	"math"
	"strings"
	"time"
)

// Code is what an app shows at that time for a secret as people type it. It panics if
// that is no base32.
func Code(secret string, at time.Time) string {
	key, err := base32.StdEncoding.WithPadding(base32.NoPadding).DecodeString(strings.ReplaceAll(secret, " ", ""))
	if err != nil {
		panic(err)
	}
	counter := make([]byte, 8)
	binary.BigEndian.PutUint64(counter, uint64(math.Floor(float64(at.Unix())/30)))
	mac := hmac.New(sha1.New, key)
	mac.Write(counter)
	sum := mac.Sum(nil)
	cut := sum[sum[19]&15:][:4]
	number := uint32(cut[0]&127)<<24 | uint32(cut[1])<<16 | uint32(cut[2])<<8 | uint32(cut[3])
	return fmt.Sprintf("%06d", number%1_000_000)
}
