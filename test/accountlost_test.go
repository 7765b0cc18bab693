package test

import (
	"net/http"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"

	"kwai/internal/testing/cluster"
	"kwai/internal/testing/need"
)

var (
	loginPage = []string{
		`heading "Log in"`, emailField, passwordField, `checkbox "Stay logged in on this device"`, loginButton, `link "Forgotten the password?"`,
	}
	provePage = []string{
		`heading "Is it you?"`, emailField, passwordField, `button "Go on"`, `link "Forgotten the password?"`, `link "Back to your account"`,
	}
	passwordChange = append(navigation[:2:2], `heading "Change the password"`, emailField, `textbox "New password" (`+passwordHint+`)`, saveButton)
)

// trouble is a site of which answers get lost on their way.
type trouble struct {
	*site
	browser func() *tab // another browser
	losing  atomic.Bool // answers to POST
	lost    atomic.Int32
}

// answered is what the proxy does with an answer before its head is sent.
func (x *trouble) answered(r *http.Response) error {
	if x.losing.Load() && r.Request.Method == http.MethodPost {
		x.lost.Add(1)
		panic(http.ErrAbortHandler)
	}
	return nil
}

// Nobody is locked out or logged out where a connection breaks or a browser is
// restored, and nobody acts for somebody else.
func TestAccountInTrouble(t *testing.T) {
	t.Parallel()
	need.Time(t)
	browser := startBrowser(t)
	for _, tt := range []struct {
		promise string
		test    func(t *testing.T, x *trouble, b *tab)
	}{
		{"a login whose answer is lost is repeated", lostLogin},
		{"a fresh proof whose answer is lost is repeated, and logs nobody out", lostProof},
		{"a browser that is restored is led to the login, and ends nothing", restored},
		{"a form of one user, sent by another, changes nothing", anothersForm},
		{"a stolen cookie dies with its owner's next proof", stolenCookie},
	} {
		t.Run(tt.promise, func(t *testing.T) {
			each(t, func(t *testing.T, k cluster.Kwai) {
				x := &trouble{}
				var public string
				x.site, public = startBehindProxy(t, loopbackName, "", k, x.answered)
				x.user("ann@example.org", "the old password")
				x.user("bob@example.org", "the old password")
				x.browser = func() *tab { return openTab(t, browser, public) }
				tt.test(t, x, x.browser())
			})
		})
	}
}

// enter logs in from wherever the browser is led to the login.
func (b *tab) enter(email string) {
	b.t.Helper()
	b.typeInto("username", email)
	b.typeInto("password", "the old password")
	b.click(200, "button")
}

// clickInVain is click where the answer gets lost. (Browsers send a request anew by
// themselves, once, if they had used the connection before.)
func (x *trouble) clickInVain(b *tab) {
	b.t.Helper()
	x.losing.Store(true)
	defer x.losing.Store(false)
	before := x.lost.Load()
	url := eval[string](b, "document.forms[0].action")
	b.mu.Lock()
	b.refused = append(b.refused, url)
	b.origins = append(b.origins, "data:image") // the browser's own page that says so has pictures
	b.mu.Unlock()
	if _, err := chromedp.RunResponse(b.ctx, chromedp.Click(chromedp.CSS("button"))); err == nil || x.lost.Load() == before {
		b.t.Fatalf("no answer was lost: %v", err)
	}
}

// age has all proofs have been given a while ago.
func (x *trouble) age(t *testing.T) {
	t.Helper()
	_, err := rawDatabase(t, x.kwai.DatabaseURL()).ExecContext(t.Context(), `UPDATE sessions SET auth_time = auth_time - 660000000`)
	if err != nil {
		t.Fatal(err)
	}
}

// cookie is the one of the browser's session.
func (b *tab) cookie() string {
	b.t.Helper()
	res, err := chromedp.Call(b.ctx, network.GetCookies, network.GetCookiesParams{URLs: []string{b.home}})
	if err != nil {
		b.t.Fatal(err)
	}
	for _, c := range res.Cookies {
		if c.Name == "kwai-dev" {
			return c.Value
		}
	}
	b.t.Fatal("there is no cookie")
	return ""
}

func (b *tab) setCookie(value string) {
	b.t.Helper()
	httpOnly := true
	call(b, network.SetCookie, network.SetCookieParams{Name: "kwai-dev", Value: value, URL: b.home, Path: "/", HTTPOnly: &httpOnly, SameSite: network.CookieSameSiteLax})
}

func lostLogin(t *testing.T, x *trouble, b *tab) {
	b.open(200, b.home+"/account/sessions")
	b.typeInto("username", "ann@example.org")
	b.typeInto("password", "the old password")
	x.clickInVain(b)
	if x.number(`SELECT COUNT(*) FROM sessions`) == 0 {
		t.Error("the server opened no session")
	}
	b.open(200, b.home+"/account/sessions")
	b.sees("", loginPage...)
	b.enter("ann@example.org")
	if at := eval[string](b, "location.pathname"); at != "/account/sessions" {
		t.Errorf("the login led to %s", at)
	}
}

func lostProof(t *testing.T, x *trouble, b *tab) {
	b.open(200, b.home+"/account")
	b.enter("ann@example.org")
	sessions := x.number(`SELECT COUNT(*) FROM sessions`)
	for range 3 {
		x.age(t)
		b.open(200, b.home+"/account/password")
		b.sees("", provePage...)
		b.typeInto("password", "the old password")
		x.clickInVain(b)
		b.open(200, b.home+"/account") // still logged in
		b.sees("", accountPage...)
	}
	b.open(200, b.home+"/account/password")
	b.sees("", provePage...)
	b.typeInto("password", "the old password")
	b.click(200, "button")
	b.sees("", passwordChange...)
	if n := x.number(`SELECT COUNT(*) FROM sessions`); n != sessions {
		t.Errorf("there are %d sessions, were %d", n, sessions)
	}
	b.typeInto("password", "a tatami by the sea")
	b.click(200, "button")
	b.sees("", accountDone(`status "The password is changed."`)...)
}

// prove gives a fresh proof, which is asked for before the password can be changed.
func (x *trouble) prove(t *testing.T, b *tab) {
	t.Helper()
	x.age(t)
	b.open(200, b.home+"/account/password")
	b.sees("", provePage...)
	b.typeInto("password", "the old password")
	b.click(200, "button")
	b.sees("", passwordChange...)
}

func restored(t *testing.T, x *trouble, b *tab) {
	b.open(200, b.home+"/account")
	b.enter("ann@example.org")
	yesterday := b.cookie()
	x.prove(t, b)
	today := b.cookie()
	elsewhere := x.browser()
	elsewhere.setCookie(today)
	b.setCookie(yesterday)
	b.open(200, b.home+"/account/activity")
	b.sees("", loginPage...)
	if b.cookie() != yesterday {
		t.Error("an answer to a dead cookie changed it")
	}
	elsewhere.open(200, b.home+"/account")
	elsewhere.sees("", accountPage...)
	b.enter("ann@example.org")
	b.open(200, b.home+"/account")
	b.sees("", accountPage...)
	elsewhere.load(200, chromedp.Reload())
	elsewhere.sees("", accountPage...)
}

func anothersForm(t *testing.T, x *trouble, anns *tab) {
	bobs, leaving, proving := anns.another(), anns.another(), anns.another()
	bobs.open(200, anns.home+"/account/activity") // the login, from before Ann's
	anns.open(200, anns.home+"/account")
	anns.enter("ann@example.org")
	ann := anns.cookie()
	leaving.open(200, anns.home+"/logout")
	x.age(t)
	proving.open(200, anns.home+"/account/password")
	proving.sees("", provePage...)
	anns.open(200, anns.home+"/account/password")
	anns.typeInto("password", "the old password")
	anns.click(200, "button")
	anns.typeInto("password", "a password of Ann's")
	bobs.enter("bob@example.org")
	failures := x.number(`SELECT COUNT(*) FROM audit_log WHERE kind = 'login.failed'`)

	anns.click(200, "button")
	anns.sees("", passwordChange...)
	leaving.click(200, "button")
	leaving.sees("", append(navigation[:2:2], `heading "Log out"`, `button "Log out here"`, `button "Log out everywhere"`)...)
	proving.typeInto("password", "the old password")
	x.age(t)
	proving.click(200, "button")
	proving.sees("", provePage...)
	for _, b := range []*tab{anns, proving} {
		if of := eval[string](b, "document.getElementById('username').value"); of != "bob@example.org" {
			t.Errorf("the page is %s's", of)
		}
	}
	bobs.load(200, chromedp.Reload())
	for _, email := range []string{"ann@example.org", "bob@example.org"} {
		x.post("login", "", "username", email, "password", "the old password").wants(t, 200, "a login with the password from before")
	}
	if n := x.number(`SELECT COUNT(*) FROM audit_log WHERE kind = 'login.failed'`); n != failures {
		t.Errorf("%d failed logins were counted", n-failures)
	}
	elsewhere := x.browser() // Ann's session ended with Bob's login
	elsewhere.setCookie(ann)
	elsewhere.open(200, anns.home+"/account")
	elsewhere.sees("", loginPage...)
}

func stolenCookie(t *testing.T, x *trouble, owner *tab) {
	owner.open(200, owner.home+"/account")
	owner.enter("ann@example.org")
	thief := x.browser()
	thief.setCookie(owner.cookie())
	thief.open(200, owner.home+"/account")
	thief.sees("", accountPage...)
	x.prove(t, owner)
	for range 3 {
		thief.open(200, owner.home+"/account/password")
		thief.sees("", loginPage...)
	}
	owner.open(200, owner.home+"/account")
	owner.sees("", accountPage...)
	if owner.cookie() == thief.cookie() || slices.Contains([]string{owner.cookie(), thief.cookie()}, "") {
		t.Error("the thief has the owner's cookie")
	}
}
