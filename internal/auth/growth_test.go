package auth_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"kwai/internal/auth"
	"kwai/internal/bus"
	"kwai/internal/store"
	"kwai/internal/testing/need"
	"kwai/internal/testing/storetest"
)

// tables are all that the simulation writes to.
var tables = []string{"sessions", "recoveries", "recovery_requests", "email_changes", "attempts", "audit_log", "events", "deliveries", "leases", "keys", "users", "app_sessions", "logouts", "grants"}

// Storage is bounded by the users and what they do within the kept time, not by
// how long the server has run: once the longest of the kept times is over, no
// table grows any more, nor does the file.
//
// Time is the test's. A user logs in each day, from a changing network, and
// renews twice: that a renewal changes a row and adds none, the hour's other ones
// could not show better. Each day some mistype a password, log out, ask for a
// recovery, and others guess. The everyday run has fewer users, who are
// forgotten sooner.
func TestStorageIsBounded(t *testing.T) {
	users, days := need.Rounds(5, 8), need.Rounds(44, 200)
	storetest.Mostly(t, func(t *testing.T, url string) { // a new one, as its size counts
		c := newClock()
		s := start(t, url, c.now, nil)
		s.Settings.Limits.Off = false
		s.Settings.AuditKeep = 50 * day
		if !need.All() {
			s.Settings.RefreshIdle, s.Settings.SessionLife, s.Settings.Limits.Remember, s.Settings.AuditKeep = 5*day, 8*day, 8*day, 8*day
		}
		// By then the first of what is kept longest has gone. The rest is cut in
		// two, and the second half may not have more than the first, but for what
		// chance has in it.
		kept := int((max(s.Settings.Limits.Remember, s.Settings.SessionLife, s.Settings.AuditKeep)+auth.PurgeMargin)/day) + 1
		half := (days - kept) / 2
		site := newSite(t, s, c, users)
		most := [3]map[string]int{{}, {}, {}} // before, in the first half, in the second
		for d := range days {
			site.day(t, d)
			part := 0
			if d >= kept {
				part = 1 + min((d-kept)/half, 1)
			}
			for name, n := range site.size(t) {
				most[part][name] = max(most[part][name], n)
			}
			if (d+1)%30 == 0 {
				t.Logf("day %d: %v", d+1, site.size(t))
			}
		}
		for name, before := range most[1] {
			tolerated := before + before/20 + need.Rounds(3, 20) // 5 % and what a few users' dice make of it
			if name == "bytes" {
				if !need.All() {
					continue // of a few pages one is much
				}
				tolerated = before + before/20 // pages are used again
			}
			if after := most[2][name]; after > tolerated {
				t.Errorf("%s grows: %d at most in the first %d days after %d, %d in the next", name, before, half, kept, after)
			}
			if before == 0 && name != "recovery_requests" && name != "leases" {
				t.Errorf("%s was never used", name)
			}
		}
	})
}

// site is users and those who attack them.
type site struct {
	*server
	c      *clock
	bus    *bus.Bus
	purger *auth.Purger

	mu    sync.Mutex
	links map[string]string // of the newest recovery, by the user's id
	full  map[string]bool   // by the event's id, the mailbox it is for
	users []*resident
	app   store.App // where they log in by kwai, and which is never told of a logout
}

type resident struct {
	store.User
	password string
}

func newSite(t *testing.T, s *server, c *clock, users int) *site {
	t.Helper()
	x := &site{server: s, c: c, links: make(map[string]string), full: make(map[string]bool)}
	x.bus = bus.New(s.Store, x, s.Log)
	x.purger = s.NewPurger(func() {})
	x.app, _ = s.forApps(t).app(t, "wiki", func(a *store.App) { a.Consent, a.Offline = true, true })
	for i := range users {
		x.users = append(x.users, &resident{s.user(t, fmt.Sprintf("user%d@example.org", i)), oldPassword})
	}
	return x
}

// Name and Deliver make it the mail's subscriber. Each fifth mailbox is full.
func (x *site) Name() string { return auth.SubscriberMail }

func (x *site) Deliver(ctx context.Context, e store.Event) error {
	x.mu.Lock()
	if _, there := x.full[e.ID]; !there {
		x.full[e.ID] = len(x.full)%5 == 4
	}
	full := x.full[e.ID]
	x.mu.Unlock()
	if full {
		return errors.New("the mailbox is full")
	}
	if e.Type != auth.EventRecovery {
		return nil
	}
	m, made, err := x.MakeRecovery(ctx, e)
	if err == nil && made {
		x.mu.Lock()
		x.links[e.UserID] = m.ID
		x.mu.Unlock()
	}
	return err
}

// day is one day of all of them.
func (x *site) day(t *testing.T, d int) {
	t.Helper()
	for part := range 3 {
		x.all(t, func(i int, u *resident) error {
			switch part {
			case 0:
				return x.morning(t.Context(), d, i, u)
			case 1:
				return x.noon(t.Context(), d, i, u)
			}
			return x.guess(t.Context(), d, i, u)
		})
		for must(x.TakeRecoveries(t.Context()))(t) > 0 {
		}
		for must(x.bus.DeliverDue(t.Context()))(t) > 0 {
		}

		x.c.advance(time.Hour)
	}
	x.c.advance(day - 3*time.Hour)
	if !must(x.purger.Sweep(t.Context()))(t) {
		t.Fatal("somebody else purges")
	}
	if !onSQLite(x.url) && d%7 == 0 { // as autovacuum does, to whose clock all this is some seconds
		must(x.database(t).ExecContext(t.Context(), `VACUUM`))(t)
	}
}

// all calls f for each user, some at a time.
func (x *site) all(t *testing.T, f func(i int, u *resident) error) {
	t.Helper()
	var clients sync.WaitGroup
	for first := range min(32, len(x.users)) {
		clients.Go(func() {
			for i := first; i < len(x.users); i += 32 {
				if err := f(i, x.users[i]); err != nil {
					t.Errorf("user %d: %v", i, err)
				}
			}
		})
	}
	clients.Wait()
	if t.Failed() {
		t.FailNow()
	}
}

// network is where a user is that day: at home on most, else one of many.
func network(d, i int) string {
	if (d+i)%9 != 0 {
		return fmt.Sprintf("10.%d.%d.7", i/250, i%250)
	}
	return fmt.Sprintf("172.%d.%d.7", 16+d%16, (i*7+d*13)%250)
}

// morning is a login, after a typing error of some, and renewals; some log out.
func (x *site) morning(ctx context.Context, d, i int, u *resident) error {
	client := auth.Client{Address: netip.MustParseAddr(network(d, i)), Network: true, UserAgent: "a browser of some version"}
	if (d+i)%11 == 0 {
		if _, err := x.Login(ctx, client, u.Email, "wrong"); !errors.Is(err, auth.ErrCredentials) && !throttled(err) {
			return fmt.Errorf("a wrong password: %w", err)
		}
	}
	tokens, err := x.Login(ctx, client, u.Email, u.password)
	if throttled(err) {
		return nil // by those who guess, on a day out; tomorrow at home it is over
	}
	for range 2 {
		if err == nil {
			tokens, err = x.Renew(ctx, client, tokens.Refresh, x.Store.Now())
		}
	}
	if err == nil && (d+i)%3 == 0 {
		err = x.Logout(ctx, client, auth.Caller{Profile: u.Profile}, tokens.Refresh)
	}
	if err == nil && (d+i)%13 == 0 {
		err = x.Recover(ctx, client, u.Email)
	}
	if err == nil && (d+i)%7 == 0 {
		err = x.askForAddress(ctx, client, u)
	}
	return err
}

// askForAddress asks for an address that nobody confirms.
func (x *site) askForAddress(ctx context.Context, client auth.Client, u *resident) error {
	cookie, err := x.LoginBrowser(ctx, client, u.Email, u.password, false, "")
	if err != nil {
		return err
	}
	v, err := x.Visitor(ctx, cookie.Value)
	if err != nil {
		return err
	}
	if err := x.RequestEmail(ctx, client, v, "new-"+u.Email); err != nil {
		return err
	}
	return x.logInAtApp(ctx, client, v)
}

// logInAtApp logs in at an app some times, and out once.
func (x *site) logInAtApp(ctx context.Context, client auth.Client, v auth.Visitor) error {
	for i := range 5 {
		code, _, err := x.Authorize(ctx, client, v, x.asks(x.app, []string{"email", "offline_access"}[i%2]), true)
		if err != nil {
			return err
		}
		if _, err := x.Exchange(ctx, client, x.app, code, x.app.RedirectURIs[0], verifier); err != nil {
			return err
		}
		if i == 2 {
			if err := x.TakeBack(ctx, client, v, x.app.ID); err != nil {
				return err
			}
		}
	}
	return nil
}

// noon is the reset of who asked for it; some never open the mail.
func (x *site) noon(ctx context.Context, d, i int, u *resident) error {
	x.mu.Lock()
	link := x.links[u.ID]
	delete(x.links, u.ID)
	x.mu.Unlock()
	if link == "" || (d+i)%2 == 0 {
		return nil
	}
	u.password = newPassword
	client := auth.Client{Address: netip.MustParseAddr(network(d, i)), Network: true, UserAgent: "a browser of some version"}
	return x.Reset(ctx, client, link, u.password)
}

// guess is guesses from unknown networks, at accounts that are there and at others, until
// they are throttled.
func (x *site) guess(ctx context.Context, d, i int, u *resident) error {
	if (d+i)%5 != 0 {
		return nil
	}
	client := auth.Client{Address: netip.MustParseAddr(fmt.Sprintf("198.51.%d.1", d%250)), Network: true}
	for range 3 {
		for _, email := range []string{u.Email, fmt.Sprintf("nobody%d-%d@example.org", d, i)} {
			if _, err := x.Login(ctx, client, email, "a guess"); !errors.Is(err, auth.ErrCredentials) && !throttled(err) {
				return fmt.Errorf("a guess: %w", err)
			}
		}
	}
	return nil
}

func throttled(err error) bool { return auth.CodeOf(err) == auth.Throttled }

// size counts the rows of each table, and the database's bytes.
func (x *site) size(t *testing.T) map[string]int {
	t.Helper()
	db := x.database(t)
	bytes := `SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()`
	if !onSQLite(x.url) {
		bytes = `SELECT SUM(pg_total_relation_size(oid)) FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace`
	}
	columns := []string{"(" + bytes + ")"}
	for _, name := range tables {
		columns = append(columns, "(SELECT COUNT(*) FROM "+name+")")
	}
	values := make([]int, len(columns))
	dest := make([]any, len(columns))
	for i := range values {
		dest[i] = &values[i]
	}
	ok(t, db.QueryRowContext(t.Context(), "SELECT "+strings.Join(columns, ", ")).Scan(dest...))
	size := map[string]int{"bytes": values[0]}
	for i, name := range tables {
		size[name] = values[i+1]
	}
	return size
}
