package auth_test

import (
	"time"

	"pgregory.net/rapid"

	"kwai/internal/auth"
)

// The sessions of browsers, in the model.

// modelBrowser is what a session has if it is a browser's.
type modelBrowser struct {
	newest int // number of a cookie
	seen   int // the newest number that has come back
	proved time.Time
}

// modelForm is a form that was shown.
type modelForm struct {
	modelCookie // by which it was shown
	fresh       bool
	seal        string
}

// modelCookie is a cookie that was given.
type modelCookie struct {
	session *modelSession
	number  int
}

func (m *model) value(c modelCookie) string {
	return m.s.Ring().Browser(c.session.id, uint64(c.number))
}

// good says whether a cookie is worth something.
func (m *model) good(c modelCookie) bool {
	b := c.session.browser
	return b != nil && m.live(c.session) && (c.number >= b.newest || c.number == b.newest-1 && b.seen < b.newest)
}

// checkCookies tries the cookies of live sessions that must be dead. They change
// nothing, however often they come.
func (m *model) checkCookies(t *rapid.T) {
	for _, c := range m.cookies {
		if m.live(c.session) && !m.good(c) {
			m.visitor(t, c)
		}
	}
}

func (m *model) browse(t *rapid.T, email, password string, stay bool) {
	cookie, err := m.s.LoginBrowser(t.Context(), auth.Client{}, email, password, stay, "")
	user := m.users[email]
	if user == nil || user.revoked || user.password == "" || user.password != password {
		wantErr(t, "login", err, auth.ErrCredentials)
		return
	}
	ok(t, err)
	id, number, err := m.s.Ring().ParseBrowser(cookie.Value)
	ok(t, err)
	now := m.c.now()
	session := &modelSession{user: user, id: id, created: now, renewed: now, browser: &modelBrowser{proved: now}}
	m.sessions = append(m.sessions, session)
	m.give(t, session, int(number), cookie)
	if want := now.Add(m.s.Settings.SessionLife); stay != cookie.Expires.Equal(want) || stay == cookie.Expires.IsZero() {
		t.Fatalf("the cookie expires at %v, is to stay: %v", cookie.Expires, stay)
	}
}

// give notes a cookie, which must be the session's newest.
func (m *model) give(t *rapid.T, s *modelSession, number int, cookie auth.Cookie) {
	c := modelCookie{s, number}
	if number != s.browser.newest || cookie.Value != m.value(c) {
		t.Fatalf("the cookie has the number %d, must have %d", number, s.browser.newest)
	}
	m.cookies = append(m.cookies, c)
}

// visitor visits by a cookie: false where it is worth nothing.
func (m *model) visitor(t *rapid.T, c modelCookie) (auth.Visitor, bool) {
	v, err := m.s.Visitor(t.Context(), m.value(c))
	if !m.good(c) {
		wantErr(t, "a visit by a dead cookie", err, auth.ErrNotLoggedIn)
		return v, false
	}
	ok(t, err)
	now, b := m.c.now(), c.session.browser
	age, newest := now.Sub(b.proved), c.number == b.newest
	if v.Fresh != (newest && age < 10*time.Minute) || v.FreshForm != v.Fresh {
		t.Fatalf("the visit is fresh: %v, for a form: %v; the cookie is the newest: %v, proved %v ago", v.Fresh, v.FreshForm, newest, age)
	}
	if v.ID != c.session.user.ID || v.User.Email != c.session.user.Email || v.SessionID != c.session.id.String() {
		t.Fatal("the visitor is somebody else")
	}
	if newest {
		b.seen = c.number
	}
	if now.Sub(c.session.renewed) > min(time.Hour, m.s.Settings.RefreshIdle/10) {
		c.session.renewed = now
	}
	return v, true
}

// visitAhead comes with a cookie that the database has lost.
func (m *model) visitAhead(t *rapid.T, s *modelSession, by int) {
	c := modelCookie{s, by}
	if s.browser != nil {
		c.number += s.browser.newest
	}
	if _, in := m.visitor(t, c); in {
		m.cookies = append(m.cookies, c)
	}
}

func (m *model) prove(t *rapid.T, c modelCookie, password string) {
	v, in := m.visitor(t, c)
	if !in {
		return
	}
	cookie, err := m.s.Prove(t.Context(), auth.Client{}, v, password, "")
	s := c.session
	if s.user.password != password {
		wantErr(t, "a proof", err, auth.ErrCredentials)
		return
	}
	ok(t, err)
	s.renewed = m.c.now()
	b := s.browser
	if c.number != b.newest-1 || b.seen == b.newest { // else the answer with the newest was lost
		b.newest = max(b.newest, c.number) + 1
	}
	b.proved = m.c.now()
	m.give(t, s, b.newest, cookie)
}

func (m *model) logoutVisitor(t *rapid.T, c modelCookie, everywhere bool) {
	v, in := m.visitor(t, c)
	if !in {
		return
	}
	if everywhere {
		ok(t, m.s.EndOtherSessions(t.Context(), auth.Client{}, v.Caller))
		m.endSessions(c.session.user, c.session)
	}
	ok(t, m.s.LogoutVisitor(t.Context(), auth.Client{}, v))
	c.session.over = true
	ok(t, m.s.LogoutVisitor(t.Context(), auth.Client{}, v)) // by another tab
}

// show shows a form.
func (m *model) show(t *rapid.T, c modelCookie) {
	if v, in := m.visitor(t, c); in {
		seal, err := m.s.FormMAC(t.Context(), v)
		ok(t, err)
		m.forms = append(m.forms, modelForm{c, v.Fresh, seal})
	}
}

// send sends a form by a cookie.
func (m *model) send(t *rapid.T, c modelCookie, f modelForm, password string) {
	v, in := m.visitor(t, c)
	if !in {
		return
	}
	v, took, err := m.s.TakeForm(t.Context(), v, f.seal)
	ok(t, err)
	b := c.session.browser
	inTime := c.number == b.newest && m.c.now().Sub(b.proved) < 25*time.Minute
	if took != (f.session == c.session) || v.FreshForm != (v.Fresh || took && inTime && f.fresh && f.number == c.number) {
		t.Fatalf("a form of number %d, fresh: %v, sent with number %d: it is taken: %v, counts as fresh: %v", f.number, f.fresh, c.number, took, v.FreshForm)
	}
	if took {
		m.choose(t, c, v, password)
	}
}

func (m *model) choose(t *rapid.T, c modelCookie, v auth.Visitor, password string) {
	cookie, err := m.s.ChoosePassword(t.Context(), auth.Client{}, v, password)
	switch {
	case !v.FreshForm:
		wantErr(t, "a password without a fresh proof", err, auth.ErrNotLoggedIn)
	case len(password) < 10:
		if auth.CodeOf(err) != auth.Invalid {
			t.Fatalf("a weak password: error %v", err)
		}
	default:
		ok(t, err)
		m.passwordChanged(c.session.user, c.session, password)
		c.session.renewed = m.c.now()
		c.session.browser.newest = c.number + 1
		m.give(t, c.session, c.number+1, cookie)
	}
}

// endFrom ends a session from a browser, perhaps the browser's own.
func (m *model) endFrom(t *rapid.T, c modelCookie, s *modelSession) {
	if v, in := m.visitor(t, c); in {
		m.endBy(t, v.Caller, c.session.user, s)
	}
}
