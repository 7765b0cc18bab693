package web

import "net/http"

// renew answers POST /api/v1/auth/access_token.
func (s *Server) renew(w http.ResponseWriter, r *http.Request) error {
	// Before the body is read, which may take its time: it is now that the
	// client asks.
	arrived := s.Rules.Store.Now()
	f, err := s.readForm(w, r)
	if err != nil {
		return err
	}
	refresh := f.required("refresh_token")
	if err := f.err(); err != nil {
		return err
	}
	tokens, err := s.Rules.Renew(r.Context(), refresh, arrived)
	if err != nil {
		return err
	}
	return writeTokens(w, tokens)
}
