package web

import (
	"errors"
	"net/http"
	"slices"
	"strings"

	"kwai/internal/auth"
)

// oauthError is a refusal of a request in OAuth 2's form, whose client looks for
// the members error and error_description (RFC 6749, 5.2).
type oauthError struct {
	error
	grant string // "" if it was given twice
}

func (e *oauthError) Unwrap() error { return e.error }

// oauth makes an oauthError of a refusal, where the form is OAuth 2's.
func (f *form) oauth(err error) error {
	given := slices.ContainsFunc(f.values["grant_type"], func(v string) bool { return v != "" })
	if err == nil || !given {
		return err
	}
	return &oauthError{err, f.values["grant_type"][0]}
}

// code is the error code of OAuth 2 for a status. For refusals that pass it is a
// code of the authorization endpoint (4.1.2.1), which clients know; the token
// endpoint has none. Those of a second step are of draft-ietf-oauth-first-party-apps.
func (e *oauthError) code(status int) string {
	more, isMore := errors.AsType[*auth.More](e.error)
	switch {
	case isMore && more.Need == auth.NeedCode:
		return "insufficient_authorization"
	case isMore:
		return "redirect_to_web"
	case errors.Is(e.error, auth.ErrLogin):
		return "invalid_session"
	case status == http.StatusUnauthorized:
		return "invalid_grant"
	case status == http.StatusTooManyRequests, status == http.StatusServiceUnavailable:
		return "temporarily_unavailable"
	case status >= http.StatusInternalServerError:
		return "server_error"
	case !slices.Contains([]string{"", "password", "refresh_token"}, e.grant):
		return "unsupported_grant_type"
	default:
		return "invalid_request"
	}
}

// describe writes a text in the characters that error_description may have.
func describe(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '"' || r == '\\':
			return '\''
		case r < ' ' || r > '~':
			return '?'
		}
		return r
	}, text)
}
