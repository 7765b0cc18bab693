package web

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"regexp"
	"time"

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
	return renderPage(w, http.StatusOK, "devmails", items)
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
	return renderPage(w, http.StatusOK, "devmail", devMailPage{m, linkParts(m.Text)})
}

// devMailPage is the data of "devmail".
type devMailPage struct {
	mail.Message
	Text []textPart
}

// textPart is a piece of plain text, or a link.
type textPart struct{ Plain, Link string }

var links = regexp.MustCompile(`https?://\S+`)

func linkParts(text string) (parts []textPart) {
	at := 0
	for _, l := range links.FindAllStringIndex(text, -1) {
		parts = append(parts, textPart{Plain: text[at:l[0]]}, textPart{Link: text[l[0]:l[1]]})
		at = l[1]
	}
	return append(parts, textPart{Plain: text[at:]})
}

var uniqueID = regexp.MustCompile(`[?&]uuid=([0-9a-f-]{36})`)

// devUUID answers the unique id of the newest mail that has one, after the mail
// that is under way has come: so that a line of a shell can ask for a recovery
// and the next one use it.
func (s *Server) devUUID(w http.ResponseWriter, r *http.Request) error {
	ctx, cancel := context.WithTimeout(r.Context(), 10*time.Second)
	defer cancel()
	for {
		waits, err := s.Rules.MailWaits(ctx)
		if err != nil {
			return err
		}
		if !waits {
			break
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
	names, err := s.DevMail.Names()
	if err != nil {
		return err
	}
	for _, name := range names {
		m, err := s.DevMail.Read(name)
		if err != nil {
			return err
		}
		if id := uniqueID.FindStringSubmatch(m.Text); id != nil {
			w.Header().Set("Content-Type", "text/plain; charset=utf-8")
			_, _ = io.WriteString(w, id[1])
			return nil
		}
	}
	w.WriteHeader(http.StatusNotFound) // without a text: it would be taken for an id
	return nil
}
