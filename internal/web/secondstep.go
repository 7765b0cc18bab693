package web

import (
	"errors"
	"net/http"
	"net/url"
	"strings"

	"kwai/internal/auth"
	"kwai/internal/i18n"
)

// secondStep leads from a right password to what else the account demands.
func secondStep(w http.ResponseWriter, r *http.Request, page loginPage, more *auth.More) error {
	at := "?login=" + url.QueryEscape(more.Login) + "&next=" + url.QueryEscape(page.Next)
	switch more.Need {
	case auth.NeedCode:
		return seeOther(w, r, inLanguage(r, "login/code"+at))
	case auth.NeedEnrol:
		return seeOther(w, r, inLanguage(r, "login/enrol"+at))
	default:
		return beginAnew(w, r, page.Prove, "passkey", page.Next)
	}
}

// beginAnew leads back to the login, which says why.
func beginAnew(w http.ResponseWriter, r *http.Request, proves bool, why, next string) error {
	prompt := "select_account" // also where another one is logged in
	if proves {
		prompt = "login"
	}
	return seeOther(w, r, inLanguage(r, "login?prompt="+prompt+"&notice="+why+"&next="+url.QueryEscape(next)))
}

// waiting is a login that waits for its second step, as the form of that has it.
type waiting struct {
	auth.PendingLogin
	Login, Next string
	browser     string
}

// takeStep answers a request of a login that waits.
type takeStep func(w http.ResponseWriter, r *http.Request, l waiting, f *form) error

// waits finds the login that a page is for, which waits for that need, in this browser.
// Where it is over, one begins anew.
func (s *Server) waits(need auth.Need, take takeStep) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		f := &form{values: r.URL.Query()}
		if r.Method == http.MethodPost {
			var err error
			if f, err = s.readForm(w, r); err != nil {
				return err
			}
		}
		browser, _ := s.browserCookie(r)
		l := waiting{Login: f.optional("login"), Next: next(f.optional("next")), browser: browser.Value}
		var err error
		l.PendingLogin, err = s.Rules.Pending(r.Context(), l.Login, l.browser)
		if err == nil && l.Need != need {
			err = auth.ErrLogin
		}
		if err == nil {
			senderOf(r).chosen = i18n.Lookup(l.User.Language)
			err = take(w, r, l, f)
		}
		switch {
		case errors.Is(err, auth.ErrNotLoggedIn): // what it proves has ended meanwhile: a proof becomes a login
			s.pace()
			return seeOther(w, r, inLanguage(r, "login?next="+url.QueryEscape(l.Next)))
		case errors.Is(err, auth.ErrLogin):
			s.explain(w, r, err) // for the log
			return beginAnew(w, r, l.Proves, "over", l.Next)
		}
		return err
	}
}

// codePage is the data of "code".
type codePage struct {
	waiting
	Error  string // what is wrong with the code; "" when nothing is
	Notice string // why it can't be done now
}

// codePage asks for a code of the authenticator app, or a recovery code.
func (s *Server) codePage(w http.ResponseWriter, r *http.Request, l waiting, _ *form) error {
	return s.page(w, r, http.StatusOK, "code", codePage{waiting: l})
}

// codeForm takes what was typed there.
func (s *Server) codeForm(w http.ResponseWriter, r *http.Request, l waiting, f *form) error {
	code := f.optional("code")
	var cookie auth.Cookie
	err := missing(code)
	if err == nil {
		cookie, err = s.Rules.ContinueBrowser(r.Context(), s.pageClient(r), l.Login, l.browser, code)
	}
	if err == nil {
		return s.enterWaiting(w, r, l, cookie)
	}
	page := codePage{waiting: l}
	var refused bool
	if page.Error, page.Notice, refused = s.refuseCode(r, err, "code.wrong"); !refused {
		return err
	}
	return s.page(w, r, s.explain(w, r, err).Status, "code", page)
}

// enterWaiting is enter for a login that has waited.
func (s *Server) enterWaiting(w http.ResponseWriter, r *http.Request, l waiting, cookie auth.Cookie) error {
	before, err := s.visitor(w, r)
	if err != nil && !errors.Is(err, auth.ErrNotLoggedIn) {
		return err
	}
	return s.enter(w, r, cookie, before, err == nil && !l.Proves, l.Next)
}

// missing refuses a code that wasn't typed: it counts as none that was wrong.
func missing(code string) error {
	if strings.TrimSpace(code) == "" {
		return auth.InvalidFields(auth.Field{Name: "code", Message: "Type the code.", Code: "code.missing"})
	}
	return nil
}

// refuseCode says what is wrong with a code, in the words of that key, or why none can
// be taken now; false if the error is something else.
func (s *Server) refuseCode(r *http.Request, err error, wrong string) (field, notice string, ok bool) {
	l := s.language(r)
	refused, _ := errors.AsType[*auth.Error](err)
	switch {
	case errors.Is(err, auth.ErrCode):
		return l.Text(wrong), "", true
	case auth.CodeOf(err) == auth.Unavailable:
		return "", l.Text("error.busy"), true
	case errors.Is(err, auth.ErrSecret):
		return "", l.Text("code.unreadable"), true
	case errors.Is(err, auth.ErrManyCodes):
		return "", l.Text("code.throttled", "wait", l.Duration(refused.RetryAfter)), true
	case refused != nil && refused.Code == auth.Throttled:
		return "", l.Text("profile.often", "wait", l.Duration(refused.RetryAfter)), true
	case refused != nil && refused.Code == auth.Invalid && len(refused.Fields) > 0:
		return l.Text(refused.Fields[0].Code), "", true
	}
	return "", "", false
}
