package web

import (
	"crypto/rand"
	"errors"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"kwai/internal/auth"
	"kwai/internal/i18n"
)

// The browser session of the pages. Its cookie is __Host-kwai, which no other host of
// the site can set. Over http that name is refused by browsers, and Secure by Safari
// even on loopback: there it is kwai-dev, which a server with https never reads.
// SameSite=Lax, since a link from a mail or an app must find it.
//
// It is set at a login and at a fresh proof, and cleared at a logout. An answer to a
// cookie that is worth nothing leaves it as it is: another tab may just have set a new
// one. browserCookie and offerCookie are beside it.
const (
	hostCookie = "__Host-kwai"
	devCookie  = "kwai-dev"
)

func (s *Server) cookie(value string) *http.Cookie {
	c := &http.Cookie{Name: devCookie, Value: value, Path: "/", HttpOnly: true, SameSite: http.SameSiteLaxMode}
	if s.PublicURL != nil && s.PublicURL.Scheme == "https" {
		c.Name, c.Secure = hostCookie, true
	}
	return c
}

func (s *Server) setCookie(w http.ResponseWriter, c auth.Cookie) {
	cookie := s.cookie(c.Value) //nolint:gosec // Secure over https; see above
	cookie.Expires = c.Expires
	http.SetCookie(w, cookie)
}

func (s *Server) clearCookie(w http.ResponseWriter) {
	cookie := s.cookie("") //nolint:gosec // as above
	cookie.MaxAge = -1
	http.SetCookie(w, cookie)
}

// browserCookie names the browser, whoever is logged in: the second step of a login must
// come from where the first did. It ends with the browser, and isn't replaced: another tab
// may be between its steps. For a browser that has none it is new.
func (s *Server) browserCookie(r *http.Request) (cookie *http.Cookie, isNew bool) {
	cookie = s.cookie("") //nolint:gosec // as above
	cookie.Name += "-browser"
	if all := r.CookiesNamed(cookie.Name); len(all) == 1 && all[0].Value != "" {
		cookie.Value = all[0].Value
		return cookie, false
	}
	cookie.Value = rand.Text()
	return cookie, true
}

// visitor is whose browser session the request is of; ErrNotLoggedIn for none.
func (s *Server) visitor(w http.ResponseWriter, r *http.Request) (auth.Visitor, error) {
	cookies := r.CookiesNamed(s.cookie("").Name)
	if len(cookies) != 1 {
		return auth.Visitor{}, auth.ErrNotLoggedIn
	}
	visitor := s.Rules.Visitor
	if r.Method == http.MethodHead { // which has no effect
		visitor = s.Rules.PeekVisitor
	}
	v, err := visitor(r.Context(), cookies[0].Value)
	if err == nil {
		note(w, "user", v.ID)
		senderOf(r).chosen = i18n.Lookup(v.User.Language)
	}
	return v, err
}

// pageOf is the name of the page that a request is for. A login that is asked for before
// a download goes on to the page which has it.
func pageOf(r *http.Request) string {
	page := strings.TrimSuffix(strings.TrimPrefix(r.URL.Path, "/"), ".json")
	if with := page + "?" + r.URL.RawQuery; confirmation.MatchString(with) {
		return with
	}
	return page
}

// visit answers a request of a visitor.
type visit func(w http.ResponseWriter, r *http.Request, v auth.Visitor) error

// visited leads those who aren't logged in to the login, and from there back; also those
// whose session ends while they are answered. That is a refusal, and paced as others are.
func (s *Server) visited(answer visit) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		v, err := s.visitor(w, r)
		if err == nil {
			err = answer(w, r, v)
		}
		if errors.Is(err, auth.ErrNotLoggedIn) {
			s.pace()
			return seeOther(w, r, "login?next="+url.QueryEscape(pageOf(r)))
		}
		return err
	}
}

// fresh asks for a fresh proof before a page is shown. A form on it then has 15 minutes,
// which the rules see to when it is sent.
func (s *Server) fresh(answer visit) handler {
	return s.visited(func(w http.ResponseWriter, r *http.Request, v auth.Visitor) error {
		if !v.Fresh {
			return proveFirst(w, r)
		}
		return answer(w, r, v)
	})
}

// proveFirst leads to a fresh proof, and from there back.
func proveFirst(w http.ResponseWriter, r *http.Request) error {
	return seeOther(w, r, "login?prompt=login&next="+url.QueryEscape(pageOf(r)))
}

// ledHere says that one of our own pages has led to this one. Only then it believes what
// the address says of things done: else a link in a mail could say it.
func ledHere(r *http.Request) bool {
	from := r.Header.Get("Sec-Fetch-Site") // "": of an old browser, or over http
	return from == "" || from == "same-origin"
}

// takeForm takes what a visitor sent by a form.
type takeForm func(w http.ResponseWriter, r *http.Request, v auth.Visitor, f *form) error

// sealed takes a form that was made for the visitor. Without that, a page of one user
// could be sent by another, who has logged in in between.
func (s *Server) sealed(take takeForm) handler {
	return s.visited(func(w http.ResponseWriter, r *http.Request, v auth.Visitor) error {
		f, err := s.readForm(w, r)
		if err != nil {
			return err
		}
		v, ok, err := s.Rules.TakeForm(r.Context(), v, f.optional("form"))
		if err != nil {
			return err
		}
		if !ok { // the form is old, or somebody else's: the page is shown anew
			page := pageOf(r)
			if with := page + "?code=" + f.optional("code"); confirmation.MatchString(with) {
				page = with
			}
			return seeOther(w, r, page)
		}
		return take(w, r, v, f)
	})
}

// proven takes a form that was shown after a fresh proof.
func (s *Server) proven(take takeForm) handler {
	return s.sealed(func(w http.ResponseWriter, r *http.Request, v auth.Visitor, f *form) error {
		if !v.FreshForm {
			return proveFirst(w, r)
		}
		return take(w, r, v, f)
	})
}

// nexts are the pages that a login may go on to.
var nexts = []string{"account", "account/profile", "account/email", "account/password",
	"account/security", "account/security/app", "account/security/codes", "account/security/remove", "account/security/two-steps",
	"account/passkeys", "account/passkeys/remove", "account/sessions", "account/apps", "account/activity", "account/data", "account/delete"}

// confirmation is the page that a mail leads to, with its code.
var confirmation = regexp.MustCompile(`^account/email/confirm\?code=[0-9a-f]{8}\.[0-9A-Za-z_-]{43}$`)

// request is one of an app, which looks at its whole query anew.
var request = regexp.MustCompile(`^` + authorizePath + `\?[!-"$-~]+$`)

// maxRequest bounds it, in bytes: it is carried along in addresses.
const maxRequest = 12_000

// onward says that a login goes on to an app.
func onward(next string) bool { return len(next) <= maxRequest && request.MatchString(next) }

// next is where a login goes on to: one of our own pages by its name, whatever is
// asked for.
func next(text string) string {
	if slices.Contains(nexts, text) || confirmation.MatchString(text) || onward(text) {
		return text
	}
	return nexts[0]
}
