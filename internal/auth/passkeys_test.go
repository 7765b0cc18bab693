package auth_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"kwai/internal/auth"
	"kwai/internal/store"
	"kwai/internal/testing/passkeytest"
	"kwai/internal/token"
)

const (
	passkeyOrigin = "https://auth.example.org"
	passkeyHost   = "auth.example.org"

	// unlike is why an answer with another host, or without its user, is refused.
	unlike = "validating the authenticator response"
)

func newKey() *passkeytest.Key { return passkeytest.New(passkeyOrigin, passkeyHost) }

// fresh is a visitor who has just logged in with the password.
func (s *server) fresh(t *testing.T, email string) auth.Visitor {
	t.Helper()
	return s.visit(t, s.browse(t, email, true))
}

// register makes a passkey for an account.
func (s *server) register(t *testing.T, email string) *passkeytest.Key {
	t.Helper()
	key, v := newKey(), s.fresh(t, email)
	ok(t, s.AddPasskey(t.Context(), auth.Client{}, v, "Phone", key.Register(must(s.OfferPasskey(t.Context(), v, "kwai"))(t))))
	return key
}

// assert has a key answer a new challenge.
func (s *server) assert(t *testing.T, key *passkeytest.Key) []byte {
	t.Helper()
	return key.Assert(must(s.ChallengePasskey(t.Context()))(t))
}

func (s *server) byPasskey(t *testing.T, answer []byte) auth.Visitor {
	t.Helper()
	return s.visit(t, must(s.LoginPasskey(t.Context(), auth.Client{}, answer, true))(t))
}

// wantNoPasskey holds that an answer opens nothing, with the one refusal, and for that
// reason.
func (s *server) wantNoPasskey(t *testing.T, what, reason string, answer []byte) {
	t.Helper()
	before := s.count(t, `SELECT COUNT(*) FROM sessions`)
	_, err := s.LoginPasskey(t.Context(), auth.Client{}, answer, true)
	wantErr(t, what, err, auth.ErrPasskey)
	refused, _ := errors.AsType[*auth.Error](err)
	if refused.Detail != auth.ErrPasskey.Error() || !strings.Contains(refused.Reason, reason) {
		t.Errorf("%s: %q, for the log %q, which lacks %q", what, refused.Detail, refused.Reason, reason)
	}
	same(t, what+": sessions opened", s.count(t, `SELECT COUNT(*) FROM sessions`), before)
}

func TestAPasskeyIsAWholeWayIn(t *testing.T) {
	each(t, func(t *testing.T, s *server, c *clock) {
		user := s.user(t, ann)
		c.advance(time.Second)
		v := s.fresh(t, ann)
		c.advance(time.Second)
		key := newKey()
		ok(t, s.AddPasskey(t.Context(), auth.Client{}, v, "Phone", key.Register(must(s.OfferPasskey(t.Context(), v, "kwai"))(t))))
		c.advance(time.Hour)
		cookie := must(s.LoginPasskey(t.Context(), auth.Client{}, s.assert(t, key), false))(t)
		v = s.visit(t, cookie)
		if v.ID != user.ID || !v.Fresh || v.AMR != "pop user mfa" || !v.AuthTime.Equal(c.now()) || !cookie.Expires.IsZero() {
			t.Errorf("the visitor is %+v, the cookie ends %v", v, cookie.Expires)
		}
		c.advance(time.Second)
		if cookie = must(s.LoginPasskey(t.Context(), auth.Client{}, s.assert(t, key), true))(t); !cookie.Expires.Equal(c.now().Add(s.Settings.SessionLife)) {
			t.Errorf("a session that is to stay ends %v", cookie.Expires)
		}
		c.advance(11 * time.Hour)
		s.visit(t, cookie)
		found := must(s.Passkeys(t.Context(), v))(t)
		if len(found) != 1 || found[0].Name != "Phone" || found[0].RPID != passkeyHost || !found[0].UsedAt.Equal(c.now().Add(-11*time.Hour)) {
			t.Errorf("the passkeys are %+v", found)
		}
		// It proves, too.
		c.advance(time.Minute)
		v = s.visit(t, cookie)
		same(t, "fresh after eleven hours", v.Fresh, false)
		v = s.visit(t, must(s.ProvePasskey(t.Context(), auth.Client{}, v, s.assert(t, key)))(t))
		same(t, "fresh after the proof", v.Fresh, true)
		// A password is enough still: clients that know nothing else aren't locked out.
		s.login(t, ann, oldPassword)
		var log []string
		for _, e := range s.auditLog(t, time.Time{}, ann) {
			log = append(log, e.Kind+" "+e.Reason)
		}
		same(t, "the audit log", strings.Join(log, "; "), "user.created by a command; session.opened by password; user.passkey-added ; session.opened by passkey; session.opened by passkey; "+
			"session.proved by passkey; session.opened by password")
	})
}

func TestAPasskeyOpensWhatDemandsACode(t *testing.T) {
	each(t, func(t *testing.T, s *server, c *clock) {
		user := s.user(t, ann)
		key := s.register(t, ann)
		ok(t, s.CreateGroup(t.Context(), "board"))
		ok(t, s.AddMembers(t.Context(), "board", user.Email))
		ok(t, s.RequireTwoSteps(t.Context(), "board", true))
		_, err := s.LoginBrowser(t.Context(), auth.Client{}, ann, oldPassword, true, "browser")
		if more, ok := errors.AsType[*auth.More](err); !ok || more.Need != auth.NeedPasskey {
			t.Errorf("the password alone: %v", err)
		}
		s.byPasskey(t, s.assert(t, key))
	})
}

// What isn't a right answer to a challenge of now is refused, in one way.
func TestRefusedPasskeys(t *testing.T) {
	each(t, func(t *testing.T, s *server, c *clock) {
		user, bob := s.user(t, ann), s.user(t, "bob@example.org")
		key, bobs := s.register(t, ann), s.register(t, bob.Email)
		lie := func(change func(*passkeytest.Key)) []byte {
			c.advance(time.Second)
			liar := *key
			change(&liar)
			return s.assert(t, &liar)
		}
		replayed := s.assert(t, key)
		s.byPasskey(t, replayed)
		s.wantNoPasskey(t, "a replay", "was used before", replayed)
		older := s.assert(t, key)
		c.advance(time.Second)
		s.byPasskey(t, s.assert(t, key))
		s.wantNoPasskey(t, "an older challenge than the last one", "was used before", older)

		v := s.fresh(t, ann)
		creation := must(s.OfferPasskey(t.Context(), v, ""))(t)
		s.wantNoPasskey(t, "the challenge of a registration", "no challenge", key.Assert(creation))
		s.wantNoPasskey(t, "no challenge of ours", "no challenge", key.AssertChallenge("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"))
		s.wantNoPasskey(t, "an empty challenge", "no challenge", key.AssertChallenge(""))
		s.wantNoPasskey(t, "another origin", "origin", lie(func(k *passkeytest.Key) { k.Origin = "https://evil.example" }))
		s.wantNoPasskey(t, "another port", "origin", lie(func(k *passkeytest.Key) { k.Origin = passkeyOrigin + ":8443" }))
		s.wantNoPasskey(t, "another scheme", "origin", lie(func(k *passkeytest.Key) { k.Origin = "http://" + passkeyHost }))
		s.wantNoPasskey(t, "another host", unlike, lie(func(k *passkeytest.Key) { k.RPID = "example.org" }))
		s.wantNoPasskey(t, "an unverified user", unlike, lie(func(k *passkeytest.Key) { k.Flags = passkeytest.Present }))
		s.wantNoPasskey(t, "nobody there", unlike, lie(func(k *passkeytest.Key) { k.Flags = passkeytest.Verified }))
		s.wantNoPasskey(t, "another user's handle", "another user", lie(func(k *passkeytest.Key) { k.UserHandle = bobs.UserHandle }))
		s.wantNoPasskey(t, "a handle of nobody", "another user", lie(func(k *passkeytest.Key) { k.UserHandle = []byte("nobody") }))
		s.wantNoPasskey(t, "no handle", "another user", lie(func(k *passkeytest.Key) { k.UserHandle = nil }))
		s.wantNoPasskey(t, "another key under its id", "signature", lie(func(k *passkeytest.Key) {
			other := *bobs
			other.ID, other.UserHandle = k.ID, k.UserHandle
			*k = other
		}))
		unknown := newKey()
		unknown.UserHandle = key.UserHandle
		s.wantNoPasskey(t, "an unknown key", "no such passkey", s.assert(t, unknown))
		var answer map[string]any
		ok(t, json.Unmarshal(lie(func(*passkeytest.Key) {}), &answer))
		response := answer["response"].(map[string]any)
		signature := response["signature"].(string)
		for what, changed := range map[string]string{"a cut signature": signature[:40], "an empty signature": "", "a changed signature": signature[:60] + flip(signature[60:])} {
			response["signature"] = changed
			s.wantNoPasskey(t, what, "signature", must(json.Marshal(answer))(t))
		}
		for what, text := range map[string]string{"nothing": "", "no JSON": "{", "a list": "[]", "null": "null", "more behind": string(s.assert(t, key)) + "{}"} {
			s.wantNoPasskey(t, what, "can't be read", []byte(text))
		}
		s.wantNoPasskey(t, "100 KiB", "too long", bytes.Repeat([]byte(" "), 100<<10))
		late := s.assert(t, key)
		c.advance(5 * time.Minute)
		s.wantNoPasskey(t, "an answer after five minutes", "too old", late)
		_, err := s.ProvePasskey(t.Context(), auth.Client{}, s.fresh(t, bob.Email), s.assert(t, key))
		wantErr(t, "a proof by another user's", err, auth.ErrPasskey)

		late = s.assert(t, key)
		ok(t, s.Revoke(t.Context(), ann))
		s.wantNoPasskey(t, "of a revoked user", "revoked", late)
		ok(t, s.Reinstate(t.Context(), ann))
		v = s.fresh(t, ann)
		late = s.assert(t, key)
		ok(t, s.RemovePasskey(t.Context(), auth.Client{}, v, must(s.Passkeys(t.Context(), v))(t)[0].ID))
		s.wantNoPasskey(t, "a removed key", "no such passkey", late)
		refusals := 0
		for _, e := range s.auditLog(t, time.Time{}, ann) {
			if e.Kind == auth.AuditPasskeyRefused {
				refusals++
			}
		}
		if refusals < 10 || user.ID == "" {
			t.Errorf("the audit log has %d refusals", refusals)
		}
	})
}

// flip changes the first character of a text in base64url.
func flip(text string) string {
	if text[0] == 'A' {
		return "B" + text[1:]
	}
	return "A" + text[1:]
}

// A passkey that can't be made of what the browser sent isn't made, and no passkey twice.
func TestRefusedRegistrations(t *testing.T) {
	each(t, func(t *testing.T, s *server, c *clock) {
		s.user(t, ann)
		bob := s.user(t, "bob@example.org")
		v := s.fresh(t, ann)
		options := func(v auth.Visitor) []byte { return must(s.OfferPasskey(t.Context(), v, "kwai"))(t) }
		refused := func(what string, want error, reason string, v auth.Visitor, name string, answer []byte) {
			t.Helper()
			before := s.count(t, `SELECT COUNT(*) FROM passkeys`)
			err := s.AddPasskey(t.Context(), auth.Client{}, v, name, answer)
			if e, is := errors.AsType[*auth.Error](err); !is || want != nil && !errors.Is(err, want) || !strings.Contains(e.Reason+e.Detail, reason) {
				t.Errorf("%s: %v", what, err)
			}
			same(t, what+": passkeys", s.count(t, `SELECT COUNT(*) FROM passkeys`), before)
		}
		lie := func(change func(*passkeytest.Key)) []byte {
			k := newKey()
			change(k)
			return k.Register(options(v))
		}
		wrong := auth.ErrPasskeyAnswer
		refused("no discoverable one", wrong, "discoverable", v, "x", lie(func(k *passkeytest.Key) { k.Undiscoverable = true }))
		refused("an unverified user", wrong, unlike, v, "x", lie(func(k *passkeytest.Key) { k.Flags = passkeytest.Present }))
		refused("another origin", wrong, "origin", v, "x", lie(func(k *passkeytest.Key) { k.Origin = "https://evil.example" }))
		refused("another host", wrong, unlike, v, "x", lie(func(k *passkeytest.Key) { k.RPID = "evil.example" }))
		refused("backed up, and can't be", wrong, "Backup", v, "x", lie(func(k *passkeytest.Key) { k.Flags |= passkeytest.BackedUp }))
		refused("an assertion's challenge", wrong, "no challenge", v, "x", newKey().Register(asCreation(must(s.ChallengePasskey(t.Context()))(t))))
		refused("a public key that takes long to verify by", wrong, "public key is too long", v, "x", lie(func(k *passkeytest.Key) { k.Public = passkeytest.RSA(1500) }))
		bobs := s.fresh(t, bob.Email)
		refused("another user's challenge", wrong, "no challenge", v, "x", newKey().Register(options(bobs)))
		refused("another session's challenge", wrong, "no challenge", v, "x", newKey().Register(options(s.fresh(t, ann))))
		refused("100 KiB", wrong, "too long", v, "x", bytes.Repeat([]byte(" "), 100<<10))
		for _, text := range []string{"", "{}", "[]", "null"} {
			refused(text, wrong, "can't be read", v, "x", []byte(text))
		}
		refused("no name", nil, "name", v, " ", newKey().Register(options(v)))
		refused("a name that hides", nil, "name", v, "a\u202eb", newKey().Register(options(v)))
		refused("a long name", nil, "name", v, strings.Repeat("x", 101), newKey().Register(options(v)))
		late := newKey().Register(options(v))
		c.advance(10 * time.Minute)
		refused("an answer after ten minutes", wrong, "too old", v, "x", late)
		_, err := s.OfferPasskey(t.Context(), auth.Visitor{User: v.User}, "")
		wantErr(t, "options without a fresh proof", err, auth.ErrNotLoggedIn)

		v = s.fresh(t, ann)
		key, twice := newKey(), options(v)
		answer := key.Register(twice)
		same(t, "the user's handle", string(key.UserHandle), v.ID)
		ok(t, s.AddPasskey(t.Context(), auth.Client{}, v, " Phone ", answer))
		refused("from before a change of factors", auth.ErrForm, "", v, "x", newKey().Register(options(v)))
		v = s.fresh(t, ann)
		refused("the same answer, in another session", wrong, "no challenge", v, "x", answer)
		refused("the same key", auth.ErrPasskeyThere, "", v, "x", key.Register(options(v)))
		bobs = s.fresh(t, bob.Email)
		refused("the same key, of another user", auth.ErrPasskeyThere, "", bobs, "x", key.Register(options(bobs)))
		if list := string(options(v)); !strings.Contains(list, `"excludeCredentials":[{"type":"public-key","id":"`+must(s.Passkeys(t.Context(), v))(t)[0].ID) {
			t.Errorf("the options don't exclude it: %s", list)
		}
	})
}

// asCreation are request options with a user, as creation options have one.
func asCreation(request []byte) []byte {
	return bytes.Replace(request, []byte(`"publicKey":{`), []byte(`"publicKey":{"user":{"id":"eA"},`), 1)
}

func TestPasskeysAreBounded(t *testing.T) {
	each(t, func(t *testing.T, s *server, _ *clock) {
		s.user(t, ann)
		for range auth.MaxPasskeys {
			s.register(t, ann)
		}
		v := s.fresh(t, ann)
		err := s.AddPasskey(t.Context(), auth.Client{}, v, "x", newKey().Register(must(s.OfferPasskey(t.Context(), v, ""))(t)))
		wantErr(t, "one too many", err, auth.ErrManyPasskeys)
		ok(t, s.RemovePasskey(t.Context(), auth.Client{}, v, must(s.Passkeys(t.Context(), v))(t)[3].ID))
		s.register(t, ann)
	})
}

func TestPasskeysAreNamedAndRemovedByTheirUser(t *testing.T) {
	each(t, func(t *testing.T, s *server, c *clock) {
		s.user(t, ann)
		s.user(t, "bob@example.org")
		s.register(t, ann)
		v, bobs := s.fresh(t, ann), s.fresh(t, "bob@example.org")
		id := must(s.Passkeys(t.Context(), v))(t)[0].ID
		wantErr(t, "a name by another user", s.RenamePasskey(t.Context(), auth.Client{}, bobs, id, "Bob's"), auth.ErrNoPasskey)
		wantErr(t, "a removal by another user", s.RemovePasskey(t.Context(), auth.Client{}, bobs, id), auth.ErrNoPasskey)
		for _, name := range []string{"", "\u200b", strings.Repeat("é", 101)} {
			if err := s.RenamePasskey(t.Context(), auth.Client{}, v, id, name); auth.CodeOf(err) != auth.Invalid {
				t.Errorf("the name %q: %v", name, err)
			}
		}
		c.advance(time.Hour) // no proof is needed
		v.Fresh, v.FreshForm = false, false
		ok(t, s.RenamePasskey(t.Context(), auth.Client{}, v, id, strings.Repeat("é", 100)))
		same(t, "its name", must(s.Passkeys(t.Context(), v))(t)[0].Name, strings.Repeat("é", 100))
		wantErr(t, "a removal without a proof", s.RemovePasskey(t.Context(), auth.Client{}, v, id), auth.ErrNotLoggedIn)
		v = s.fresh(t, ann)
		before := v.User.AuthVersion
		ok(t, s.RemovePasskey(t.Context(), auth.Client{}, v, id))
		v = s.fresh(t, ann)
		wantErr(t, "a second removal", s.RemovePasskey(t.Context(), auth.Client{}, v, id), auth.ErrNoPasskey)
		same(t, "the version", v.User.AuthVersion, before+1)
		same(t, "what is left", len(must(s.Passkeys(t.Context(), v))(t)), 0)
		ok(t, s.LogoutVisitor(t.Context(), auth.Client{}, v))
		wantErr(t, "a name after the logout", s.RenamePasskey(t.Context(), auth.Client{}, v, id, "x"), auth.ErrNotLoggedIn)
	})
}

// A passkey goes on working when it begins to sync, when its counter stands still or
// falls back, when the server's keys are rotated, when it is copied to another device.
func TestAPasskeyGoesOnWorking(t *testing.T) {
	each(t, func(t *testing.T, s *server, c *clock) {
		s.user(t, ann)
		key := s.register(t, ann)
		flags := key.Flags
		login := func(what string) {
			t.Helper()
			c.advance(time.Second)
			if _, err := s.LoginPasskey(t.Context(), auth.Client{}, s.assert(t, key), true); err != nil {
				refused, _ := errors.AsType[*auth.Error](err)
				t.Errorf("%s: %+v", what, refused)
			}
		}
		for _, more := range []byte{passkeytest.BackupEligible, passkeytest.BackupEligible | passkeytest.BackedUp, 0, passkeytest.BackupEligible | passkeytest.BackedUp} {
			key.Flags = flags | more
			login("with other flags")
		}
		copied := *key
		login("a signature more")
		key = &copied
		login("of a copy whose counter is behind")
		key.Counter = 0
		login("without a counter")
		login("without a counter again")
		key.Counter = 7
		login("with a counter again")
		before := s.assert(t, key)
		must(s.Keys.Rotate(t.Context(), token.MAC))(t)
		c.advance(s.Keys.Settings.Lead() - time.Second)
		s.Age(auth.KeysFollow + time.Millisecond)
		login("just before the next key")
		c.advance(time.Millisecond)
		waiting := s.assert(t, key)
		c.advance(2 * time.Second)
		s.Age(auth.KeysFollow + time.Millisecond)
		s.byPasskey(t, waiting)
		login("by the next key")
		s.wantNoPasskey(t, "a challenge from before", "", before)
	})
}

// A clock that was wrong keeps nobody out for long.
func TestPasskeysAndAClockThatJumps(t *testing.T) {
	each(t, func(t *testing.T, s *server, c *clock) {
		s.user(t, ann)
		key := s.register(t, ann)
		for _, jump := range []time.Duration{time.Minute, time.Hour, 24 * time.Hour} {
			c.advance(jump)
			during := s.assert(t, key)
			s.byPasskey(t, during)
			ahead := s.assert(t, key)
			c.advance(-jump - time.Second)
			s.wantNoPasskey(t, "a challenge of the time to come", "", ahead)
			c.advance(2 * time.Minute) // a minute is no jump: it is over by then
			s.byPasskey(t, s.assert(t, key))
		}
	})
}

// A login by passkey is neither counted nor held back, and clears the counts as other
// logins do.
func TestPasskeysAndLimits(t *testing.T) {
	limited(t, nil, func(t *testing.T, s *server, c *clock) {
		key := s.register(t, ann)
		s.wantTry(t, "the password, at home", home, ann, oldPassword, "in")
		s.lock(t, c, ann)
		s.wantTry(t, "the password, from elsewhere", cafe, ann, oldPassword, "1h0m0s")
		for range 30 {
			_, err := s.LoginPasskey(t.Context(), from(cafe), []byte("{}"), true)
			wantErr(t, "nonsense", err, auth.ErrPasskey)
		}
		must(s.LoginPasskey(t.Context(), from(cafe), s.assert(t, key), true))(t)
		s.wantTry(t, "the password, from where the passkey was shown", cafe, ann, oldPassword, "in")
		s.wantTry(t, "a guess from elsewhere", "203.0.113.1", ann, wrong, "wrong")
		same(t, "notices of a new network", s.count(t, `SELECT COUNT(*) FROM audit_log WHERE kind = 'session.new-network'`), 1)
	})
}

// Refusals don't fill the audit log.
func TestRefusedPasskeysAreRecordedABitOnly(t *testing.T) {
	each(t, func(t *testing.T, s *server, c *clock) {
		s.user(t, ann)
		key := s.register(t, ann)
		used := s.assert(t, key)
		s.byPasskey(t, used)
		for range 120 {
			s.wantNoPasskey(t, "a replay", "used before", used)
		}
		const refusals = `SELECT COUNT(*) FROM audit_log WHERE kind = 'login.passkey-refused'`
		same(t, "refusals in the audit log", s.count(t, refusals), 100)
		c.advance(25 * time.Hour)
		key.Flags = passkeytest.Present
		s.wantNoPasskey(t, "a day later", unlike, s.assert(t, key))
		same(t, "refusals in the audit log, a day later", s.count(t, refusals), 101)
	})
}

// At a public URL that is an address there are no passkeys, and at another host those of
// before are of no use, and come back with the host.
func TestPasskeysAtAnotherHost(t *testing.T) {
	each(t, func(t *testing.T, s *server, c *clock) {
		s.user(t, ann)
		key := s.register(t, ann)
		same(t, "elsewhere", must(s.PasskeysElsewhere(t.Context()))(t), 0)
		for _, public := range []string{"http://127.0.0.1:8080", "https://[2001:db8::1]/auth", "https://192.0.2.1"} {
			s.Settings.Issuer = public
			same(t, "the host of "+public, auth.PasskeyHost(public), "")
			_, err := s.ChallengePasskey(t.Context())
			wantErr(t, public, err, auth.ErrNoPasskeys)
			_, err = s.OfferPasskey(t.Context(), s.fresh(t, ann), "")
			wantErr(t, public, err, auth.ErrNoPasskeys)
			_, err = s.LoginPasskey(t.Context(), auth.Client{}, []byte("{}"), true)
			wantErr(t, public, err, auth.ErrNoPasskeys)
			same(t, "elsewhere", must(s.PasskeysElsewhere(t.Context()))(t), 1)
		}
		s.Settings.Issuer = "https://login.example.org/auth"
		same(t, "elsewhere", must(s.PasskeysElsewhere(t.Context()))(t), 1)
		s.wantNoPasskey(t, "at another host", "it is for auth.example.org", s.assert(t, key))
		// There it is no way in, and must not stand in the way of another.
		s.requires(t)
		ok(t, s.AddMembers(t.Context(), "board", ann))
		_, err := s.LoginBrowser(t.Context(), auth.Client{}, ann, oldPassword, true, thisBrowser)
		waiting(t, auth.NeedEnrol, err)
		s.Settings.Issuer = passkeyOrigin + "/auth"
		_, err = s.LoginBrowser(t.Context(), auth.Client{}, ann, oldPassword, true, thisBrowser)
		same(t, "what the password lacks at the host", needs(err), auth.NeedPasskey)
		c.advance(time.Second)
		s.byPasskey(t, s.assert(t, key))
		for public, want := range map[string]string{"http://localhost:8080": "localhost", "https://xn--caf-dma.example:8443/x": "xn--caf-dma.example"} {
			same(t, "the host of "+public, auth.PasskeyHost(public), want)
		}
	})
}

// A passkey that is removed while it logs in logs in before that, or not at all.
func TestALoginByPasskeyAndItsRemovalMeet(t *testing.T) {
	race(t, func(t *testing.T, r rivals, user store.User) contest {
		key := r.one.register(t, user.Email)
		v := r.other.fresh(t, user.Email)
		id := must(r.other.Passkeys(t.Context(), v))(t)[0].ID
		answer := r.one.assert(t, key)
		var cookie auth.Cookie
		return contest{
			one: func(ctx context.Context) (err error) {
				cookie, err = r.one.LoginPasskey(ctx, auth.Client{}, answer, true)
				return err
			},
			other: func(ctx context.Context) error { return r.other.RemovePasskey(ctx, auth.Client{}, v, id) },
			judge: func(login, removal error) bool {
				ok(t, removal)
				if login == nil {
					r.one.visit(t, cookie)
					return true
				}
				wantErr(t, "a login that came too late", login, auth.ErrPasskey)
				return false
			},
		}
	})
}

// An answer is good once, on all replicas.
func TestOneAnswerAtOnce(t *testing.T) {
	race(t, func(t *testing.T, r rivals, user store.User) contest {
		answer := r.one.assert(t, r.one.register(t, user.Email))
		login := func(s *server) operation {
			return func(ctx context.Context) error {
				_, err := s.LoginPasskey(ctx, auth.Client{}, answer, true)
				return err
			}
		}
		return contest{
			one:   login(r.one),
			other: login(r.other),
			judge: func(one, other error) bool {
				if (one == nil) == (other == nil) {
					t.Fatalf("the same answer: %v and %v", one, other)
				}
				wantErr(t, "the second", errors.Join(one, other), auth.ErrPasskey)
				return one == nil
			},
		}
	})
}
