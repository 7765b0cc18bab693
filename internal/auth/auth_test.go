package auth_test

import (
	"context"
	"database/sql"
	"errors"
	"flag"
	"log/slog"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"kwai/internal/auth"
	"kwai/internal/bus"
	"kwai/internal/mail"
	"kwai/internal/password"
	"kwai/internal/store"
	"kwai/internal/testing/need"
	"kwai/internal/testing/storetest"
	"kwai/internal/token"
)

func TestMain(m *testing.M) {
	// Few long histories test the rules better than many short ones.
	_, _ = flag.Set("rapid.checks", strconv.Itoa(need.Rounds(25, 40))), flag.Set("rapid.steps", "100")
	auth.SetMaxLiveSessions(mostSessions)
	if !need.All() { // with the race detector they compute more than they wait
		need.ShareCores()
	}
	os.Exit(storetest.Main(m))
}

const (
	ann         = "ann@example.org"
	oldPassword = "seven green bottles"
	newPassword = "nine yellow teapots"
)

// mostSessions is how many a user has at most; ten thousand take long to make.
const mostSessions = 500

// cheap hashes cost next to nothing.
var cheap = password.Params{MemoryKiB: 8, Time: 1, Threads: 1}

// clock is a time that stands still until the test moves it.
type clock struct{ micros atomic.Int64 }

func newClock() *clock {
	c := new(clock)
	c.set(time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)) // on a boundary of the reuse windows
	return c
}

func (c *clock) now() time.Time          { return time.UnixMicro(c.micros.Load()).UTC() }
func (c *clock) set(t time.Time)         { c.micros.Store(t.UnixMicro()) }
func (c *clock) advance(d time.Duration) { c.micros.Add(d.Microseconds()) }

// tick is a later time each time it is asked, and in no test as much as a second later:
// what comes after something else is later, and a code is good as long as the test runs.
func (c *clock) tick() time.Time { return time.UnixMicro(c.micros.Add(1)).UTC() }

// server is all of kwai but HTTP.
type server struct {
	*auth.Service
	test        *testing.T // which it ends with
	url         string
	master      *token.Master
	keySchedule auth.KeySettings // without Lifetimes
	now         func() time.Time
	bus         *bus.Bus
	files       *mail.Files
	read        map[string]bool // the mails seen already
	gate        *gate           // nil: none
	guesses     int             // see guess

	beside struct {
		sync.Mutex
		db *sql.DB
	}
}

// start makes a server on a database; one that joins another is its replica.
func start(t *testing.T, url string, now func() time.Time, join *server) *server {
	t.Helper()
	s := &server{test: t, url: url, keySchedule: auth.KeyDefaults, now: now, read: make(map[string]bool)}
	if join != nil {
		s.master = join.master
	} else {
		s.master = must(token.ParseMaster([]byte(token.NewMasterKey())))(t)
	}
	pool := password.NewPool(password.Options{Params: cheap, Workers: 2, MaxWait: time.Hour}) // however slow the machine is
	t.Cleanup(pool.Close)
	settings := auth.Defaults
	settings.Issuer = "https://auth.example.org"
	settings.Limits.Off = true // limit_test.go switches them on
	s.Service = &auth.Service{Passwords: pool, Settings: settings, Log: slog.New(slog.DiscardHandler)}
	s.files = must(mail.NewFiles(folder(t), mail.Options{From: "noreply@example.org"}))(t)
	s.open(t)
	return s
}

// open opens the database; after a close, it is a restart.
func (s *server) open(t *testing.T) {
	t.Helper()
	s.Store = open(t, s.url, s.now)
	s.Keys = must(auth.EnsureKeys(t.Context(), s.Store, s.master, s.keyRules(), s.Log))(t)
	s.bus = bus.New(s.Store, &mail.Subscriber{
		Rules:  s.Service,
		Writer: &mail.Writer{PublicURL: s.Settings.Issuer},
		Sender: s.files,
		Log:    s.Log,
	}, s.Log)
}

// keyRules are the settings of its keys.
func (s *server) keyRules() auth.KeySettings {
	rules := s.keySchedule
	rules.Lifetimes = s.Settings.KeyLifetimes()
	return rules
}

// from is the client at that address, or the operator where it is "".
func from(address string) auth.Client {
	if address == "" {
		return auth.Operator
	}
	return auth.Client{Address: netip.MustParseAddr(address), Network: true, UserAgent: "agent of " + address}
}

// each runs f on a server of its own, on each kind of database as longer has them.
func each(t *testing.T, f func(t *testing.T, s *server, c *clock)) {
	t.Helper()
	longer(t, func(t *testing.T, url string) {
		c := newClock()
		f(t, start(t, url, c.now, nil), c)
	})
}

// tb is what the helpers need of a *testing.T or *rapid.T.
type tb interface {
	Helper()
	Fatal(args ...any)
	Fatalf(format string, args ...any)
	Context() context.Context
}

// must unwraps a result, or ends the test.
func must[T any](v T, err error) func(tb) T {
	return func(t tb) T {
		t.Helper()
		ok(t, err)
		return v
	}
}

func ok(t tb, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantErr(t tb, what string, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Fatalf("%s: error %v, want %v", what, got, want)
	}
}

// same compares what is got with what is wanted.
func same[T any](t *testing.T, what string, got, want T) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

// user makes an account with oldPassword.
func (s *server) user(t *testing.T, email string) store.User {
	t.Helper()
	must(s.CreateUser(t.Context(), auth.NewUser{Email: email, FirstName: "Ann", LastName: "Other", Password: oldPassword}))(t)
	return must(s.User(t.Context(), email))(t)
}

func (s *server) login(t *testing.T, email, password string) auth.Tokens {
	t.Helper()
	return must(s.Login(t.Context(), auth.Client{}, email, password))(t)
}

func (s *server) renew(t *testing.T, tokens auth.Tokens) auth.Tokens {
	t.Helper()
	return must(s.Renew(t.Context(), auth.Client{}, tokens.Refresh, s.Store.Now()))(t)
}

// caller is the caller of an access token.
func (s *server) caller(t *testing.T, tokens auth.Tokens) auth.Caller {
	t.Helper()
	return must(s.Check(t.Context(), tokens.Access))(t)
}

// session is the row that a refresh token belongs to.
func (s *server) session(t *testing.T, tokens auth.Tokens) store.Session {
	t.Helper()
	id, _, err := s.Ring().ParseRefresh(tokens.Refresh)
	ok(t, err)
	return must(s.Store.Read(t.Context()).SessionByID(id.String()))(t)
}

// dead checks that no token works.
func (s *server) dead(t *testing.T, user store.User, all ...auth.Tokens) {
	t.Helper()
	for _, tokens := range all {
		_, err := s.Check(t.Context(), tokens.Access)
		wantErr(t, "a check with an ended session's token", err, auth.ErrNotLoggedIn)
		wantErr(t, "a logout with an ended session's token", s.Logout(t.Context(), auth.Client{}, auth.Caller{Profile: user.Profile}, tokens.Refresh), auth.ErrNoSession)
		_, err = s.Renew(t.Context(), auth.Client{}, tokens.Refresh, s.Store.Now())
		wantErr(t, "a renewal of an ended session", err, auth.ErrRefresh)
	}
}

// alive holds that the tokens are those of a session that goes on.
func (s *server) alive(t *testing.T, all ...auth.Tokens) {
	t.Helper()
	for _, tokens := range all {
		must(s.Check(t.Context(), tokens.Access))(t)
		s.renew(t, tokens)
	}
}

// recovery makes a recovery of the user's, requested now, and returns its id.
func (s *server) recovery(t *testing.T, user store.User) string {
	t.Helper()
	m, made, err := s.MakeRecovery(t.Context(), s.request(user))
	ok(t, err)
	if !made {
		t.Fatal("no recovery was made")
	}
	return m.ID
}

// request is the event of a recovery that is requested now.
func (s *server) request(user store.User) store.Event {
	now := s.Store.Now()
	return store.Event{
		ID: uuid.NewString(), Type: auth.EventRecovery, UserID: user.ID,
		CreatedAt: now, ExpiresAt: now.Add(s.Settings.RecoveryLife),
	}
}

// outbox lists what waits to be mailed, or was given up, the oldest first.
func (s *server) outbox(t tb) []store.Delivery {
	t.Helper()
	return must(s.Store.Read(t.Context()).Deliveries(auth.SubscriberMail, "", 1000))(t)
}

// deliver mails what is due and returns the new mails, the oldest first.
func (s *server) deliver(t *testing.T) []mail.Message {
	t.Helper()
	for must(s.bus.DeliverDue(t.Context()))(t) > 0 {
	}
	var mails []mail.Message
	for _, name := range must(s.files.Names())(t) {
		if !s.read[name] {
			s.read[name] = true
			mails = append(mails, must(s.files.Read(name))(t))
		}
	}
	slices.Reverse(mails)
	return mails
}

// recover asks for a recovery and returns the id that is mailed.
func (s *server) recover(t *testing.T, email string) string {
	t.Helper()
	s.deliver(t) // what waits
	ok(t, s.Recover(t.Context(), auth.Client{}, email))
	must(s.TakeRecoveries(t.Context()))(t)
	mails := s.deliver(t)
	if len(mails) != 1 {
		t.Fatalf("%d mails, want the one with the unique id", len(mails))
	}
	return idIn(t, mails[0])
}

var link = regexp.MustCompile(`/reset\?uuid=([0-9a-f-]{36})\n`)

// idIn is the unique id in a mail.
func idIn(t *testing.T, m mail.Message) string {
	t.Helper()
	found := link.FindStringSubmatch(m.Text)
	if found == nil {
		t.Fatalf("no link in the mail %q: %s", m.Subject, m.Text)
	}
	return found[1]
}

// database is the server's database beside it, for what kwai never does.
func (s *server) database(t *testing.T) *sql.DB {
	t.Helper()
	s.beside.Lock()
	defer s.beside.Unlock()
	if s.beside.db == nil {
		driver, source := "pgx", s.url
		if path, is := strings.CutPrefix(s.url, "sqlite://"); is {
			driver, source = "sqlite", "file:"+path+"?_pragma=busy_timeout(3600000)"
		}
		db := must(sql.Open(driver, source))(t)
		s.beside.db = db
		s.test.Cleanup(func() { db.Close() })
	}
	return s.beside.db
}

// count runs a query for one number.
func (s *server) count(t *testing.T, query string) (n int) {
	t.Helper()
	ok(t, s.database(t).QueryRowContext(t.Context(), query).Scan(&n))
	return n
}
