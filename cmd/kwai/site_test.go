package main

import (
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"

	"kwai/internal/testing/mailtest"
)

const userPath = "/api/v1/auth/user"

// wait returns the mails once there are n.
func wait(t testing.TB, mails *mailtest.Server, n int) []mailtest.Mail {
	t.Helper()
	all, err := mails.Wait(t.Context(), n)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// recovery asks for a mail and returns the unique id in it.
func (s *site) recovery(mails *mailtest.Server, email string) string {
	s.tb.Helper()
	n := len(mails.Mails())
	if a := s.post("recover", "", "email", email); a.Status != 200 {
		s.tb.Fatal(a)
	}
	id := wait(s.tb, mails, n+1)[n].RecoveryID()
	if id == "" {
		s.tb.Fatalf("the mail has no unique id: %s", mails.Mails()[n].Text)
	}
	return id
}

func decode(t testing.TB, part string) []byte {
	t.Helper()
	b, err := base64.RawURLEncoding.DecodeString(part)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// object is a part of a token.
type object = map[string]any

// partsOf are an access token's header and claims, unchecked.
func partsOf(t testing.TB, access string) (header, claims object) {
	t.Helper()
	parts := strings.Split(access, ".")
	if len(parts) != 3 {
		t.Fatalf("not a JWT: %s", access)
	}
	if json.Unmarshal(decode(t, parts[0]), &header) != nil || json.Unmarshal(decode(t, parts[1]), &claims) != nil {
		t.Fatalf("not a JWT: %s", access)
	}
	return header, claims
}
