package web

import (
	"net/http"
	"time"

	"kwai/internal/auth"
)

// login answers POST /api/v1/auth/login.
func (s *Server) login(w http.ResponseWriter, r *http.Request) error {
	f, err := s.readForm(w, r)
	if err != nil {
		return err
	}
	grant := f.optional("grant_type")
	if grant == "refresh_token" { // OAuth 2's clients renew where they logged in
		return f.oauth(s.renewBy(w, r, f))
	}
	l := readLogin(f)
	if grant != "" && grant != "password" {
		f.refuse("grant_type", "This must be password or refresh_token, or be left out.")
	}
	for _, name := range []string{"scope", "client_id", "client_secret"} {
		f.optional(name) // OAuth 2's other fields: not needed, but not twice either
	}
	if err := f.err(); err != nil {
		return f.oauth(err)
	}
	tokens, err := s.logIn(r, l)
	if err != nil {
		return f.oauth(err)
	}
	return writeTokens(w, tokens)
}

// loginFields are the fields of a login: of its first step, of its second, or of both.
type loginFields struct{ username, password, waiting, code string }

func readLogin(f *form) (l loginFields) {
	l.waiting, l.code = f.optional("auth_session"), f.optional("otp")
	if l.waiting != "" {
		f.required("otp")
		f.optional("username") // a client may send all that it has
		f.optional("password")
		return l
	}
	l.username, l.password = f.required("username"), f.required("password")
	return l
}

// logIn takes the steps that the fields are for.
func (s *Server) logIn(r *http.Request, l loginFields) (auth.Tokens, error) {
	if l.waiting != "" {
		return s.Rules.ContinueLogin(r.Context(), clientOf(r), l.waiting, l.code)
	}
	return s.Rules.LoginWithCode(r.Context(), clientOf(r), l.username, l.password, l.code)
}

// tokenSchema is what clients of kwai read; the last two fields are for OAuth 2
// clients (RFC 6749, 5.1).
type tokenSchema struct {
	AccessToken  string `json:"access_token"`
	RefreshToken string `json:"refresh_token"`
	Expiration   string `json:"expiration"` // of the access token, UTC
	TokenType    string `json:"token_type"`
	ExpiresIn    int    `json:"expires_in"` // seconds
}

func writeTokens(w http.ResponseWriter, t auth.Tokens) error {
	w.Header().Set("Cache-Control", "no-store")
	return writeJSON(w, tokenSchema{
		AccessToken:  t.Access,
		RefreshToken: t.Refresh,
		Expiration:   t.ExpiresAt.UTC().Format(time.DateTime),
		TokenType:    "bearer",
		ExpiresIn:    int(t.ExpiresIn.Seconds()),
	})
}
