package web

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"

	"golang.org/x/net/html"

	"kwai/internal/auth"
	"kwai/internal/i18n"
	"kwai/internal/mail"
	"kwai/internal/store"
)

const hostile = `"'><script>alert(1)</script>`

var pageTests = []struct {
	label, name string
	data        any
	title       string   // how it begins
	focus       string   // the id of the field that has the focus
	invalid     []string // the ids of the fields marked so
	fields      map[string]string
}{
	{label: "recover", name: "recover", data: recoverPage{}, title: "Forgotten password", fields: map[string]string{"email": ""}},
	{label: "recover, wrong", name: "recover", data: recoverPage{Email: hostile, Error: hostile}, title: "Error: ", focus: "email", invalid: []string{"email"}, fields: map[string]string{"email": hostile}},
	{label: "recover, busy", name: "recover", data: recoverPage{Email: "a@example.org", Notice: hostile}, title: "Error: ", fields: map[string]string{"email": "a@example.org"}},
	{label: "sent", name: "sent", title: "Look into your mail"},
	{label: "reset, by link", name: "reset", data: resetPage{UUID: hostile, FromLink: true, MinLength: 8}, title: "Choose a new password", fields: map[string]string{"uuid": hostile, "password": ""}},
	{label: "reset, by hand", name: "reset", data: resetPage{MinLength: 8}, title: "Choose a new password", fields: map[string]string{"uuid": "", "password": ""}},
	{label: "reset, link without id", name: "reset", data: resetPage{FromLink: true, MinLength: 8}, title: "Choose a new password", fields: map[string]string{"uuid": "", "password": ""}},
	{label: "reset, the first password", name: "reset", data: resetPage{UUID: hostile, FromLink: true, First: true, MinLength: 8}, title: "Choose a password", fields: map[string]string{"uuid": hostile, "password": ""}},
	{label: "reset, weak password", name: "reset", data: resetPage{UUID: hostile, FromLink: true, PasswordError: hostile, MinLength: 8}, title: "Error: ", focus: "password", invalid: []string{"password"}, fields: map[string]string{"uuid": hostile, "password": ""}},
	{label: "reset, both wrong", name: "reset", data: resetPage{UUID: hostile, FromLink: true, UUIDError: hostile, PasswordError: hostile, MinLength: 8}, title: "Error: ", focus: "uuid", invalid: []string{"uuid", "password"}, fields: map[string]string{"uuid": hostile, "password": ""}},
	{label: "reset, busy", name: "reset", data: resetPage{UUID: "u", FromLink: true, Notice: hostile, MinLength: 8}, title: "Error: ", fields: map[string]string{"uuid": "u", "password": ""}},
	{label: "done", name: "done", title: "Your password is saved"},
	{label: "used", name: "used", title: "This link has done its work"},
	{label: "invalid", name: "invalid", title: "This link is no longer valid"},
	{label: "revoked", name: "revoked", title: "This account is blocked"},
	{label: "error", name: "error", data: messagePage{Title: hostile, Text: hostile}, title: "Error: " + hostile},
	{label: "login", name: "login", data: loginPage{Next: "account", Stay: true}, title: "Log in", focus: "username", fields: map[string]string{"next": "account", "username": "", "password": "", "passkey": "", "stay": "1"}},
	{label: "login, wrong", name: "login", data: loginPage{Next: "account", Email: hostile, Error: hostile}, title: "Error: ", focus: "password", invalid: []string{"password"}, fields: map[string]string{"next": "account", "username": hostile, "password": "", "passkey": "", "stay": "1"}},
	{label: "login, throttled", name: "login", data: loginPage{Next: "account", Notice: hostile}, title: "Error: ", focus: "username", fields: map[string]string{"next": "account", "username": "", "password": "", "passkey": "", "stay": "1"}},
	{label: "login, only by a passkey", name: "login", data: loginPage{Next: "account", Notice: hostile, ByKey: true}, title: "Error: ", focus: "username", fields: map[string]string{"next": "account", "username": "", "password": "", "passkey": "", "stay": "1"}},
	{label: "login, of whom is known", name: "login", data: loginPage{Next: "account", Email: hostile}, title: "Log in", focus: "password", fields: map[string]string{"next": "account", "username": hostile, "password": "", "passkey": "", "stay": "1"}},
	{label: "login, fresh proof", name: "login", data: loginPage{Next: "account/password", Email: hostile, Prove: true}, title: "Is it you?", focus: "password", fields: map[string]string{"next": "account/password", "prove": "1", "username": hostile, "password": "", "passkey": ""}},
	{label: "login, wrong proof", name: "login", data: loginPage{Next: "account", Email: hostile, Prove: true, Error: hostile}, title: "Error: ", focus: "password", invalid: []string{"password"}, fields: map[string]string{"next": "account", "prove": "1", "username": hostile, "password": "", "passkey": ""}},
	{label: "logout", name: "logout", title: "Log out", fields: map[string]string{"form": ""}},
	{label: "out", name: "out", data: "https://example.org", title: "You are logged out"},
	{label: "account", name: "account", data: accountPage{Visitor: auth.Visitor{User: store.User{Profile: store.Profile{Email: hostile, FirstName: hostile, LastName: hostile}}}, Done: hostile, CanDelete: true}, title: "Your account"},
	{label: "email", name: "email", data: emailPage{}, title: "Change the e\u2011mail address", fields: map[string]string{"form": "", "email": ""}},
	{label: "email, wrong", name: "email", data: emailPage{Email: hostile, Error: hostile}, title: "Error: ", focus: "email", invalid: []string{"email"}, fields: map[string]string{"form": "", "email": hostile}},
	{label: "email, too many", name: "email", data: emailPage{Email: hostile, Notice: hostile}, title: "Error: ", fields: map[string]string{"form": "", "email": hostile}},
	{label: "emailconfirm", name: "emailconfirm", data: emailConfirmPage{hostile, hostile}, title: "Change the e\u2011mail address", fields: map[string]string{"form": "", "code": hostile}},
	{label: "emailinvalid", name: "emailinvalid", title: "This link is no longer valid"},
	{label: "delete", name: "delete", title: "Delete the account", fields: map[string]string{"form": ""}},
	{label: "gone", name: "gone", data: "https://example.org", title: "Your account is deleted"},
	{label: "data", name: "data", title: "Your data"},
	{label: "profile", name: "profile", data: profilePage{FirstName: hostile, LastName: hostile, Languages: i18n.Languages()}, title: "Name and language", fields: map[string]string{"form": "", "first_name": hostile, "last_name": hostile}},
	{label: "profile, a wrong name", name: "profile", data: profilePage{LastName: hostile, LastNameError: hostile, Language: "nl", Languages: i18n.Languages()}, title: "Error: ", focus: "last_name", invalid: []string{"last_name"}, fields: map[string]string{"form": "", "first_name": "", "last_name": hostile}},
	{label: "profile, too often", name: "profile", data: profilePage{Notice: hostile, Languages: i18n.Languages()}, title: "Error: ", fields: map[string]string{"form": "", "first_name": "", "last_name": ""}},
	{label: "profile, wrong names", name: "profile", data: profilePage{FirstNameError: hostile, LastNameError: hostile, Languages: i18n.Languages()}, title: "Error: ", focus: "first_name", invalid: []string{"first_name", "last_name"}, fields: map[string]string{"form": "", "first_name": "", "last_name": ""}},
	{label: "password", name: "password", data: passwordPage{Email: hostile, MinLength: 8}, title: "Change the password", fields: map[string]string{"form": "", "username": hostile, "password": ""}},
	{label: "password, too often", name: "password", data: passwordPage{Email: hostile, MinLength: 8, Notice: hostile}, title: "Error: ", fields: map[string]string{"form": "", "username": hostile, "password": ""}},
	{label: "password, weak", name: "password", data: passwordPage{Email: hostile, MinLength: 8, PasswordError: hostile}, title: "Error: ", focus: "password", invalid: []string{"password"}, fields: map[string]string{"form": "", "username": hostile, "password": ""}},
	{label: "code", name: "code", data: codePage{waiting: waiting{Login: hostile, Next: "account", PendingLogin: auth.PendingLogin{User: store.User{Profile: store.Profile{Email: hostile}}}}}, title: "Type the code", focus: "code", fields: map[string]string{"login": hostile, "next": "account", "code": ""}},
	{label: "code, wrong", name: "code", data: codePage{waiting: waiting{Next: hostile, PendingLogin: auth.PendingLogin{Proves: true}}, Error: hostile}, title: "Error: ", focus: "code", invalid: []string{"code"}, fields: map[string]string{"login": "", "next": hostile, "code": ""}},
	{label: "code, throttled", name: "code", data: codePage{Notice: hostile}, title: "Error: ", focus: "code", fields: map[string]string{"login": "", "next": "", "code": ""}},
	{label: "app", name: "app", data: offerPage{Enrolment: auth.Enrolment{URI: "otpauth://totp/" + hostile, Secret: hostile, Codes: []string{hostile, "B"}, Sealed: hostile}, QR: qrCode{33, "M4 4h7v1H4z"}, Replaces: true, Ends: true}, title: "Replace the authenticator app", fields: map[string]string{"form": "", "offer": hostile, "kept": "1", "code": ""}},
	{label: "app, wrong code", name: "app", data: offerPage{Kept: true, CodeError: hostile}, title: "Error: ", focus: "code", invalid: []string{"code"}, fields: map[string]string{"form": "", "offer": "", "kept": "1", "code": ""}},
	{label: "app at a login, all wrong", name: "app", data: offerPage{Login: hostile, Next: hostile, KeptError: hostile, CodeError: hostile, Notice: hostile}, title: "Error: ", focus: "kept", invalid: []string{"kept", "code"}, fields: map[string]string{"login": hostile, "next": hostile, "offer": "", "kept": "1", "code": ""}},
	{label: "codes", name: "codes", data: offerPage{Enrolment: auth.Enrolment{Codes: []string{hostile, "B"}, Sealed: hostile}}, title: "Make new recovery codes", fields: map[string]string{"form": "", "offer": hostile, "kept": "1"}},
	{label: "codes, not kept", name: "codes", data: offerPage{KeptError: hostile, Notice: hostile}, title: "Error: ", focus: "kept", invalid: []string{"kept"}, fields: map[string]string{"form": "", "offer": "", "kept": "1"}},
	{label: "security", name: "security", data: securityPage{Done: hostile}, title: "Two steps and passkeys"},
	{label: "security, with an app", name: "security", data: securityPage{Factors: auth.Factors{Demands: store.Demands{TwoSteps: true, Authenticator: true}, RecoveryCodes: 9}}, title: "Two steps and passkeys"},
	{label: "security, without codes", name: "security", data: securityPage{Factors: auth.Factors{Demands: store.Demands{Authenticator: true}}}, title: "Two steps and passkeys"},
	{label: "security, by a group", name: "security", data: securityPage{Factors: auth.Factors{Demands: store.Demands{Group: true}}}, title: "Two steps and passkeys"},
	{label: "remove", name: "remove", data: auth.Factors{}, title: "Remove the authenticator app", fields: map[string]string{"form": ""}},
	{label: "remove, by a group", name: "remove", data: auth.Factors{Demands: store.Demands{Group: true}}, title: "Remove the authenticator app"},
	{label: "two steps, on", name: "twosteps", data: auth.Factors{}, title: "Switch two steps on", fields: map[string]string{"form": ""}},
	{label: "two steps, off", name: "twosteps", data: auth.Factors{Demands: store.Demands{TwoSteps: true}}, title: "Switch two steps off", fields: map[string]string{"form": ""}},
	{label: "two steps, by a group", name: "twosteps", data: auth.Factors{Demands: store.Demands{TwoSteps: true, Group: true}}, title: "Switch two steps off"},
	{label: "passkeys", name: "passkeys", data: passkeysPage{Rows: []passkeyRow{{Passkey: auth.Passkey{ID: hostile, Name: hostile, RPID: hostile}, NewName: hostile, Elsewhere: true}}, Name: hostile, Most: 20, Done: hostile}, title: "Passkeys", fields: map[string]string{"form": "", "name": hostile, "passkey": ""}},
	{label: "passkeys, wrong names", name: "passkeys", data: passkeysPage{Rows: []passkeyRow{{Passkey: auth.Passkey{Name: hostile}}, {Passkey: auth.Passkey{Name: hostile}, Error: hostile}}, Name: hostile, Most: 20}, title: "Error: ", focus: "name-1", invalid: []string{"name-1"}, fields: map[string]string{"form": "", "name": hostile, "passkey": ""}},
	{label: "passkeys, a wrong name", name: "passkeys", data: passkeysPage{Name: hostile, Error: hostile}, title: "Error: ", focus: "name", invalid: []string{"name"}, fields: map[string]string{"form": "", "name": hostile, "passkey": ""}},
	{label: "passkeys, not made", name: "passkeys", data: passkeysPage{Name: hostile, Notice: hostile}, title: "Error: ", fields: map[string]string{"form": "", "name": hostile, "passkey": ""}},
	{label: "passkeys, full", name: "passkeys", data: passkeysPage{Full: true, Most: 20}, title: "Passkeys", fields: map[string]string{}},
	{label: "passkey, to be removed", name: "passkeyremove", data: auth.Passkey{ID: hostile, Name: hostile}, title: "Remove the passkey", fields: map[string]string{"form": "", "id": hostile}},
	{label: "security, with passkeys", name: "security", data: securityPage{Factors: auth.Factors{Passkeys: []auth.Passkey{{}, {}}}}, title: "Two steps and passkeys"},
	{label: "sessions", name: "sessions", data: []sessionRow{{ID: "a", Device: hostile, Address: hostile, Current: true}, {ID: "b"}}, title: "Where you are logged in", fields: map[string]string{"form": ""}},
	{label: "apps", name: "apps", data: []appRow{{UsedApp: auth.UsedApp{App: auth.App{ID: "a", Name: hostile, HomeURL: "https://example.org"}, In: true}, Sees: []string{hostile}}, {}}, title: "Your apps", fields: map[string]string{"form": ""}},
	{label: "apps, none", name: "apps", data: []appRow{}, title: "Your apps"},
	{label: "consent", name: "consent", data: consentPage{App: auth.App{Name: hostile}, Host: hostile, Scopes: []string{hostile}, Request: hostile, Email: hostile, Grants: true}, title: "Go on to " + hostile, fields: map[string]string{"form": "", "request": hostile}},
	{label: "consent, go on", name: "consent", data: consentPage{App: auth.App{Name: "Judo"}, Host: "127.0.0.1"}, title: "Go on to Judo?", fields: map[string]string{"form": "", "request": ""}},
	{label: "authorizeerror", name: "authorizeerror", data: authorizeErrorPage{Text: hostile}, title: "Error: This can't go on"},
	{label: "authorizeerror, with a way back", name: "authorizeerror", data: authorizeErrorPage{Text: hostile, Back: "org.example.app:/cb?error=access_denied"}, title: "Error: This can't go on"},
	{label: "activity", name: "activity", data: activityList{Rows: []activityRow{{What: hostile, App: hostile, Device: hostile, Address: hostile}}}, title: "What happened"},
	{label: "activity, none", name: "activity", data: activityList{}, title: "What happened"},
	{label: "activity, older", name: "activity", data: activityList{Rows: []activityRow{{What: "A login failed"}}, Before: "019ca945-0a00-7000-8000-01fb08ddde60", Older: "019ca945-0a00-7000-8000-01fb08ddde59"}, title: "What happened"},
	{label: "dev mails", name: "devmails", data: []struct {
		Name    string
		Message mail.Message
	}{{hostile, mail.Message{Subject: hostile, To: hostile}}}, title: "Mail"},
	{label: "dev mails, none", name: "devmails", title: "Mail"},
	{label: "dev mail", name: "devmail", data: devMailPage{mail.Message{Subject: hostile, To: hostile}, linkParts(hostile + " https://example.org/" + hostile)}, title: hostile},
}

// render makes a page in a language.
func render(t *testing.T, w http.ResponseWriter, l *i18n.Language, status int, name string, data any) {
	t.Helper()
	if err := (&Server{Language: l, PublicURL: &url.URL{Scheme: "https", Host: "auth.example.org"}}).page(w, httptest.NewRequest(http.MethodGet, "/", http.NoBody), status, name, data); err != nil {
		t.Fatal(err)
	}
}

// A page is the same at whatever depth it is shown, but for its links.
func TestPagesAtADepth(t *testing.T) {
	t.Parallel()
	for depth, want := range []string{"", "../", "../../", "../../../", "../../../../"} {
		r := httptest.NewRequest(http.MethodGet, "/"+strings.Repeat("a%2Fb/", depth), http.NoBody)
		rec := httptest.NewRecorder()
		if err := new(Server).page(rec, r, http.StatusOK, "login", loginPage{}); err != nil {
			t.Fatal(err)
		}
		for _, link := range []string{"login", "recover", "style.css"} {
			if !strings.Contains(rec.Body.String(), `"`+want+link) {
				t.Errorf("at depth %d the page has no link to %s%s:\n%s", depth, want, link, rec.Body)
			}
		}
	}
}

func TestPages(t *testing.T) {
	t.Parallel()
	for _, tt := range pageTests {
		t.Run(tt.label, func(t *testing.T) {
			t.Parallel()
			for _, l := range i18n.Languages() {
				if l == i18n.English {
					continue
				}
				rec := httptest.NewRecorder()
				render(t, rec, l, http.StatusTeapot, tt.name, tt.data)
				doc, err := html.Parse(rec.Body)
				if err != nil {
					t.Fatal(err)
				}
				p := readPage(t, doc)
				checkAccessible(t, p)
				if lang := p.all["html"][0]["lang"]; lang != l.Code {
					t.Errorf("in %s the page says that it is in %s", l.Code, lang)
				}
			}
			rec := httptest.NewRecorder()
			render(t, rec, i18n.English, http.StatusTeapot, tt.name, tt.data)
			body := rec.Body.Bytes()
			checkBalanced(t, body)
			doc, err := html.Parse(bytes.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			p := readPage(t, doc)
			checkAccessible(t, p)
			checkInert(t, p)

			if !strings.HasPrefix(p.title, tt.title) {
				t.Errorf("title = %q, want it to begin with %q", p.title, tt.title)
			}
			var focus, invalid []string
			fields := map[string]string{}
			for _, input := range p.all["input"] {
				fields[input["name"]] = input["value"]
				if _, ok := input["autofocus"]; ok {
					focus = append(focus, input["id"])
				}
				if input["aria-invalid"] == "true" {
					invalid = append(invalid, input["id"])
				}
			}
			if strings.Join(focus, " ") != tt.focus {
				t.Errorf("focus = %q, want %q", focus, tt.focus)
			}
			if !slices.Equal(invalid, tt.invalid) {
				t.Errorf("invalid fields = %q, want %q", invalid, tt.invalid)
			}
			if len(fields) != len(tt.fields) {
				t.Errorf("fields = %q, want %q", fields, tt.fields)
			}
			for name, want := range tt.fields {
				if got, ok := fields[name]; !ok || got != want {
					t.Errorf("field %s = %q (%t), want %q", name, got, ok, want)
				}
			}
		})
	}
}

// Each template file is a page that some case above renders.
func TestEveryPageIsTested(t *testing.T) {
	t.Parallel()
	files, err := pageFiles.ReadDir("pages")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		name, isPage := strings.CutSuffix(f.Name(), ".html")
		if !isPage || name == "layout" || name == "kit" {
			continue
		}
		found := false
		for _, tt := range pageTests {
			found = found || tt.name == name
		}
		if !found {
			t.Errorf("no test renders %s", f.Name())
		}
	}
}

func TestPageHeaders(t *testing.T) {
	t.Parallel()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		render(t, w, i18n.English, http.StatusForbidden, "revoked", nil)
	}))
	defer srv.Close()
	res, err := http.Get(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusForbidden || res.ContentLength <= 0 {
		t.Errorf("status %d, length %d; want 403 and a length", res.StatusCode, res.ContentLength)
	}
	for name, want := range map[string]string{
		"Content-Type":               "text/html; charset=utf-8",
		"Cache-Control":              "no-store",
		"Content-Security-Policy":    "default-src 'none'; style-src 'self'; img-src data:; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
		"Cross-Origin-Opener-Policy": "same-origin",
		"Referrer-Policy":            "same-origin",
		"X-Content-Type-Options":     "nosniff",
		"X-Frame-Options":            "DENY",
	} {
		if got := res.Header.Get(name); got != want {
			t.Errorf("%s = %q, want %q", name, got, want)
		}
	}
}

// checkBalanced reports end tags that are missing or too many: the parser
// would mend them silently.
func checkBalanced(t *testing.T, page []byte) {
	t.Helper()
	var open []string
	void := []string{"meta", "link", "input", "br", "img"}
	for z := html.NewTokenizer(bytes.NewReader(page)); ; {
		switch z.Next() {
		case html.ErrorToken:
			if len(open) > 0 {
				t.Errorf("never closed: %q", open)
			}
			return
		case html.StartTagToken:
			if name := z.Token().Data; !slices.Contains(void, name) {
				open = append(open, name)
			}
		case html.EndTagToken:
			name := z.Token().Data
			if len(open) == 0 || open[len(open)-1] != name {
				t.Fatalf("</%s> closes %q", name, open)
			}
			open = open[:len(open)-1]
		default:
		}
	}
}

type attrs map[string]string

// parsed is a page as the checks need it.
type parsed struct {
	title string
	all   map[string][]attrs // by element
	ids   map[string]string  // id to its element's text
}

func readPage(t *testing.T, doc *html.Node) parsed {
	t.Helper()
	p := parsed{all: map[string][]attrs{}, ids: map[string]string{}}
	for n := range doc.Descendants() {
		if n.Type != html.ElementNode {
			continue
		}
		a := attrs{}
		for _, at := range n.Attr {
			a[at.Key] = at.Val
		}
		p.all[n.Data] = append(p.all[n.Data], a)
		var text strings.Builder
		for d := range n.Descendants() {
			if d.Type == html.TextNode {
				text.WriteString(d.Data)
			}
		}
		if n.Data == "title" {
			p.title = text.String()
		}
		if id := a["id"]; id != "" {
			if _, twice := p.ids[id]; twice {
				t.Errorf("two elements have the id %q", id)
			}
			p.ids[id] = text.String()
		}
	}
	return p
}

// checkAccessible holds a page against what assistive technology needs.
func checkAccessible(t *testing.T, p parsed) {
	t.Helper()
	if lang := p.all["html"][0]["lang"]; i18n.Lookup(lang) == nil {
		t.Errorf("lang = %q", lang)
	}
	if n := len(p.all["h1"]); n != 1 {
		t.Errorf("%d h1", n)
	}
	if n := len(p.all["main"]); n != 1 {
		t.Errorf("%d main", n)
	}
	labelled := map[string]bool{}
	for _, l := range p.all["label"] {
		labelled[l["for"]] = true
	}
	for _, input := range p.all["input"] {
		if input["type"] == "hidden" {
			continue
		}
		if !labelled[input["id"]] {
			t.Errorf("no label for the field %q", input["name"])
		}
		if input["autocomplete"] == "" {
			t.Errorf("no autocomplete on the field %q", input["name"])
		}
		described := strings.Fields(input["aria-describedby"])
		for _, id := range described {
			if strings.TrimSpace(p.ids[id]) == "" {
				t.Errorf("field %q is described by %q, which is missing or empty", input["name"], id)
			}
		}
		if invalid := input["aria-invalid"] == "true"; invalid != slices.Contains(described, input["id"]+"-error") {
			t.Errorf("field %q: aria-invalid is %t, described by %q", input["name"], invalid, described)
		}
	}
}

// checkInert reports what the policy of the pages forbids, and script that came
// in through data.
func checkInert(t *testing.T, p parsed) {
	t.Helper()
	for _, script := range p.all["script"] {
		if !strings.HasPrefix(script["src"], "passkey.js?v=") {
			t.Errorf("the page has a script: %v", script)
		}
	}
	for _, element := range []string{"style", "iframe", "img", "object", "base"} {
		if len(p.all[element]) > 0 {
			t.Errorf("the page has a <%s>", element)
		}
	}
	for element, all := range p.all {
		for _, a := range all {
			for name, value := range a {
				if name == "style" || strings.HasPrefix(name, "on") {
					t.Errorf("<%s %s=%q>", element, name, value)
				}
				if (name == "href" || name == "action") && strings.HasPrefix(value, "javascript:") {
					t.Errorf("<%s %s=%q>", element, name, value)
				}
			}
		}
	}
	for _, form := range p.all["form"] {
		if form["method"] != "post" || strings.Contains(form["action"], "?") {
			t.Errorf("form = %q, want post without a query", form)
		}
	}
}

// All text of pages comes from the catalogue: templates have none, but those that only
// developers see.
func TestTemplatesHaveNoText(t *testing.T) {
	t.Parallel()
	files, err := pageFiles.ReadDir("pages")
	if err != nil {
		t.Fatal(err)
	}
	actions := regexp.MustCompile(`(?s)\{\{.*?\}\}`)
	for _, f := range files {
		if !strings.HasSuffix(f.Name(), ".html") || strings.HasPrefix(f.Name(), "dev") {
			continue
		}
		source, err := pageFiles.ReadFile("pages/" + f.Name())
		if err != nil {
			t.Fatal(err)
		}
		tokens := html.NewTokenizer(bytes.NewReader(actions.ReplaceAll(source, nil)))
		for kind := tokens.Next(); kind != html.ErrorToken; kind = tokens.Next() {
			token := tokens.Token()
			if kind == html.TextToken && strings.ContainsFunc(token.Data, unicode.IsLetter) {
				t.Errorf("%s has the text %q", f.Name(), strings.TrimSpace(token.Data))
			}
			for _, a := range token.Attr {
				if slices.Contains([]string{"title", "alt", "placeholder", "aria-label"}, a.Key) && strings.ContainsFunc(a.Val, unicode.IsLetter) {
					t.Errorf("%s has the text %q", f.Name(), a.Val)
				}
			}
		}
	}
}

// The language is the one that the address or the browser asks for, and stays
// within what there is.
func TestPagesAreInTheBrowsersLanguage(t *testing.T) {
	t.Parallel()
	s := &Server{Language: i18n.Lookup("nl")}
	for _, tt := range []struct{ query, accept, want string }{
		{"", "", "Wachtwoord vergeten"},
		{"", "fr-BE,fr;q=0.9,en;q=0.5", "Mot de passe oublié"},
		{"?ui_locales=xx%20de-AT", "fr", "Passwort vergessen"},
		{"?ui_locales=%00", "en", "Forgotten password"},
		{"", strings.Repeat("x", 8192), "Wachtwoord vergeten"},
	} {
		r := httptest.NewRequest(http.MethodGet, "/recover"+tt.query, http.NoBody)
		r.Header.Set("Accept-Language", tt.accept)
		rec := httptest.NewRecorder()
		if err := s.recoverPage(rec, r); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(rec.Body.String(), "<h1>"+tt.want+"</h1>") {
			t.Errorf("%q, %.20q: got %q in\n%s", tt.query, tt.accept, rec.Header().Get("Content-Language"), rec.Body)
		}
	}
}
