package auth_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"kwai/internal/auth"
	"kwai/internal/password"
)

func bcryptOf(t *testing.T, password string) string {
	t.Helper()
	return string(must(bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost))(t))
}

// imported makes an account with a hash made elsewhere.
func (s *server) imported(t *testing.T, email, hash string) {
	t.Helper()
	must(s.CreateUser(t.Context(), auth.NewUser{Email: email, FirstName: "Ann", LastName: "Other", Hash: hash}))(t)
}

func TestARefusedLoginRevealsNothing(t *testing.T) {
	each(t, func(t *testing.T, s *server, c *clock) {
		s.user(t, ann)
		s.user(t, "revoked@example.org")
		ok(t, s.Revoke(t.Context(), "revoked@example.org"))
		must(s.CreateUser(t.Context(), auth.NewUser{Email: "invited@example.org", FirstName: "Ann", LastName: "Other"}))(t)
		s.imported(t, "imported@example.org", bcryptOf(t, oldPassword))
		refused := []struct{ email, password string }{
			{ann, newPassword},
			{ann, oldPassword + " "},
			{ann, ""},
			{"imported@example.org", newPassword},
			{"unknown@example.org", oldPassword},
			{"revoked@example.org", oldPassword},
			{"revoked@example.org", newPassword},
			{"invited@example.org", oldPassword},
			{"invited@example.org", ""},
			{"malformed", oldPassword},
			{"", ""},
			{"ann@example.org\x00", oldPassword},
		}
		for _, r := range refused {
			if _, err := s.Login(t.Context(), auth.Client{}, r.email, r.password); err != auth.ErrCredentials { //nolint:errorlint // the very same
				t.Errorf("%q with %q: error %v, want ErrCredentials itself", r.email, r.password, err)
			}
		}
		// Each is refused by way of a hash: without hashing none is.
		s.Passwords.Close()
		for _, r := range append(refused, struct{ email, password string }{ann, oldPassword}) {
			if _, err := s.Login(t.Context(), auth.Client{}, r.email, r.password); auth.CodeOf(err) != auth.Unavailable {
				t.Errorf("%q with %q, while no hash can be made: error %v", r.email, r.password, err)
			}
		}
	})
}

// An address without a password costs what the users cost, in proportion.
func TestUnknownAddressesCostWhatUsersCost(t *testing.T) {
	each(t, func(t *testing.T, s *server, c *clock) {
		if got := s.DecoyCost("x@example.org"); got != s.Passwords.Cost() {
			t.Errorf("without users: %q, want today's cost", got)
		}
		argon, cost, err := s.Passwords.Hash(t.Context(), oldPassword)
		ok(t, err)
		imported := bcryptOf(t, oldPassword)
		costs := map[string]int{cost: 70, must(password.Cost(imported))(t): 30}
		for i := range 100 {
			hash := argon
			if i < 30 {
				hash = imported
			}
			s.imported(t, fmt.Sprintf("user%d@example.org", i), hash)
		}
		ok(t, s.RefreshCosts(t.Context()))
		const addresses = 5000
		got := map[string]int{}
		for i := range addresses {
			unknown, malformed := fmt.Sprintf("unknown%d@example.org", i), fmt.Sprintf("malformed%d", i)
			for _, email := range []string{unknown, malformed} {
				cost := s.DecoyCost(email)
				got[cost]++
				if again := s.DecoyCost(email); again != cost {
					t.Errorf("%s costs %q, then %q", email, cost, again)
				}
			}
			if s.DecoyCost(unknown) != s.DecoyCost(" Unknown"+unknown[7:]) {
				t.Errorf("%s costs something else when spelled otherwise", unknown)
			}
		}
		if len(got) != len(costs) {
			t.Errorf("costs %v, want those of %v", got, costs)
		}
		for cost, percent := range costs {
			// Five standard deviations: 1 in 2 million.
			if share := float64(got[cost]) / (2 * addresses); share < float64(percent)/100-0.023 || share > float64(percent)/100+0.023 {
				t.Errorf("%.1f %% cost %q, as %d %% of the users do", 100*share, cost, percent)
			}
		}
	})
}

// Hashes that aren't made with today's parameters are replaced at a login.
func TestALoginRenewsAnOldHash(t *testing.T) {
	each(t, func(t *testing.T, s *server, c *clock) {
		dear := password.NewPool(password.Options{Params: password.Params{MemoryKiB: 16, Time: 2, Threads: 1}, Workers: 1})
		t.Cleanup(dear.Close)
		argon, _, err := dear.Hash(t.Context(), oldPassword)
		ok(t, err)
		for name, hash := range map[string]string{"bcrypt": bcryptOf(t, oldPassword), "argon2id": argon} {
			email := name + "@example.org"
			s.imported(t, email, hash)
			_, err := s.Login(t.Context(), auth.Client{}, email, newPassword)
			wantErr(t, name+": a wrong password", err, auth.ErrCredentials)
			imported := must(s.User(t.Context(), email))(t)
			if imported.PasswordHash != hash {
				t.Errorf("%s: a refused login changed the hash", name)
			}
			id := s.recovery(t, imported)
			c.advance(time.Minute)
			first := s.login(t, email, oldPassword)
			fresh := must(s.User(t.Context(), email))(t)
			right, stale, err := s.Passwords.Verify(t.Context(), fresh.PasswordHash, oldPassword)
			if ok(t, err); fresh.PasswordHash == hash || !right || stale {
				t.Errorf("%s: the hash is %q after a login", name, fresh.PasswordHash)
			}
			if !fresh.PasswordSetAt.Equal(imported.PasswordSetAt) {
				t.Errorf("%s: a new hash passes for a new password", name)
			}
			second := s.login(t, email, oldPassword)
			if again := must(s.User(t.Context(), email))(t); again.PasswordHash != fresh.PasswordHash {
				t.Errorf("%s: the new hash was replaced again", name)
			}
			s.alive(t, first, second)
			must(s.RecoveryUser(t.Context(), id))(t)
		}
		ok(t, s.RefreshCosts(t.Context()))
		if cost := s.DecoyCost("unknown@example.org"); cost != s.Passwords.Cost() {
			t.Errorf("an unknown address costs %q, which no user does any more", cost)
		}
		if mails := s.outbox(t); len(mails) != 0 {
			t.Errorf("a new hash was told to the user: %v", mails)
		}
	})
}

// bcrypt looks at 72 bytes: what is typed behind them isn't the owner's password.
func TestALoginWithMoreThanBcryptReadsKeepsTheHash(t *testing.T) {
	each(t, func(t *testing.T, s *server, c *clock) {
		right := strings.Repeat("0123456789ab", 6)
		hash := bcryptOf(t, right)
		s.imported(t, ann, hash)
		for _, behind := range []string{" and more", "e\u0301", "\x00"} {
			s.login(t, ann, right+behind)
			if stored := must(s.User(t.Context(), ann))(t).PasswordHash; stored != hash {
				t.Fatalf("%q behind the 72 bytes became the password", behind)
			}
		}
		s.login(t, ann, right)
		if stored := must(s.User(t.Context(), ann))(t).PasswordHash; !strings.HasPrefix(stored, "$argon2id$") {
			t.Errorf("the hash is %q after the owner's login", stored)
		}
		s.login(t, ann, right)
		_, err := s.Login(t.Context(), auth.Client{}, ann, right+" and more")
		wantErr(t, "with argon2id all bytes count", err, auth.ErrCredentials)
	})
}

// A user's sessions are bounded, or they couldn't be ended together.
func TestAUsersSessionsAreBounded(t *testing.T) {
	each(t, func(t *testing.T, s *server, c *clock) {
		user := s.user(t, ann)
		first := s.login(t, ann, oldPassword)
		c.advance(time.Second)
		second := s.login(t, ann, oldPassword)
		c.advance(time.Second)
		s.insert(t, c.now(), user.ID, mostSessions-2, insertSessions)
		c.advance(time.Second)
		s.alive(t, first, second)
		last := s.login(t, ann, oldPassword)
		s.dead(t, user, first)
		s.alive(t, second, last)
	})
}

// Users get a mail about logins from networks that are new to them, and only then.
func TestLoginsFromNewNetworksAreMailed(t *testing.T) {
	each(t, func(t *testing.T, s *server, c *clock) {
		s.user(t, ann)
		day := 24 * time.Hour
		for _, step := range []struct {
			what, address string
			after         time.Duration
			prepare       func()
			want          int // notices
		}{
			{"the first login", "192.0.2.1", 0, nil, 0},
			{"the same network", "192.0.2.9", time.Hour, nil, 0},
			{"another one", "198.51.100.1", time.Hour, nil, 1},
			{"that one again", "198.51.100.1", time.Hour, nil, 0},
			{"nothing is remembered, as before an upgrade", "203.0.113.1", time.Hour, func() {
				must(s.database(t).ExecContext(t.Context(), `DELETE FROM attempts`))(t)
			}, 0},
			{"a network that was forgotten with all others", "203.0.113.1", 91 * day, nil, 1},
			{"a new one chosen with a password", "233.252.0.1", time.Hour, func() {
				ok(t, s.Reset(t.Context(), from("233.252.0.1"), s.recovery(t, must(s.User(t.Context(), ann))(t)), oldPassword))
			}, 0},
		} {
			c.advance(step.after)
			if step.prepare != nil {
				step.prepare()
			}
			s.deliver(t)
			must(s.Login(t.Context(), from(step.address), ann, oldPassword))(t)
			if n := len(s.deliver(t)); n != step.want {
				t.Errorf("%s: %d notices, want %d", step.what, n, step.want)
			}
		}
		for i, want := range []int{5, 5} { // each day
			c.advance(day + time.Second)
			for j := range 8 {
				must(s.Login(t.Context(), from(fmt.Sprintf("10.%d.%d.1", i, j)), ann, oldPassword))(t)
			}
			if n := len(s.deliver(t)); n != want {
				t.Errorf("%d notices within day %d, want %d", n, i, want)
			}
		}
	})
}

// While the database is away no answer asks to log in again.
func TestAnOutageIsNoRefusal(t *testing.T) {
	each(t, func(t *testing.T, s *server, c *clock) {
		s.user(t, ann)
		tokens := s.login(t, ann, oldPassword)
		ok(t, s.Store.Close())
		_, checked := s.Check(t.Context(), tokens.Access)
		_, renewed := s.Renew(t.Context(), auth.Client{}, tokens.Refresh, c.now())
		_, in := s.Login(t.Context(), auth.Client{}, ann, oldPassword)
		for what, err := range map[string]error{"a check": checked, "a renewal": renewed, "a login": in} {
			if err == nil || auth.CodeOf(err) == auth.Unauthenticated {
				t.Errorf("%s while the database is away: %v", what, err)
			}
		}
	})
}
