package web

import (
	"errors"
	"net/http"

	"kwai/internal/auth"
)

// logout answers POST /api/v1/auth/logout. Who asks is looked at first.
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
	if err := s.Rules.Logout(r.Context(), clientOf(r), user, refresh); err != nil {
		return err
	}
	return writeJSON(w, empty)
}

// logoutExpired is for people who come back after a while: their session would outlive
// what they believe to be a logout. Every refusal is ErrNotLoggedIn.
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
	return writeJSON(w, empty)
}
