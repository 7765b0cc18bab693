package web

import (
	"errors"
	"net/http"

	"kwai/internal/auth"
	"kwai/internal/i18n"
)

// profilePage is the data of "profile".
type profilePage struct {
	FirstName, LastName           string // as stored, or as typed
	FirstNameError, LastNameError string
	Language                      string // the code of the chosen one; "": none is
	Notice                        string // why it can't be done now
	Languages                     []*i18n.Language
}

// profilePage shows the visitor's names and language.
func (s *Server) profilePage(w http.ResponseWriter, r *http.Request, v auth.Visitor) error {
	return s.visitPage(w, r, v, http.StatusOK, "profile", profilePage{
		FirstName: v.User.FirstName, LastName: v.User.LastName, Language: v.User.Language, Languages: i18n.Languages(),
	})
}

// profileForm takes what was typed and chosen there.
func (s *Server) profileForm(w http.ResponseWriter, r *http.Request, v auth.Visitor, f *form) error {
	page := profilePage{
		FirstName: f.optional("first_name"), LastName: f.optional("last_name"), Language: f.optional("language"), Languages: i18n.Languages(),
	}
	if err := f.err(); err != nil {
		return err
	}
	err := s.Rules.UpdateProfile(r.Context(), s.pageClient(r), v, page.FirstName, page.LastName, page.Language)
	if err == nil {
		return seeOther(w, r, "account?done=profile")
	}
	refused, ok := errors.AsType[*auth.Error](err)
	if !ok || refused.Code != auth.Invalid && refused.Code != auth.Throttled {
		return err
	}
	if refused.Code == auth.Throttled {
		page.Notice = s.language(r).Text("profile.often", "wait", s.language(r).Duration(refused.RetryAfter))
	}
	for _, field := range refused.Fields {
		switch field.Name {
		case "first_name":
			page.FirstNameError = s.language(r).Text(field.Code, "most", auth.MaxName)
		case "last_name":
			page.LastNameError = s.language(r).Text(field.Code, "most", auth.MaxName)
		default:
			return err // no page of ours sends such a language
		}
	}
	return s.visitPage(w, r, v, s.explain(w, r, err).Status, "profile", page)
}
