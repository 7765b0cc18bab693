package auth_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"

	"kwai/internal/auth"
)

func TestNamesThatDeceiveAreRefused(t *testing.T) {
	each(t, func(t *testing.T, s *server, _ *clock) {
		n := 0
		for name, good := range map[string]bool{
			"":                              true,
			"Ann":                           true,
			"  Ann Mary O'Néill-Müller  ":   true,
			"嘉納 治五郎":                        true,
			"शीला":                          true,
			"עדה":                           true,
			strings.Repeat("é", 100):        true,
			strings.Repeat("é", 101):        false,
			"Ann\nBcc: bob@example.org":     false,
			"Ann\r":                         true, // trimmed
			"Ann\tOther":                    false,
			"Ann\x00":                       false,
			"Ann\x1b[31m":                   false,
			"Ann\u202eymmuD":                false,
			"Ann\u2067":                     false,
			"Ann\u200b":                     false,
			"Ann\u2028Other":                false,
			"Ann\ufeff":                     false,
			"Ann\u00ad":                     false,
			"Ann\ue000":                     false,
			"Ann\xff":                       false,
			"Ann" + string(rune(0xe0041)):   false, // a tag
			strings.Repeat("Ann ", 1<<16):   false,
			"Ann" + strings.Repeat("n", 98): false,
		} {
			for _, user := range []auth.NewUser{{FirstName: name, LastName: "Other"}, {FirstName: "Ann", LastName: name}} {
				n++
				user.Email, user.Password = fmt.Sprintf("user%d@example.org", n), oldPassword
				_, err := s.CreateUser(t.Context(), user)
				if want := map[bool]auth.Code{true: 0, false: auth.Invalid}[good]; auth.CodeOf(err) != want || good && err != nil {
					t.Errorf("%.40q: error %v", name, err)
				}
			}
		}
	})
}

func TestAccounts(t *testing.T) {
	each(t, func(t *testing.T, s *server, _ *clock) {
		var want []string
		for i := range 3 {
			email := fmt.Sprintf("User%d@example.org", i)
			id := must(s.CreateUser(t.Context(), auth.NewUser{Email: " " + email + "\n", FirstName: " Ann ", LastName: "Other", Password: oldPassword}))(t)
			// A v7 would show when the account was made.
			if v := uuid.MustParse(id).Version(); v != 4 {
				t.Errorf("the id is a UUID v%d", v)
			}
			if user := must(s.User(t.Context(), strings.ToUpper(email)))(t); user.ID != id || user.Email != email || user.FirstName != "Ann" {
				t.Errorf("the account is %+v", user)
			}
			want = append(want, email)
		}
		var got []string
		for user, err := range s.FindUsers(t.Context(), auth.UserFilter{}) {
			ok(t, err)
			got = append(got, user.Email)
		}
		if !slices.Equal(got, want) {
			t.Errorf("accounts %v, want %v", got, want)
		}
		for _, c := range []struct {
			name string
			user auth.NewUser
			want auth.Code
		}{
			{"the address is taken", auth.NewUser{Email: "user0@EXAMPLE.org", Password: oldPassword}, auth.Conflict},
			{"the address is none", auth.NewUser{Email: "user", Password: oldPassword}, auth.Invalid},
			{"the password is weak", auth.NewUser{Email: ann, Password: "password"}, auth.Invalid},
			{"the hash is none", auth.NewUser{Email: ann, Hash: "$1$abc$def"}, auth.Invalid},
			{"the hash is too dear", auth.NewUser{Email: ann, Hash: "$2a$31$" + strings.Repeat("a", 53)}, auth.Invalid},
		} {
			if _, err := s.CreateUser(t.Context(), c.user); auth.CodeOf(err) != c.want {
				t.Errorf("%s: error %v", c.name, err)
			}
		}
		for name, err := range map[string]error{
			"revoke": s.Revoke(t.Context(), ann),
			"enact":  s.Reinstate(t.Context(), ann),
			"show":   func() error { _, err := s.User(t.Context(), "malformed"); return err }(),
		} {
			wantErr(t, name+" for nobody", err, auth.ErrNoUser)
		}
	})
}
