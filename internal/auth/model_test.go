package auth_test

import (
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"
	"pgregory.net/rapid"

	"kwai/internal/auth"
	"kwai/internal/store"
)

// model is the rules once more, in plain data and without a thought of races
// or storage: what each operation must answer, given all that came before.
type model struct {
	s      *server
	c      *clock
	began  time.Time
	beside *sql.DB

	emails     []string // the addresses that are tried; some have an account
	users      map[string]*modelUser
	sessions   []*modelSession
	tokens     []*modelToken // all that were handed out
	cookies    []modelCookie // likewise
	forms      []modelForm   // likewise
	events     []*modelEvent // all that ask for a recovery
	recoveries []*modelRecovery
	asked      map[string]time.Time // addresses that wait for a recovery, since when
}

type modelUser struct {
	store.User
	password string    // "": none was chosen yet
	changed  time.Time // when it was; zero: never
	revoked  bool
	deleted  bool
	latest   time.Time // request of the latest recovery that was made
	notices  map[string]int
}

type modelSession struct {
	user             *modelUser
	id               uuid.UUID
	created, renewed time.Time
	current          int               // number of the refresh token that is next
	replaced         map[int]time.Time // when those before were replaced
	over             bool
	browser          *modelBrowser // nil: it is one of the API
}

type modelToken struct {
	auth.Tokens
	session *modelSession
	number  int
}

type modelEvent struct {
	store.Event
	user *modelUser
	made *modelRecovery
}

type modelRecovery struct {
	auth.RecoveryMail
	user *modelUser
	over bool
}

func TestTheRulesHoldInAnyOrder(t *testing.T) {
	passwords := rapid.SampledFrom([]string{oldPassword, newPassword, "twelve orange lanterns"})
	weak := rapid.SampledFrom([]string{"short", "password1"})
	waits := rapid.SampledFrom([]time.Duration{
		time.Millisecond, time.Second, 10 * time.Second, 20 * time.Second, 30 * time.Second, time.Minute - time.Microsecond,
		time.Minute, 2 * time.Minute, 10 * time.Minute, 30 * time.Minute, time.Hour,
	})
	longer(t, func(t *testing.T, url string) {
		c := newClock()
		s := start(t, url, c.now, nil)
		s.Settings.AccessTTL, s.Settings.RefreshIdle, s.Settings.SessionLife = 10*time.Minute, 2*time.Hour, 5*time.Hour
		s.Settings.RecoveryLife, s.Settings.InvitationLife = 30*time.Minute, time.Hour
		runs := 0
		rapid.Check(t, func(rt *rapid.T) {
			runs++
			m := newModel(rt, s, c, s.database(t), runs)
			email := rapid.SampledFrom(m.emails)
			m.create(rt, m.emails[0], oldPassword)
			rt.Repeat(map[string]func(*rapid.T){
				"":     m.check,
				"wait": func(t *rapid.T) { c.advance(waits.Draw(t, "for")) },
				"create": func(t *rapid.T) {
					m.create(t, email.Draw(t, "email"), rapid.OneOf(passwords, rapid.Just("")).Draw(t, "password"))
				},
				"login": func(t *rapid.T) { m.login(t, email.Draw(t, "email"), passwords.Draw(t, "password")) },
				"login again": func(t *rapid.T) {
					if user := m.users[m.emails[0]]; user != nil {
						m.login(t, m.emails[0], user.password)
					}
				},
				// Thrice, as it is what happens most.
				"renew":        func(t *rapid.T) { m.renew(t, pick(t, m.tokens)) },
				"renew too":    func(t *rapid.T) { m.renew(t, pick(t, m.tokens)) },
				"renew newest": func(t *rapid.T) { m.renew(t, pick(t, m.tokens[max(0, len(m.tokens)-2):])) },
				"renew ahead":  func(t *rapid.T) { m.renewAhead(t, pick(t, m.sessions), rapid.IntRange(1, 3).Draw(t, "by")) },
				"access":       func(t *rapid.T) { m.access(t, pick(t, m.tokens)) },
				"logout":       func(t *rapid.T) { m.logout(t, email.Draw(t, "email"), pick(t, m.tokens)) },
				"change": func(t *rapid.T) {
					m.change(t, pick(t, m.tokens), passwords.Draw(t, "current"), rapid.OneOf(passwords, weak).Draw(t, "password"))
				},
				"browse": func(t *rapid.T) {
					m.browse(t, email.Draw(t, "email"), passwords.Draw(t, "password"), rapid.Bool().Draw(t, "stay"))
				},
				"browse again": func(t *rapid.T) {
					if user := m.users[m.emails[0]]; user != nil {
						m.browse(t, m.emails[0], user.password, true)
					}
				},
				"visit":       func(t *rapid.T) { m.visitor(t, pick(t, m.cookies)) },
				"visit newer": func(t *rapid.T) { m.visitor(t, pick(t, m.cookies[max(0, len(m.cookies)-2):])) },
				"visit ahead": func(t *rapid.T) { m.visitAhead(t, pick(t, m.sessions), rapid.IntRange(1, 3).Draw(t, "by")) },
				"prove":       func(t *rapid.T) { m.prove(t, pick(t, m.cookies), passwords.Draw(t, "password")) },
				"prove again": func(t *rapid.T) {
					c := pick(t, m.cookies[max(0, len(m.cookies)-2):])
					m.prove(t, c, c.session.user.password)
				},
				"show form": func(t *rapid.T) { m.show(t, pick(t, m.cookies)) },
				"send form": func(t *rapid.T) {
					m.send(t, pick(t, m.cookies), pick(t, m.forms), rapid.OneOf(passwords, weak).Draw(t, "password"))
				},
				"leave":      func(t *rapid.T) { m.logoutVisitor(t, pick(t, m.cookies), rapid.Bool().Draw(t, "everywhere")) },
				"end from":   func(t *rapid.T) { m.endFrom(t, pick(t, m.cookies), pick(t, m.sessions)) },
				"end":        func(t *rapid.T) { m.end(t, pick(t, m.tokens), pick(t, m.sessions)) },
				"end others": func(t *rapid.T) { m.endOthers(t, pick(t, m.tokens)) },
				"recover":    func(t *rapid.T) { m.recover(t, email.Draw(t, "email")) },
				"take":       m.take,
				"deliver":    func(t *rapid.T) { m.deliver(t, pick(t, m.events)) },
				"reset":      func(t *rapid.T) { m.reset(t, pick(t, m.recoveries), rapid.OneOf(passwords, weak).Draw(t, "password")) },
				"address":    func(t *rapid.T) { m.address(t, email.Draw(t, "email"), email.Draw(t, "new")) },
				// Seldom, or nobody would stay logged in for long.
				"operate": func(t *rapid.T) {
					rapid.SampledFrom([]func(*rapid.T, string){
						func(t *rapid.T, email string) { m.setPassword(t, email, passwords.Draw(t, "password")) },
						m.delete,
						func(t *rapid.T, email string) { m.revoke(t, email, true) },
						func(t *rapid.T, email string) { m.revoke(t, email, false) },
						func(t *rapid.T, email string) { m.revoke(t, email, false) },
					}).Draw(t, "operation")(t, email.Draw(t, "email"))
				},
				// Seldom, as it takes as long as fifty others.
				"restart": func(rt *rapid.T) {
					if rapid.IntRange(0, 3).Draw(rt, "or not") == 0 {
						ok(rt, s.Store.Close())
						s.open(t)
					}
				},
			})
		})
	})
}

// pick draws one of what there is, the newest more often.
func pick[T any](t *rapid.T, all []T) T {
	if len(all) == 0 {
		t.Skip("there is none")
	}
	return all[len(all)-1-rapid.IntRange(0, len(all)-1).Draw(t, "before the newest")]
}

// newModel begins with addresses that nobody used yet, and with time at the
// same point of a reuse window.
func newModel(t *rapid.T, s *server, c *clock, beside *sql.DB, run int) *model {
	c.set(c.now().Truncate(24 * time.Hour).Add(48 * time.Hour))
	for must(s.TakeRecoveries(t.Context()))(t) > 0 {
	}
	for _, d := range s.outbox(t) {
		ok(t, s.Store.InTx(t.Context(), func(tx *store.Tx) error {
			_, err := tx.Delivered(auth.SubscriberMail, d.ID)
			return err
		}))
	}
	m := &model{s: s, c: c, began: c.now(), beside: beside, users: map[string]*modelUser{}, asked: map[string]time.Time{}}
	for i := range 3 {
		m.emails = append(m.emails, fmt.Sprintf("user%d-%d@example.org", run, i))
	}
	return m
}

// check compares what is stored with what must be; then a moment goes by.
func (m *model) check(t *rapid.T) {
	lives := store.Lifetimes{Idle: m.s.Settings.RefreshIdle, Session: m.s.Settings.SessionLife}
	rows := m.stored(t)
	for _, session := range m.sessions {
		row, there := rows[session.id.String()]
		if live := there && row.Live(m.c.now(), lives); live != m.live(session) {
			t.Fatalf("a session is alive: %v, must be: %v", live, !live)
		}
		if b := session.browser; m.live(session) && b != nil && (row.Counter != int64(b.newest) || !row.AuthTime.Equal(b.proved)) {
			t.Fatalf("the cookie has the number %d of %v, must have %d of %v", row.Counter, row.AuthTime, b.newest, b.proved)
		}
	}
	m.checkCookies(t)
	outbox := m.s.outbox(t)
	for _, user := range m.users {
		for _, kind := range []string{auth.EventPasswordChanged, auth.EventReplay, auth.EventEmailChanged} {
			n := 0
			for _, d := range outbox {
				if d.UserID == user.ID && d.Type == kind {
					n++
				}
			}
			if n != user.notices[kind] {
				t.Fatalf("%d notices %s, must be %d", n, kind, user.notices[kind])
			}
		}
	}
	m.c.advance(time.Microsecond)
}

// stored are all rows of this run's sessions, in one query, by their ids.
func (m *model) stored(t *rapid.T) map[string]store.Session {
	rows, err := m.beside.QueryContext(t.Context(), `SELECT id, created_at, renewed_at, counter, auth_time, COALESCE(ends_at, 0), COALESCE(ended_at, 0) FROM sessions WHERE created_at >= $1`, m.began.UnixMicro())
	ok(t, err)
	defer rows.Close()
	all := make(map[string]store.Session)
	for rows.Next() {
		var id string
		var created, renewed, number, proved, ends, ended int64
		ok(t, rows.Scan(&id, &created, &renewed, &number, &proved, &ends, &ended))
		s := store.Session{CreatedAt: time.UnixMicro(created), RenewedAt: time.UnixMicro(renewed), Counter: number, AuthTime: time.UnixMicro(proved)}
		if ends > 0 {
			s.EndsAt = time.UnixMicro(ends)
		}
		if ended > 0 {
			s.EndedAt = time.UnixMicro(ended)
		}
		all[id] = s
	}
	ok(t, rows.Err())
	return all
}

func (m *model) live(s *modelSession) bool {
	now := m.c.now()
	return !s.over && now.Sub(s.renewed) < m.s.Settings.RefreshIdle && now.Sub(s.created) < m.s.Settings.SessionLife
}

func (m *model) create(t *rapid.T, email, password string) {
	_, err := m.s.CreateUser(t.Context(), auth.NewUser{Email: email, Password: password})
	if m.users[email] != nil {
		wantErr(t, "a second account", err, auth.ErrUserExists)
		return
	}
	ok(t, err)
	user := &modelUser{User: must(m.s.User(t.Context(), email))(t), password: password, notices: map[string]int{}}
	if password == "" {
		m.published(t, user, auth.EventInvitation, m.c.now(), m.s.Settings.InvitationLife)
	}
	m.users[email] = user
}

// published finds the newest event, which must be the one described.
func (m *model) published(t *rapid.T, user *modelUser, kind string, at time.Time, life time.Duration) {
	for _, d := range m.s.outbox(t) {
		e := &modelEvent{Event: d.Event, user: user}
		known := slices.ContainsFunc(m.events, func(o *modelEvent) bool { return o.ID == e.ID })
		if !known && e.UserID == user.ID && e.Type == kind {
			if !e.CreatedAt.Equal(at) || !e.ExpiresAt.Equal(at.Add(life)) {
				t.Fatalf("the event is of %v to %v, must be of %v for %v", e.CreatedAt, e.ExpiresAt, at, life)
			}
			m.events = append(m.events, e)
			return
		}
	}
	t.Fatalf("no event %s was published", kind)
}

func (m *model) login(t *rapid.T, email, password string) {
	tokens, err := m.s.Login(t.Context(), auth.Client{}, email, password)
	user := m.users[email]
	if user == nil || user.revoked || user.password == "" || user.password != password {
		wantErr(t, "login", err, auth.ErrCredentials)
		return
	}
	ok(t, err)
	id, _, err := m.s.Ring().ParseRefresh(tokens.Refresh)
	ok(t, err)
	now := m.c.now()
	session := &modelSession{user: user, id: id, created: now, renewed: now, replaced: map[int]time.Time{}}
	m.sessions = append(m.sessions, session)
	m.handOut(t, session, tokens)
}

// handOut notes a session's current tokens.
func (m *model) handOut(t *rapid.T, s *modelSession, tokens auth.Tokens) {
	if tokens.Refresh != m.s.Ring().Refresh(s.id, uint64(s.current)) {
		t.Fatal("it is not the current refresh token")
	}
	for _, end := range []time.Time{
		m.c.now().Add(m.s.Settings.AccessTTL), s.created.Add(m.s.Settings.SessionLife), s.renewed.Add(m.s.Settings.RefreshIdle),
	} {
		if tokens.ExpiresAt.After(end) {
			t.Fatalf("the access token expires at %v, must by %v", tokens.ExpiresAt, end)
		}
	}
	m.tokens = append(m.tokens, &modelToken{tokens, s, s.current})
}

func (m *model) renew(t *rapid.T, token *modelToken) {
	now, s, window := m.c.now(), token.session, m.s.Settings.ReuseWindow
	got, err := m.s.Renew(t.Context(), auth.Client{}, token.Refresh, now)
	age := now.Sub(s.replaced[token.number])
	switch {
	case !m.live(s):
		wantErr(t, "renewal of a dead session", err, auth.ErrRefresh)
	case token.number == s.current:
		ok(t, err)
		s.replaced[s.current], s.renewed = now, now
		s.current++
		m.handOut(t, s, got)
	case err == nil && age < 2*window:
		m.handOut(t, s, got)
	case age >= window:
		wantErr(t, "replay", err, auth.ErrRefresh)
		s.over = true
		s.user.notices[auth.EventReplay]++
	default:
		t.Fatalf("a token replaced %v ago was refused: %v", age, err)
	}
}

// renewAhead comes with a token that the database has lost.
func (m *model) renewAhead(t *rapid.T, s *modelSession, by int) {
	now := m.c.now()
	got, err := m.s.Renew(t.Context(), auth.Client{}, m.s.Ring().Refresh(s.id, uint64(s.current+by)), now)
	if !m.live(s) || s.browser != nil {
		wantErr(t, "renewal of a dead session, or a browser's", err, auth.ErrRefresh)
		return
	}
	ok(t, err)
	for ; by >= 0; by-- {
		s.replaced[s.current] = now
		lost := auth.Tokens{Refresh: m.s.Ring().Refresh(s.id, uint64(s.current))}
		m.tokens = append(m.tokens, &modelToken{lost, s, s.current})
		s.current++
	}
	s.renewed = now
	m.handOut(t, s, got)
}

func (m *model) access(t *rapid.T, token *modelToken) {
	user, err := m.s.Check(t.Context(), token.Access)
	if !m.live(token.session) || !m.c.now().Before(token.ExpiresAt) {
		wantErr(t, "check", err, auth.ErrNotLoggedIn)
		return
	}
	ok(t, err)
	if user.ID != token.session.user.ID {
		t.Fatal("the token is another user's")
	}
}

func (m *model) logout(t *rapid.T, email string, token *modelToken) {
	user := m.users[email]
	if user == nil {
		t.Skip("no account")
	}
	err := m.s.Logout(t.Context(), auth.Client{}, auth.Caller{Profile: user.Profile}, token.Refresh)
	if !m.live(token.session) || token.session.user != user {
		wantErr(t, "logout", err, auth.ErrNoSession)
		return
	}
	ok(t, err)
	token.session.over = true
}

func (m *model) recover(t *rapid.T, email string) {
	ok(t, m.s.Recover(t.Context(), auth.Client{}, email))
	m.asked[email] = m.c.now()
}

func (m *model) take(t *rapid.T) {
	before := len(m.s.outbox(t))
	if n := must(m.s.TakeRecoveries(t.Context()))(t); n != len(m.asked) {
		t.Fatalf("%d requests were taken, must be %d", n, len(m.asked))
	}
	published := 0
	for _, email := range m.emails {
		at, asked := m.asked[email]
		if user := m.users[email]; asked && user != nil && !user.revoked {
			life := m.s.Settings.RecoveryLife
			if user.password == "" { // never to shorten an invitation
				life = m.s.Settings.InvitationLife
			}
			m.published(t, user, auth.EventRecovery, at, life)
			published++
		}
	}
	if n := len(m.s.outbox(t)) - before; n != published {
		t.Fatalf("%d events were published, must be %d", n, published)
	}
	clear(m.asked)
}

// deliver makes an event's recovery: for the first time, or once more because
// the mail could not be sent.
func (m *model) deliver(t *rapid.T, e *modelEvent) {
	got, made, err := m.s.MakeRecovery(t.Context(), e.Event)
	ok(t, err)
	switch {
	case e.user.deleted || e.user.revoked || !m.c.now().Before(e.ExpiresAt) || e.made != nil && e.made.over:
		if made {
			t.Fatal("a recovery was made that must not be")
		}
		if e.user.revoked && e.made != nil {
			e.made.over = true // it is no longer mailed
		}
	case e.made != nil:
		if !made || got != e.made.RecoveryMail && got.ID != e.made.ID {
			t.Fatalf("another id was made: %v", made)
		}
	case e.CreatedAt.After(e.user.latest) && !e.CreatedAt.Before(e.user.changed):
		if !made || !got.ExpiresAt.Equal(e.ExpiresAt) {
			t.Fatalf("no recovery was made: %v", made)
		}
		m.endRecoveries(e.user)
		e.user.latest = e.CreatedAt
		e.made = &modelRecovery{RecoveryMail: got, user: e.user}
		m.recoveries = append(m.recoveries, e.made)
	case made:
		t.Fatal("a recovery was made that was overtaken")
	}
}

func (m *model) reset(t *rapid.T, r *modelRecovery, password string) {
	err := m.s.Reset(t.Context(), auth.Client{}, r.ID, password)
	switch {
	case r.over || !m.c.now().Before(r.ExpiresAt):
		wantErr(t, "reset", err, auth.ErrRecovery)
	case r.user.revoked:
		wantErr(t, "reset", err, auth.ErrRevoked)
	case len(password) < 10:
		if auth.CodeOf(err) != auth.Invalid {
			t.Fatalf("a weak password: error %v", err)
		}
	default:
		ok(t, err)
		m.passwordChanged(r.user, nil, password)
	}
}

func (m *model) setPassword(t *rapid.T, email, password string) {
	err := m.s.SetPassword(t.Context(), email, password)
	if m.users[email] == nil {
		wantErr(t, "set password", err, auth.ErrNoUser)
		return
	}
	ok(t, err)
	m.passwordChanged(m.users[email], nil, password)
}

// passwordChanged is what follows from a new password; one session may stay.
func (m *model) passwordChanged(user *modelUser, keep *modelSession, password string) {
	user.password, user.changed = password, m.c.now()
	user.notices[auth.EventPasswordChanged]++
	m.endSessions(user, keep)
	m.endRecoveries(user)
}

func (m *model) revoke(t *rapid.T, email string, revoke bool) {
	do := m.s.Reinstate
	if revoke {
		do = m.s.Revoke
	}
	err := do(t.Context(), email)
	user := m.users[email]
	if user == nil {
		wantErr(t, "revoke or enact", err, auth.ErrNoUser)
		return
	}
	ok(t, err)
	user.revoked = revoke
	if revoke {
		m.endSessions(user, nil)
	}
}

func (m *model) address(t *rapid.T, email, to string) {
	err := m.s.UpdateUser(t.Context(), email, auth.UserUpdate{Email: &to})
	user, other := m.users[email], m.users[to]
	switch {
	case user == nil:
		wantErr(t, "another address", err, auth.ErrNoUser)
		return
	case other != nil && other != user:
		wantErr(t, "a taken address", err, auth.ErrUserExists)
		return
	}
	ok(t, err)
	if other == user {
		return
	}
	delete(m.users, email)
	m.users[to] = user
	user.Email = to
	user.notices[auth.EventEmailChanged]++
	m.endRecoveries(user)
}

func (m *model) delete(t *rapid.T, email string) {
	want := map[string]bool{email: true} // who gets the last mail: also those who don't know of another address yet
	if user := m.users[email]; user != nil {
		for _, d := range m.s.outbox(t) {
			if d.UserID == user.ID && d.Type == auth.EventEmailChanged {
				want[d.Recipient] = true
			}
		}
	}
	err := m.s.DeleteUser(t.Context(), email)
	user := m.users[email]
	if user == nil {
		wantErr(t, "a deletion", err, auth.ErrNoUser)
		return
	}
	ok(t, err)
	user.deleted = true
	m.endSessions(user, nil)
	m.endRecoveries(user)
	delete(m.users, email)
	delete(m.asked, email)
	for _, d := range m.s.outbox(t) {
		if d.UserID == user.ID && (d.Type != auth.EventDeleted || !want[d.Recipient]) {
			t.Fatalf("%s to %q waits for a user who was deleted", d.Type, d.Recipient)
		}
		if d.UserID == user.ID {
			delete(want, d.Recipient)
		}
	}
	if len(want) > 0 {
		t.Fatalf("no last mail goes to %v", want)
	}
}

func (m *model) endSessions(user *modelUser, but *modelSession) {
	for _, s := range m.sessions {
		if s.user == user && s != but {
			s.over = true
		}
	}
}

func (m *model) endRecoveries(user *modelUser) {
	for _, r := range m.recoveries {
		if r.user == user {
			r.over = true
		}
	}
}

// What users do themselves, in the model.

// caller is the caller of an access token; false where it no longer works.
func (m *model) caller(t *rapid.T, token *modelToken) (auth.Caller, bool) {
	caller, err := m.s.Check(t.Context(), token.Access)
	if !m.live(token.session) || !m.c.now().Before(token.ExpiresAt) {
		wantErr(t, "check", err, auth.ErrNotLoggedIn)
		return caller, false
	}
	ok(t, err)
	return caller, true
}

func (m *model) change(t *rapid.T, token *modelToken, current, password string) {
	caller, in := m.caller(t, token)
	if !in {
		return
	}
	err := m.s.ChangePassword(t.Context(), auth.Client{}, caller, current, password, "")
	user := token.session.user
	switch {
	case len(password) < 10:
		if auth.CodeOf(err) != auth.Invalid || errors.Is(err, auth.ErrPassword) {
			t.Fatalf("a weak password: error %v", err)
		}
	case current != user.password:
		wantErr(t, "change", err, auth.ErrPassword)
	default:
		ok(t, err)
		m.passwordChanged(user, token.session, password)
	}
}

func (m *model) end(t *rapid.T, token *modelToken, s *modelSession) {
	caller, in := m.caller(t, token)
	if !in {
		return
	}
	m.endBy(t, caller, token.session.user, s)
}

// endBy ends a session from another one of a user, which is live.
func (m *model) endBy(t *rapid.T, caller auth.Caller, user *modelUser, s *modelSession) {
	err := m.s.EndSession(t.Context(), auth.Client{}, caller, s.id.String())
	if !m.live(s) || s.user != user {
		wantErr(t, "end", err, auth.ErrNotOwn)
		return
	}
	ok(t, err)
	s.over = true
}

func (m *model) endOthers(t *rapid.T, token *modelToken) {
	caller, in := m.caller(t, token)
	if !in {
		return
	}
	ok(t, m.s.EndOtherSessions(t.Context(), auth.Client{}, caller))
	m.endSessions(token.session.user, token.session)
	found := must(m.s.Sessions(t.Context(), caller))(t)
	if len(found) != 1 || found[0].ID != caller.SessionID {
		t.Fatalf("the sessions afterwards are %v", found)
	}
}
