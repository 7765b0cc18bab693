package verify

import (
	"encoding/json"
	"errors"
	"time"
)

// Claims are those of an access token (RFC 9068, section 2.2, and RFC 7519).
// Times are whole seconds.
//
// There is no UnmarshalJSON: unchecked claims are worth nothing, so only Verify reads
// them from a token.
type Claims struct {
	Issuer    string    // iss: the public URL of the server
	Audience  string    // aud: the programs that the token is for; one string, never a list
	Subject   string    // sub: the user's UUID
	ClientID  string    // client_id: the program that the user logged in with
	SessionID string    // sid: the session; all tokens between a login and its logout share it
	ID        string    // jti: this token
	IssuedAt  time.Time // iat
	ExpiresAt time.Time // exp: the first moment at which the token is no longer good
	AuthTime  time.Time // auth_time: when the user gave the password; zero if it is missing
}

// MarshalJSON writes the payload of a token. It refuses claims that lack
// something that Verify requires.
func (c Claims) MarshalJSON() ([]byte, error) {
	w := wire{
		Issuer:    c.Issuer,
		Audience:  c.Audience,
		Subject:   c.Subject,
		ClientID:  c.ClientID,
		SessionID: c.SessionID,
		ID:        c.ID,
		IssuedAt:  seconds(c.IssuedAt),
		ExpiresAt: seconds(c.ExpiresAt),
		AuthTime:  seconds(c.AuthTime),
	}
	if name := w.missing(); name != "" {
		return nil, errors.New("the claim " + name + " is missing")
	}
	return json.Marshal(w)
}

// wire is the JSON of claims. Pointers distinguish a missing time from 1970.
type wire struct {
	Issuer    string `json:"iss"`
	Audience  string `json:"aud"`
	Subject   string `json:"sub"`
	ClientID  string `json:"client_id"`
	SessionID string `json:"sid"`
	ID        string `json:"jti"`
	IssuedAt  *int64 `json:"iat"`
	ExpiresAt *int64 `json:"exp"`
	AuthTime  *int64 `json:"auth_time,omitempty"`
	NotBefore *int64 `json:"nbf,omitempty"` // kwai sets none, but if there is one it counts
}

// missing names the first required claim that isn't there.
func (w *wire) missing() string {
	for _, claim := range [...]struct {
		name  string
		there bool
	}{
		{"iss", w.Issuer != ""}, {"aud", w.Audience != ""}, {"sub", w.Subject != ""}, {"client_id", w.ClientID != ""},
		{"sid", w.SessionID != ""}, {"jti", w.ID != ""}, {"iat", w.IssuedAt != nil}, {"exp", w.ExpiresAt != nil},
	} {
		if !claim.there {
			return claim.name
		}
	}
	return ""
}

// check compares complete claims with what is expected. The end comes last: with
// ErrExpired, all the rest was right.
func (w *wire) check(issuer, audience string, now time.Time) error {
	for _, t := range []*int64{w.IssuedAt, w.ExpiresAt, w.AuthTime, w.NotBefore} {
		if t != nil && (*t < 0 || *t > maxSeconds) {
			return invalid("one of its times is out of range")
		}
	}
	latest := now.Add(leeway)
	switch {
	case w.Issuer != issuer:
		return invalid("it is from another issuer")
	case w.Audience != audience:
		return invalid("it is for another audience")
	case moment(w.IssuedAt).After(latest):
		return invalid("it was issued in the future")
	case moment(w.NotBefore).After(latest):
		return invalid("it is not valid yet")
	case !now.Before(moment(w.ExpiresAt)):
		return ErrExpired
	}
	return nil
}

func (w *wire) claims() *Claims {
	return &Claims{
		Issuer:    w.Issuer,
		Audience:  w.Audience,
		Subject:   w.Subject,
		ClientID:  w.ClientID,
		SessionID: w.SessionID,
		ID:        w.ID,
		IssuedAt:  moment(w.IssuedAt),
		ExpiresAt: moment(w.ExpiresAt),
		AuthTime:  moment(w.AuthTime),
	}
}

// maxSeconds is the end of the year 9999. Far larger numbers would wrap around
// inside time.Time and turn "never" into "long ago", or the other way round.
const maxSeconds = 253402300799

// seconds is t as a NumericDate (RFC 7519, section 2) without a fraction.
func seconds(t time.Time) *int64 {
	if t.IsZero() {
		return nil
	}
	s := t.Unix()
	return &s
}

// moment is the time of a NumericDate, the zero time for none.
func moment(s *int64) time.Time {
	if s == nil {
		return time.Time{}
	}
	return time.Unix(*s, 0).UTC()
}
