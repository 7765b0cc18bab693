package web

import "net/http"

// renew answers POST /api/v1/auth/access_token.
func (s *Server) renew(w http.ResponseWriter, r *http.Request) error {
	f, err := s.readForm(w, r)
	if err != nil {
		return err
	}
	return f.oauth(s.renewBy(w, r, f))
}

// renewBy answers with new tokens for the refresh token of a form. The request
// counts as arrived now that the form has been read: when it began is up to the
// client.
func (s *Server) renewBy(w http.ResponseWriter, r *http.Request, f *form) error {
	arrived := s.Rules.Now()
	refresh := f.required("refresh_token")
	if err := f.err(); err != nil {
		return err
	}
	tokens, err := s.Rules.Renew(r.Context(), clientOf(r), refresh, arrived)
	if err != nil {
		return err
	}
	return writeTokens(w, tokens)
}
