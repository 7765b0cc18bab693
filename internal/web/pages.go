package web

import (
	"bytes"
	"cmp"
	"embed"
	"html/template"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

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
	First    bool   // the account has no password yet
	// What is wrong with a field; "" when nothing is. With a UUIDError the
	// field is shown, even if FromLink, so that it can be put right.
	UUIDError, PasswordError string
	Notice                   string // as in recoverPage
	MinLength                int    // of a password, in characters
}

// messagePage is the data of "error", for what has no page of its own.
type messagePage struct{ Title, Text string }

// pageNames are those of the pages. "done" and "used" (the link has done its work) take the
// site to go on to, "" for none.
var pageNames = []string{"recover", "sent", "reset", "done", "used", "invalid", "revoked", "error", "login", "logout", "out",
	"account", "profile", "email", "emailconfirm", "emailinvalid", "password", "passkeys", "passkeyremove", "code", "app", "codes", "security", "remove", "twosteps", "sessions", "activity", "apps", "consent", "authorizeerror", "data", "delete", "gone", "devmails", "devmail"}

// pages has the pages by language and name.
var pages = makePages()

func makePages() map[*i18n.Language]map[string]*pageTemplate {
	pages := make(map[*i18n.Language]map[string]*pageTemplate)
	for _, l := range i18n.Languages() {
		pages[l] = make(map[string]*pageTemplate, len(pageNames))
		for _, name := range pageNames {
			pages[l][name] = &pageTemplate{language: l, name: name}
		}
	}
	return pages
}

// pageTemplate is a page in a language. It is parsed when it is first shown: the program
// also runs as a command, and as a worker that hashes, which show none.
type pageTemplate struct {
	language *i18n.Language
	name     string
	parsed   [3]atomic.Pointer[template.Template] // by the depth at which it is shown
}

// at is the page for a path of that depth.
func (p *pageTemplate) at(depth int) *template.Template {
	if depth >= len(p.parsed) { // no route is as deep
		return p.parse(depth)
	}
	t := p.parsed[depth].Load()
	if t == nil {
		t = p.parse(depth)
		p.parsed[depth].Store(t)
	}
	return t
}

// parse panics at a fault in the page, which is a bug.
func (p *pageTemplate) parse(depth int) *template.Template {
	all := template.New("layout.html").Funcs(template.FuncMap{
		"t": p.language.Text, "time": p.language.Time,
		// An app's own address, whose scheme html/template may not know.
		"trusted": func(address string) template.URL { return template.URL(address) }, //nolint:gosec // it was checked
	})
	for _, name := range []string{"layout.html", "kit.html", p.name + ".html"} {
		text, err := pageFiles.ReadFile("pages/" + name)
		if err != nil {
			panic(err)
		}
		t := all
		if name != all.Name() {
			t = all.New(name)
		}
		template.Must(t.Parse(fixed(string(text), p.language, depth)))
	}
	return all
}

var fixedText = regexp.MustCompile(`\{\{t "([^"]*)"\}\}`)

// fixed puts in what is the same whenever the page is shown: texts without values, the
// language, the style sheet, and {{.Up}}, what links to other pages begin with. They are
// most of what a page would call functions for, and that is most of what it costs.
func fixed(text string, l *i18n.Language, depth int) string {
	text = fixedText.ReplaceAllStringFunc(text, func(call string) string {
		return template.HTMLEscapeString(l.Text(fixedText.FindStringSubmatch(call)[1]))
	})
	return strings.NewReplacer(
		"{{lang}}", l.Code,
		"{{.Up}}", up(depth),
		"{{$.Up}}", up(depth),
	).Replace(text)
}

// language is the language of a page: what the visitor has chosen, else what the link to
// it asks for (OpenID Connect's ui_locales), else what the browser does, else the
// server's.
func (s *Server) language(r *http.Request) *i18n.Language {
	if from := senderOf(r); from != nil && from.chosen != nil {
		return from.chosen
	}
	return cmp.Or(askedLanguage(r), i18n.Match(cmp.Or(s.Language, i18n.English), r.Header.Get("Accept-Language")))
}

// askedLanguage is the language that the link to a page asks for; nil: none that there is.
func askedLanguage(r *http.Request) *i18n.Language {
	return i18n.Match(nil, strings.ReplaceAll(r.URL.Query().Get("ui_locales"), " ", ","))
}

// inLanguage has a page, whose address has a query, ask for the language that this one
// was asked for.
func inLanguage(r *http.Request, page string) string {
	if l := askedLanguage(r); l != nil {
		return page + "&ui_locales=" + l.Code
	}
	return page
}

// view is what every page is made of.
type view struct {
	Brand   head
	SiteURL string // which each page leads back to; "": nowhere
	Visitor string // the address of the user who is logged in; "": nobody is
	// Passkeys is the host that passkeys are for; "": there can be none.
	Passkeys string
	// Asked is the language that the link to the page asked for, which the steps of a login
	// carry along; "": none.
	Asked string
	Data  any // the page's own

	seal func() (string, error) // see Form; nil: there is no visitor
}

// Form seals a form of the page. It is computed where a template asks for it.
func (v view) Form() (string, error) {
	if v.seal == nil {
		return "", nil
	}
	return v.seal()
}

// depth is how many folders a path lies below the top level, as a browser counts them.
func depth(r *http.Request) int { return max(strings.Count(r.URL.EscapedPath(), "/")-1, 0) }

// up leads from a depth to the top level. Addresses on pages are relative: so they hold
// behind a proxy that serves kwai below a path of its own.
func up(depth int) string { return strings.Repeat("../", depth) }

// scripted are the pages with our script.
var scripted = map[string]bool{"login": true, "passkeys": true}

// policy allows our style sheet, our logo, our script where the page has one and, unless
// the page leads out, our forms; nothing else. Images of data: addresses load nothing; the
// layout's empty icon is one.
func (s *Server) policy(leadsOut, scripted bool) string {
	images, forms, scripts := "data:", "form-action 'self'; ", ""
	if scripted {
		scripts = "script-src 'self'; connect-src 'self'; "
	}
	if s.Brand.Logo != nil {
		images = "'self' data:"
	}
	if leadsOut {
		forms = ""
	}
	return "default-src 'none'; style-src 'self'; " + scripts + "img-src " + images + "; " + forms + "frame-ancestors 'none'; base-uri 'none'"
}

// leadsOut are the paths from which another program is reached: also if they answer
// with an error, after which one goes back. Chromium and Safari
// hold form-action against each redirect after a post, and an opener policy cuts off
// the window that waits for a login.
var leadsOut = map[string]bool{"/login": true, "/login/passkey": true, "/login/code": true, "/login/enrol": true, "/logout": true, "/consent": true, "/oauth2/authorize": true, "/oauth2/logout": true}

// buffers are those in which pages are made.
var buffers = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// page answers with the page of that name, in the request's language. The page is made
// before the first byte is sent, so that a fault in it, which is a bug, can't leave half
// of one.
func (s *Server) page(w http.ResponseWriter, r *http.Request, status int, name string, data any) error {
	return s.write(w, r, status, name, view{Data: data})
}

func (s *Server) write(w http.ResponseWriter, r *http.Request, status int, name string, v view) error {
	page := buffers.Get().(*bytes.Buffer)
	defer buffers.Put(page)
	page.Reset()
	l := s.language(r)
	v.Brand, v.SiteURL, v.Passkeys = s.Brand.head(), s.SiteURL, s.passkeyHost()
	if asked := askedLanguage(r); asked != nil {
		v.Asked = asked.Code
	}
	if err := pages[l][name].at(depth(r)).Execute(page, v); err != nil {
		return err
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Length", strconv.Itoa(page.Len()))
	h.Set("Content-Language", l.Code)
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Security-Policy", s.policy(leadsOut[r.URL.Path], scripted[name] && v.Passkeys != ""))
	if !leadsOut[r.URL.Path] {
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
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

// sitePage answers with a page that only says something, and where to go on.
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
	w.Header().Set("Location", up(depth(r))+page)
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusSeeOther)
	return nil
}
