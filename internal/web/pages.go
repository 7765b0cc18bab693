package web

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"embed"
	"fmt"
	"html/template"
	"net/http"
	"strconv"
	"strings"

	"kwai/internal/i18n"
)

//go:embed pages
var pageFiles embed.FS

// recoverPage is the data of "recover", the form that asks for a mail.
type recoverPage struct {
	Email  string // as typed
	Error  string // what is wrong with Email; "" when nothing is
	Notice string // why it can't be done now (busy, too many tries); "" when it can
}

// resetPage is the data of "reset", the form that takes a new password. It has
// no place for the password typed: that is never sent back.
type resetPage struct {
	UUID     string // as in the link, or as typed
	FromLink bool   // UUID came with a link: it is sent along, not shown
	// What is wrong with a field; "" when nothing is. With a UUIDError the
	// field is shown, even if FromLink, so that it can be put right.
	UUIDError, PasswordError string
	Notice                   string // as in recoverPage
	MinLength                int    // of a password, in characters
}

// messagePage is the data of "error", for what has no page of its own.
type messagePage struct{ Title, Text string }

// pages has the templates by language and name. "sent", "done", "used" (the link has
// done its work), "invalid" (the link is no longer valid) and "revoked" take the site
// to go on to, "" for none.
var pages = parsePages("recover", "sent", "reset", "done", "used", "invalid", "revoked", "error", "login", "logout", "out",
	"account", "profile", "email", "emailconfirm", "emailinvalid", "password", "sessions", "activity", "data", "delete", "gone", "devmails", "devmail")

func parsePages(names ...string) map[*i18n.Language]map[string]*template.Template {
	pages := make(map[*i18n.Language]map[string]*template.Template)
	for _, l := range i18n.Languages() {
		functions := template.FuncMap{
			// The version makes the style sheet cacheable for good.
			"style": func() string { return "style.css?v=" + styleVersion },
			"lang":  func() string { return l.Code },
			"t":     l.Text,
			"time":  l.Time,
		}
		pages[l] = make(map[string]*template.Template, len(names))
		for _, name := range names {
			layout := template.New("layout.html").Funcs(functions)
			pages[l][name] = template.Must(layout.ParseFS(pageFiles, "pages/layout.html", "pages/kit.html", "pages/"+name+".html"))
		}
	}
	return pages
}

// language is the language of a page: what the visitor has chosen, else what the link to
// it asks for (OpenID Connect's ui_locales), else what the browser does, else the
// server's.
func (s *Server) language(r *http.Request) *i18n.Language {
	if from := senderOf(r); from != nil && from.chosen != nil {
		return from.chosen
	}
	return i18n.Match(cmp.Or(s.Language, i18n.English), strings.ReplaceAll(r.URL.Query().Get("ui_locales"), " ", ","), r.Header.Get("Accept-Language"))
}

//go:embed pages/style.css
var styleSheet []byte

var styleVersion = fmt.Sprintf("%.8x", sha256.Sum256(styleSheet))

// view is what every page is made of.
type view struct {
	Up      string // what links to other pages begin with
	Visitor string // the address of the user who is logged in; "": nobody is
	Form    string // what seals the forms of a page
	Data    any    // the page's own
}

// up leads from a page to the top level. Addresses on pages are relative: so they hold
// behind a proxy that serves kwai below a path of its own.
func up(r *http.Request) string {
	return strings.Repeat("../", max(strings.Count(r.URL.Path, "/")-1, 0))
}

// pagePolicy allows our style sheet and our forms, nothing else. Images of
// data: addresses load nothing; the layout's empty icon is one.
const (
	pagePolicy = "default-src 'none'; style-src 'self'; img-src data:; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
	openPolicy = "default-src 'none'; style-src 'self'; img-src data:; frame-ancestors 'none'; base-uri 'none'"
)

// leadsOut are the pages from which another program is reached. Chromium and Safari
// hold form-action against each redirect after a post, and an opener policy cuts off
// the window that waits for a login.
var leadsOut = map[string]bool{"login": true, "logout": true}

// page answers with the page of that name, in the request's language. The page is made
// before the first byte is sent, so that a fault in it, which is a bug, can't leave half
// of one.
func (s *Server) page(w http.ResponseWriter, r *http.Request, status int, name string, data any) error {
	return s.write(w, r, status, name, view{Data: data})
}

func (s *Server) write(w http.ResponseWriter, r *http.Request, status int, name string, v view) error {
	var page bytes.Buffer
	l := s.language(r)
	v.Up = up(r)
	if err := pages[l][name].Execute(&page, v); err != nil {
		return err
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Length", strconv.Itoa(page.Len()))
	h.Set("Content-Language", l.Code)
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Security-Policy", pagePolicy)
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	if leadsOut[name] {
		h.Set("Content-Security-Policy", openPolicy)
		h.Del("Cross-Origin-Opener-Policy")
	}
	// The address may hold a unique id: it goes to no other site. Not
	// no-referrer: a browser would then send "Origin: null" with our forms.
	h.Set("Referrer-Policy", "same-origin")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	w.WriteHeader(status)
	w.Write(page.Bytes()) // an error here is a client that went away
	return nil
}

// sitePage answers with a page that shows no more than where to go on.
func (s *Server) sitePage(name string) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		return s.page(w, r, http.StatusOK, name, s.SiteURL)
	}
}

// site answers GET / where there is a site to go on to.
func (s *Server) site(w http.ResponseWriter, _ *http.Request) error {
	w.Header().Set("Location", s.SiteURL)
	w.WriteHeader(http.StatusFound)
	return nil
}

// seeOther leads from a form that was accepted to a page, which can be loaded anew
// without sending the form again. The address is relative, as links on the pages
// are: http.Redirect would make a path of it that lacks a proxy's prefix.
func seeOther(w http.ResponseWriter, r *http.Request, page string) error {
	w.Header().Set("Location", up(r)+page)
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusSeeOther)
	return nil
}

// serveStyle answers GET /style.css. The version in the query is for caches
// alone: an address with an older one gets today's sheet, uncached.
func serveStyle(w http.ResponseWriter, r *http.Request) error {
	h := w.Header()
	h.Set("Content-Type", "text/css; charset=utf-8")
	h.Set("Content-Length", strconv.Itoa(len(styleSheet)))
	h.Set("Cache-Control", "no-cache")
	if r.URL.Query().Get("v") == styleVersion {
		h.Set("Cache-Control", "public, max-age=31536000, immutable")
	}
	h.Set("X-Content-Type-Options", "nosniff")
	w.Write(styleSheet)
	return nil
}
