package web

import (
	"errors"
	"net/http"
	"net/url"

	"kwai/internal/auth"
)

// loginPage is the data of "login".
type loginPage struct {
	Email  string // as typed, or the visitor's who shows the password again
	Prove  bool   // a fresh proof: the address is fixed
	Stay   bool   // logged in on this device
	Next   string
	Error  string // what is wrong with the password or the address; "" when nothing is
	Notice string // why it can't be done now
	ByKey  bool   // only a passkey goes on
}

// loginPage shows the login. A browser that is logged in goes on, unless it is asked
// for a fresh proof.
func (s *Server) loginPage(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	page := loginPage{Next: next(q.Get("next")), Email: q.Get("login_hint")}
	if _, err := auth.FoldEmail(page.Email); err != nil {
		page.Email = ""
	}
	v, err := s.visitor(w, r)
	forApp := onward(page.Next)
	switch {
	case errors.Is(err, auth.ErrNotLoggedIn):
	case err != nil:
		return err
	case forApp && q.Get("prompt") == "select_account": // another one than that which is logged in
	case q.Get("prompt") != "login", v.Fresh && !forApp: // what an app asks for has a begin of its own
		return seeOther(w, r, page.Next)
	default:
		page.Prove, page.Email = true, v.User.Email
	}
	if key, l := "login.notice."+q.Get("notice"), s.language(r); l.Has(key) && ledHere(r) {
		page.Notice, page.ByKey = l.Text(key), q.Get("notice") == "passkey"
	}
	if cookie, isNew := s.browserCookie(r); isNew && r.Method != http.MethodHead {
		http.SetCookie(w, cookie)
	}
	return s.page(w, r, http.StatusOK, "login", page)
}

// loginForm takes what was typed into it: a login, or a fresh proof of the visitor.
func (s *Server) loginForm(w http.ResponseWriter, r *http.Request) error {
	f, err := s.readForm(w, r)
	if err != nil {
		return err
	}
	page := loginPage{
		Email: f.optional("username"), Stay: f.optional("stay") != "", Next: next(f.optional("next")), Prove: f.optional("prove") != "",
	}
	password := f.optional("password")
	before, err := s.visitor(w, r)
	if err != nil && !errors.Is(err, auth.ErrNotLoggedIn) {
		return err
	}
	visits := err == nil
	browser, _ := s.browserCookie(r)
	var cookie auth.Cookie
	if page.Prove && visits && page.Email != "" && page.Email != before.User.Email {
		// The page is of somebody who was logged in before, or whose address was another:
		// it is shown anew.
		return seeOther(w, r, inLanguage(r, "login?prompt=login&next="+url.QueryEscape(page.Next)))
	}
	if page.Prove && visits {
		page.Email = before.User.Email
		cookie, err = s.Rules.Prove(r.Context(), s.pageClient(r), before, password, browser.Value)
	} else {
		page.Prove = false
		cookie, err = s.Rules.LoginBrowser(r.Context(), s.pageClient(r), page.Email, password, page.Stay, browser.Value)
	}
	if more, ok := errors.AsType[*auth.More](err); ok {
		http.SetCookie(w, browser) // it may be new
		return secondStep(w, r, page, more)
	}
	if err != nil {
		return s.refuseLogin(w, r, page, err)
	}
	return s.enter(w, r, cookie, before, visits && !page.Prove, page.Next)
}

// enter gives a browser the cookie of its login, and goes on. replaces says that the
// session from before is another: it is ended, since nobody would have its cookie any
// longer.
func (s *Server) enter(w http.ResponseWriter, r *http.Request, cookie auth.Cookie, before auth.Visitor, replaces bool, next string) error {
	if replaces {
		if err := s.Rules.LogoutVisitor(r.Context(), s.pageClient(r), before); err != nil {
			return err
		}
	}
	s.setCookie(w, cookie)
	return seeOther(w, r, next)
}

// refuseLogin shows the form again, with what is wrong.
func (s *Server) refuseLogin(w http.ResponseWriter, r *http.Request, page loginPage, err error) error {
	l := s.language(r)
	refused, _ := errors.AsType[*auth.Error](err)
	switch {
	case errors.Is(err, auth.ErrNotLoggedIn): // it ended meanwhile: a proof becomes a login
		s.pace()
		return seeOther(w, r, inLanguage(r, "login?next="+url.QueryEscape(page.Next)))
	case errors.Is(err, auth.ErrCredentials) && page.Prove:
		page.Error = l.Text("login.wrong_password")
	case errors.Is(err, auth.ErrCredentials):
		page.Error = l.Text("login.wrong")
	case errors.Is(err, auth.ErrPasskey):
		page.Notice = l.Text("passkey.refused")
	case refused != nil && refused.Code == auth.Throttled:
		page.Notice = l.Text("login.throttled", "wait", l.Duration(refused.RetryAfter))
	case auth.CodeOf(err) == auth.Unavailable:
		page.Notice = l.Text("error.busy")
	default:
		return err
	}
	return s.page(w, r, s.explain(w, r, err).Status, "login", page)
}

// logoutPage asks; a link from elsewhere must not log anybody out.
func (s *Server) logoutPage(w http.ResponseWriter, r *http.Request, v auth.Visitor) error {
	return s.visitPage(w, r, v, http.StatusOK, "logout", nil)
}

// logoutForm ends the session, or all of them. A session that was ended meanwhile ends
// no others: that must not look as if it were done.
func (s *Server) logoutForm(w http.ResponseWriter, r *http.Request, v auth.Visitor, f *form) error {
	if f.has("everywhere") {
		if err := s.Rules.EndOtherSessions(r.Context(), s.pageClient(r), v.Caller); err != nil {
			return err
		}
	}
	if err := s.Rules.LogoutVisitor(r.Context(), s.pageClient(r), v); err != nil {
		return err
	}
	return s.leave(w, r, v, "out")
}

// leave leads to a page that nobody is logged in on, in the language that the visitor
// had chosen.
func (s *Server) leave(w http.ResponseWriter, r *http.Request, v auth.Visitor, page string) error {
	s.clearCookie(w)
	if v.User.Language != "" {
		page += "?ui_locales=" + v.User.Language
	}
	return seeOther(w, r, page)
}
