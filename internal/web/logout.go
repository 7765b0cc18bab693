package web

import (
	"errors"
	"net/http"

	"kwai/internal/auth"
)

// logout answers POST /api/v1/auth/logout. The access token is checked first.
func (s *Server) logout(w http.ResponseWriter, r *http.Request) error {
	user, err := s.currentUser(w, r)
	if errors.Is(err, auth.ErrExpired) {
		return s.logoutExpired(w, r, user)
	}
	if err != nil {
		return err
	}
	f, err := s.readForm(w, r)
	if err != nil {
		return err
	}
	refresh := f.required("refresh_token")
	if err := f.err(); err != nil {
		return err
	}
	return writeEmpty(w, s.Rules.Logout(r.Context(), clientOf(r), user, refresh))
}

// logoutExpired logs out users whose access token has expired. Otherwise their
// session would outlive the logout. Whatever is wrong, the answer is 401.
func (s *Server) logoutExpired(w http.ResponseWriter, r *http.Request, user auth.Caller) error {
	f, err := s.readForm(w, r)
	if errors.Is(err, auth.ErrBusy) {
		return err
	}
	if err != nil || f.optional("refresh_token") == "" {
		return auth.ErrNotLoggedIn
	}
	if err := s.Rules.LogoutExpired(r.Context(), clientOf(r), user, f.optional("refresh_token")); err != nil {
		return err
	}
	note(w, "user", user.ID)
	return writeEmpty(w, nil)
}
