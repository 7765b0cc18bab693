package web

import (
	"net/http"

	"kwai/internal/auth"
)

// password answers POST /api/v1/auth/password.
func (s *Server) password(w http.ResponseWriter, r *http.Request, caller auth.Caller) error {
	f, err := s.readForm(w, r)
	if err != nil {
		return err
	}
	current, chosen := f.required("password"), f.required("new_password")
	code := f.optional("otp")
	if err := f.err(); err != nil {
		return err
	}
	return writeEmpty(w, s.Rules.ChangePassword(r.Context(), clientOf(r), caller, current, chosen, code))
}
