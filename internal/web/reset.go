package web

import (
	"errors"
	"net/http"
	"regexp"
	"strings"

	"kwai/internal/auth"
)

// reset answers POST /api/v1/auth/reset.
func (s *Server) reset(w http.ResponseWriter, r *http.Request) error {
	f, err := s.readForm(w, r)
	if err != nil {
		return err
	}
	id, password := f.required("uuid"), f.required("password")
	if err := f.err(); err != nil {
		return err
	}
	return writeEmpty(w, s.Rules.Reset(r.Context(), clientOf(r), id, password))
}

// resetPage shows the form that takes a new password. Opening it changes
// nothing: mail scanners open links, too.
func (s *Server) resetPage(w http.ResponseWriter, r *http.Request) error {
	page := resetPage{UUID: typedID(r.URL.Query().Get("uuid")), MinLength: auth.MinPassword}
	if page.UUID != "" {
		page.FromLink = true
		user, err := s.Rules.RecoveryUser(r.Context(), page.UUID)
		if err != nil {
			return s.refuseReset(w, r, page, err)
		}
		page.First = user.PasswordHash == ""
	}
	return s.page(w, r, http.StatusOK, "reset", page)
}

// resetForm takes what was typed into it.
func (s *Server) resetForm(w http.ResponseWriter, r *http.Request) error {
	f, err := s.readForm(w, r)
	if err != nil {
		return err
	}
	page := resetPage{UUID: typedID(strings.TrimSpace(f.optional("uuid"))), MinLength: auth.MinPassword}
	chosen := f.optional("password")
	user, err := s.Rules.RecoveryUser(r.Context(), page.UUID)
	page.FromLink = err == nil // it need not be typed again
	page.First = err == nil && user.PasswordHash == ""
	switch {
	case err != nil:
	case chosen == "":
		err = auth.InvalidFields(auth.Field{Name: "password", Message: "Type the new password.", Code: "password.missing"})
	default:
		err = s.Rules.Reset(r.Context(), s.pageClient(r), page.UUID, chosen)
	}
	if err != nil {
		return s.refuseReset(w, r, page, err)
	}
	return seeOther(w, r, "done")
}

// refuseReset shows on a page why a reset was refused.
func (s *Server) refuseReset(w http.ResponseWriter, r *http.Request, page resetPage, err error) error {
	l := s.language(r)
	refused, _ := errors.AsType[*auth.Error](err)
	name, data := "reset", any(&page)
	switch {
	case errors.Is(err, auth.ErrRevoked):
		name, data = "revoked", nil
	case errors.Is(err, auth.ErrRecoveryOver):
		name, data = "used", s.SiteURL
	case errors.Is(err, auth.ErrRecoveryID):
		page.UUIDError = l.Text("reset.uuid_wrong")
	case errors.Is(err, auth.ErrRecovery):
		name, data = "invalid", nil
	case refused != nil && refused.Code == auth.Invalid:
		for _, f := range refused.Fields {
			page.PasswordError = l.Text(f.Code, "least", auth.MinPassword)
		}
	case auth.CodeOf(err) == auth.Unavailable:
		page.Notice = l.Text("error.busy")
	default:
		return err
	}
	return s.page(w, r, s.explain(w, r, err).Status, name, data)
}

var (
	// An encoding of mails puts "=" at the end of a line and before 3D. Invisible
	// characters come along, and a word processor makes dashes of hyphens.
	notOfID = strings.NewReplacer("=", "", "\u200b", "", "\u00ad", "", "\ufeff", "",
		"\u2010", "-", "\u2011", "-", "\u2012", "-", "\u2013", "-", "\u2014", "-", "\u2212", "-")
	idInText = regexp.MustCompile(`([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})([^0-9a-z]|$)`)
)

// typedID finds the unique id in what a person typed or copied from a mail: in
// upper case, with blanks, a final dot, the whole link or the "3D" before it that
// a mail's source has. Where there is none it is what was typed.
func typedID(text string) string {
	cleaned := strings.ToLower(strings.Join(strings.Fields(notOfID.Replace(text)), ""))
	if found := idInText.FindStringSubmatch(cleaned); found != nil {
		return found[1]
	}
	return text
}
