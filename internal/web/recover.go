package web

import (
	"net/http"

	"kwai/internal/auth"
)

// recover answers POST /api/v1/auth/recover: the same for every address.
func (s *Server) recover(w http.ResponseWriter, r *http.Request) error {
	f, err := s.readForm(w, r)
	if err != nil {
		return err
	}
	email := f.required("email")
	if err := f.err(); err != nil {
		return err
	}
	return writeEmpty(w, s.Rules.Recover(r.Context(), clientOf(r), email))
}

// recoverPage shows the form that asks for a mail.
func (s *Server) recoverPage(w http.ResponseWriter, r *http.Request) error {
	return s.page(w, r, http.StatusOK, "recover", recoverPage{})
}

// recoverForm takes what was typed into it.
func (s *Server) recoverForm(w http.ResponseWriter, r *http.Request) error {
	f, err := s.readForm(w, r)
	if err != nil {
		return err
	}
	page := recoverPage{Email: f.optional("email")}
	if _, err := auth.FoldEmail(page.Email); err != nil {
		// This depends on the text alone, not on accounts.
		page.Error = s.language(r).Text("recover.malformed")
		return s.page(w, r, http.StatusUnprocessableEntity, "recover", page)
	}
	if err := s.Rules.Recover(r.Context(), s.pageClient(r), page.Email); err != nil {
		if auth.CodeOf(err) != auth.Unavailable {
			return err
		}
		p := s.explain(w, r, err)
		page.Notice = s.language(r).Text("error.busy")
		return s.page(w, r, p.Status, "recover", page)
	}
	return seeOther(w, r, "sent")
}
