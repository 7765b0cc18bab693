package auth_test

import (
	"errors"

	"pgregory.net/rapid"

	"kwai/internal/auth"
)

// What users do themselves, in the model.

// caller is who bears an access token; false where it is none any more.
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
	err := m.s.ChangePassword(t.Context(), auth.Client{}, caller, current, password)
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
	err := m.s.EndSession(t.Context(), auth.Client{}, caller, s.id.String())
	if !m.live(s) || s.user != token.session.user {
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
