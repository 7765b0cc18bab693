package auth

import (
	"crypto/hmac"
	"crypto/sha1" //nolint:gosec // RFC 6238's default, and all that common apps know; HMAC is sound with it
	"crypto/subtle"
	"encoding/base32"
	"encoding/binary"
	"fmt"
	"net/url"
	"strings"
	"time"
	"unicode"
)

// One-time codes of authenticator apps: RFC 6238 with the parameters that all of them
// know.
const (
	totpPeriod = 30 * time.Second
	totpDigits = 6
	totpSecret = 20 // bytes: the output of SHA-1 (RFC 4226, section 4, R6)
	totpSlack  = 1  // steps before and after this one that are good, too (RFC 6238, section 5.2)
)

// stepOf is the number of the time step (RFC 6238, section 4.2).
func stepOf(t time.Time) int64 { return t.Unix() / int64(totpPeriod/time.Second) }

// codeOf is the code of a step (RFC 4226, section 5.3).
func codeOf(secret []byte, step int64) string {
	mac := hmac.New(sha1.New, secret)
	_ = binary.Write(mac, binary.BigEndian, step) // a hash returns no error
	sum := mac.Sum(nil)
	offset := sum[len(sum)-1] & 0xf
	n := binary.BigEndian.Uint32(sum[offset:]) & 0x7fffffff
	return fmt.Sprintf("%06d", n%1_000_000)
}

// matchCode finds the step that a code is of, among those that are good now; false if
// it is of none. All are computed, whichever matches.
func matchCode(secret []byte, code string, now time.Time) (step int64, ok bool) {
	for s := stepOf(now) - totpSlack; s <= stepOf(now)+totpSlack; s++ {
		if subtle.ConstantTimeCompare([]byte(codeOf(secret, s)), []byte(code)) == 1 {
			step, ok = s, true
		}
	}
	return step, ok
}

// secretText is a secret as people type it, and as the address in the QR code has it.
func secretText(secret []byte) string {
	return base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(secret)
}

// keyURI is the address that authenticator apps read from a QR code: the otpauth scheme
// of Google's Key Uri Format, which all of them know.
func keyURI(service, email string, secret []byte) string {
	label := url.PathEscape(service + ":" + email)
	// Some apps show a plus sign where a space stands for it.
	query := strings.ReplaceAll(url.Values{"secret": {secretText(secret)}, "issuer": {service}}.Encode(), "+", "%20")
	return "otpauth://totp/" + label + "?" + query
}

// plainCode is a code as it was meant: without spaces, dashes and dots, and with the
// digits of other scripts as the same digits.
func plainCode(typed string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r) || unicode.In(r, unicode.Pd) || r == '.' || unicode.Is(unicode.Cf, r):
			return -1
		case r > unicode.MaxASCII && unicode.IsDigit(r):
			return digit(r)
		}
		return unicode.ToUpper(r)
	}, typed)
}

// digit is a digit of any script: Unicode has them in runs of ten, from zero on, some of
// which follow each other.
func digit(r rune) rune {
	first := r
	for unicode.IsDigit(first - 1) {
		first--
	}
	return '0' + (r-first)%10
}
