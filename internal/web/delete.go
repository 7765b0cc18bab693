package web

import (
	"net/http"

	"kwai/internal/auth"
)

// deletePage asks whether the account is to be deleted.
func (s *Server) deletePage(w http.ResponseWriter, r *http.Request, v auth.Visitor) error {
	return s.visitPage(w, r, v, http.StatusOK, "delete", nil)
}

// deleteForm deletes it.
func (s *Server) deleteForm(w http.ResponseWriter, r *http.Request, v auth.Visitor, _ *form) error {
	err := s.Rules.DeleteVisitor(r.Context(), s.pageClient(r), v)
	if err != nil {
		return err
	}
	return s.leave(w, r, v, "gone")
}
