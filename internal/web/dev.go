package web

import (
	"errors"
	"io/fs"
	"net/http"

	"kwai/internal/mail"
)

// devMails lists the mail that was written instead of sent.
func (s *Server) devMails(w http.ResponseWriter, _ *http.Request) error {
	names, err := s.DevMail.Names()
	if err != nil {
		return err
	}
	type item struct {
		Name    string
		Message mail.Message
	}
	items := make([]item, 0, len(names))
	for _, name := range names {
		if m, err := s.DevMail.Read(name); err == nil {
			items = append(items, item{name, m})
		}
	}
	renderPage(w, http.StatusOK, "devmails", items)
	return nil
}

// devMail shows one mail's text part, its links made clickable.
func (s *Server) devMail(w http.ResponseWriter, r *http.Request) error {
	m, err := s.DevMail.Read(r.PathValue("name"))
	if errors.Is(err, fs.ErrNotExist) {
		return &httpError{http.StatusNotFound, "There is no such mail."}
	}
	if err != nil {
		return err
	}
	renderPage(w, http.StatusOK, "devmail", m)
	return nil
}
