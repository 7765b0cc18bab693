package web

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"fmt"
	"html/template"
	"net/http"
	"strconv"
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

// messagePage is the data of "error", for what has no page of its own. Link is where
// to go on and LinkText its name; both may be empty.
type messagePage struct {
	Title, Text    string
	Link, LinkText string
}

// pages has the templates by name. "sent", "done", "used" (the link has done its
// work), "invalid" (the link is no longer valid) and "revoked" take the site to
// go on to, "" for none.
var pages = parsePages("recover", "sent", "reset", "done", "used", "invalid", "revoked", "error", "devmails", "devmail")

func parsePages(names ...string) map[string]*template.Template {
	// The version makes the style sheet cacheable for good.
	style := func() string { return "style.css?v=" + styleVersion }
	pages := make(map[string]*template.Template, len(names))
	for _, name := range names {
		layout := template.New("layout.html").Funcs(template.FuncMap{"style": style})
		pages[name] = template.Must(layout.ParseFS(pageFiles, "pages/layout.html", "pages/"+name+".html"))
	}
	return pages
}

//go:embed pages/style.css
var styleSheet []byte

var styleVersion = fmt.Sprintf("%.8x", sha256.Sum256(styleSheet))

// pagePolicy allows our style sheet and our forms, nothing else. Images of
// data: addresses load nothing; the layout's empty icon is one.
const pagePolicy = "default-src 'none'; style-src 'self'; img-src data:; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"

// renderPage answers with the page of that name. The page is made before the
// first byte is sent, so that a fault in it, which is a bug, can't leave half of one.
func renderPage(w http.ResponseWriter, status int, name string, data any) error {
	var page bytes.Buffer
	if err := pages[name].Execute(&page, data); err != nil {
		return err
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Length", strconv.Itoa(page.Len()))
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Security-Policy", pagePolicy)
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
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
	return func(w http.ResponseWriter, _ *http.Request) error {
		return renderPage(w, http.StatusOK, name, s.SiteURL)
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
func seeOther(w http.ResponseWriter, page string) {
	w.Header().Set("Location", page)
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusSeeOther)
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
