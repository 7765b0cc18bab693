package web

import "net/http"

// password answers POST /api/v1/auth/password. The access token is checked first.
func (s *Server) password(w http.ResponseWriter, r *http.Request) error {
	caller, err := s.currentUser(w, r)
	if err != nil {
		return err
	}
	f, err := s.readForm(w, r)
	if err != nil {
		return err
	}
	current, chosen := f.required("password"), f.required("new_password")
	if err := f.err(); err != nil {
		return err
	}
	if err := s.Rules.ChangePassword(r.Context(), clientOf(r), caller, current, chosen); err != nil {
		return err
	}
	return writeJSON(w, empty)
}
