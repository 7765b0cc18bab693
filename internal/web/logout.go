package web

import "net/http"

// logout answers POST /api/v1/auth/logout. Who asks is looked at first.
func (s *Server) logout(w http.ResponseWriter, r *http.Request) error {
	user, err := s.currentUser(w, r)
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
	if err := s.Rules.Logout(r.Context(), user.Profile, refresh); err != nil {
		return err
	}
	return writeJSON(w, empty)
}
