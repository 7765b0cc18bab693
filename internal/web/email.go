package web

import (
	"errors"
	"net/http"

	"kwai/internal/auth"
)

// emailPage is the data of "email".
type emailPage struct {
	Email  string // as typed
	Error  string // what is wrong with Email; "" when nothing is
	Notice string // why it can't be done now
}

// emailPage shows the form that asks for another address.
func (s *Server) emailPage(w http.ResponseWriter, r *http.Request, v auth.Visitor) error {
	return s.visitPage(w, r, v, http.StatusOK, "email", emailPage{})
}

// emailForm takes what was typed into it. The answer doesn't show whether the address is
// another user's.
func (s *Server) emailForm(w http.ResponseWriter, r *http.Request, v auth.Visitor, f *form) error {
	page := emailPage{Email: f.optional("email")}
	err := s.Rules.RequestEmail(r.Context(), s.pageClient(r), v, page.Email)
	if err == nil {
		return seeOther(w, r, "account?done=email-sent")
	}
	refused, _ := errors.AsType[*auth.Error](err)
	if refused == nil {
		return err
	}
	l := s.language(r)
	switch refused.Code {
	case auth.Throttled:
		page.Notice = l.Text("email.throttled", "wait", l.Duration(refused.RetryAfter))
	case auth.Invalid:
		for _, field := range refused.Fields {
			page.Error = l.Text(field.Code)
		}
	default:
		return err
	}
	return s.visitPage(w, r, v, s.explain(w, r, err).Status, "email", page)
}

// emailConfirmPage is the data of "emailconfirm".
type emailConfirmPage struct{ Email, Code string }

// emailConfirmPage asks whether the account is to have the address that the link was
// mailed to. Opening it changes nothing: mail scanners open links, too.
func (s *Server) emailConfirmPage(w http.ResponseWriter, r *http.Request, v auth.Visitor) error {
	code := r.URL.Query().Get("code")
	email, err := s.Rules.PendingEmail(r.Context(), v, code)
	if err != nil {
		return s.refuseEmail(w, r, v, err)
	}
	return s.visitPage(w, r, v, http.StatusOK, "emailconfirm", emailConfirmPage{email, code})
}

// emailConfirmForm gives it to the account.
func (s *Server) emailConfirmForm(w http.ResponseWriter, r *http.Request, v auth.Visitor, f *form) error {
	if err := s.Rules.ConfirmEmail(r.Context(), s.pageClient(r), v, f.optional("code")); err != nil {
		return s.refuseEmail(w, r, v, err)
	}
	return seeOther(w, r, "account?done=email")
}

func (s *Server) refuseEmail(w http.ResponseWriter, r *http.Request, v auth.Visitor, err error) error {
	if !errors.Is(err, auth.ErrEmailCode) {
		return err
	}
	return s.visitPage(w, r, v, s.explain(w, r, err).Status, "emailinvalid", nil)
}
