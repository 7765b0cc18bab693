package test

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"kwai/internal/database"
	"kwai/internal/store"
	"kwai/internal/testing/cluster"
	"kwai/internal/testing/docpages"
	"kwai/internal/testing/mailtest"
	"kwai/internal/testing/need"
	"kwai/internal/testing/storetest"
)

// quick are settings of commands and servers: hashes that cost next to nothing,
// and a machine that may be slow.
var quick = []string{"--hash-memory=64", "--hash-time=1", "--hash-wait=1h"}

// publicURL is where users reach a site, in links and tokens: not where it
// listens.
const publicURL = "https://auth.example.org"

// good is a password that is.
const good = "a rather long one"

// site is an installation of kwai and its server, a process of its own.
type site struct {
	tb     testing.TB
	kwai   cluster.Kwai
	flags  []string // of commands, beside quick
	server *cluster.Server
	URL    string // of the server, without a path; the same after a restart
	log    *transcript
	via    http.RoundTripper // of its requests
}

// each runs f in parallel with an installation on each kind of database.
func each(t *testing.T, f func(t *testing.T, k cluster.Kwai)) {
	onEach(t, func(*testing.T) {}, f)
}

// eachOfAll is each for tests that say the same of both: on PostgreSQL it takes
// place if every test was asked for.
func eachOfAll(t *testing.T, f func(t *testing.T, k cluster.Kwai)) {
	onEach(t, func(t *testing.T) { need.Time(t) }, f)
}

func onEach(t *testing.T, postgres func(t *testing.T), f func(t *testing.T, k cluster.Kwai)) {
	t.Parallel()
	t.Run("sqlite", func(t *testing.T) {
		t.Parallel()
		f(t, install(t, ""))
	})
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		postgres(t)
		f(t, install(t, patient(storetest.Postgres(t))))
	})
}

// patient is a database's URL for a slow machine, where to log in may take longer
// than kwai waits of itself.
func patient(url string) string { return url + "&connect_timeout=600" }

// install makes an installation: on SQLite, unless a database is given.
func install(tb testing.TB, database string) cluster.Kwai {
	tb.Helper()
	path, err := program()
	if err != nil {
		tb.Fatal(err)
	}
	return cluster.Kwai{Program: path, Folder: tb.TempDir(), Database: database}
}

// start starts a server of an installation until the end of the test. Without
// flags nothing is throttled, and the log has warnings only.
func start(tb testing.TB, k cluster.Kwai, flags ...string) *site {
	tb.Helper()
	command, err := k.Serve(tb.Context(), append(append([]string{"--log-format=json"}, quick...), flags...)...)
	if err != nil {
		tb.Fatal(err)
	}
	return startCommand(tb, k, command)
}

// startCommand is start for a command that was changed.
func startCommand(tb testing.TB, k cluster.Kwai, command cluster.Command) *site {
	tb.Helper()
	s := &site{tb: tb, kwai: k, URL: "http://" + command.Address, log: newTranscript(), via: newTransport(tb)}
	command.Log = s.log
	var err error
	if s.server, err = cluster.StartServer(context.WithoutCancel(tb.Context()), command); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		s.server.Kill()
		if strings.Contains(s.log.String(), "DATA RACE") {
			tb.Errorf("kwai serve: %s", s.log)
		}
		if len(command.Args) > 0 && command.Args[0] == "serve" { // a proxy's log is its own
			docpages.Log(tb, s.log.String())
		}
	})
	return s
}

// restart starts the server again, ending it in good order if it runs.
func (s *site) restart() {
	s.tb.Helper()
	if err := s.server.Restart(context.WithoutCancel(s.tb.Context())); err != nil {
		s.tb.Fatal(err)
	}
}

// stop ends the server in good order, which must go well.
func (s *site) stop() {
	s.tb.Helper()
	s.server.Stop()
	if code := s.server.ExitCode(); code != 0 {
		s.tb.Errorf("kwai serve ended with %d: %s", code, s.log)
	}
}

// command runs another command beside the server.
func (s *site) command(stdin string, args ...string) (stdout, stderr string, code int) {
	s.tb.Helper()
	var out, log bytes.Buffer
	cmd := s.kwai.Cmd(s.tb.Context(), append(append(args, quick...), s.flags...)...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &log
	err := cmd.Run()
	if exit, is := errors.AsType[*exec.ExitError](err); err != nil && (!is || exit.ExitCode() < 0) {
		s.tb.Errorf("kwai %v: %v: %s", args, err, &log)
	}
	return out.String(), log.String(), cmd.ProcessState.ExitCode()
}

// mustCommand is command for what must succeed.
func (s *site) mustCommand(stdin string, args ...string) string {
	s.tb.Helper()
	out, log, code := s.command(stdin, args...)
	if code != 0 {
		s.tb.Fatalf("kwai %v: exit code %d: %s", args, code, log)
	}
	return out
}

// user makes an account and returns its id.
func (s *site) user(email, password string) string {
	s.tb.Helper()
	return strings.TrimSpace(s.mustCommand(password, "user", "create", email, "--first-name=Ann", "--last-name=Other", "--password-stdin"))
}

// open opens the site's database as a command does.
func (s *site) open() *store.Store {
	s.tb.Helper()
	db, err := store.Open(s.tb.Context(), database.Options{URL: s.kwai.DatabaseURL()})
	if err != nil {
		s.tb.Fatal(err)
	}
	s.tb.Cleanup(func() { db.Close() })
	return db
}

// number runs a query for one on the site's database.
func (s *site) number(query string) (n int) {
	s.tb.Helper()
	if err := rawDatabase(s.tb, s.kwai.DatabaseURL()).QueryRowContext(s.tb.Context(), query).Scan(&n); err != nil {
		s.tb.Fatal(err)
	}
	return n
}

// rawDatabase opens a database past kwai.
func rawDatabase(tb testing.TB, url string) *sql.DB {
	tb.Helper()
	driver, name := "pgx", url
	if path, is := sqlitePath(url); is {
		driver, name = "sqlite", "file:"+path+"?_pragma=busy_timeout(600000)"
	}
	db, err := sql.Open(driver, name)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { db.Close() })
	return db
}

func sqlitePath(url string) (path string, is bool) { return strings.CutPrefix(url, "sqlite://") }

// answer is what a server said.
type answer struct {
	Status int
	Header http.Header
	Body   []byte
}

// String is for failed tests.
func (a answer) String() string { return fmt.Sprintf("%d %s", a.Status, a.Body) }

// field is a member of a JSON answer.
func (a answer) field(name string) string {
	var v map[string]any
	if json.Unmarshal(a.Body, &v) != nil || v[name] == nil {
		return ""
	}
	return fmt.Sprint(v[name])
}

// wants holds the answer against a status.
func (a answer) wants(tb testing.TB, status int, what string) answer {
	tb.Helper()
	if a.Status != status {
		tb.Errorf("%s: %v, want %d", what, a, status)
	}
	return a
}

// newTransport is how a client reaches servers. Each that does one thing after the
// other has its own: a shared one may open a connection that it doesn't need after
// all, which the server closes when nothing comes for five seconds, maybe just when
// a request does.
func newTransport(tb testing.TB) *http.Transport {
	via := &http.Transport{DisableCompression: true}
	tb.Cleanup(via.CloseIdleConnections)
	return via
}

const urlencoded = "application/x-www-form-urlencoded"

// form encodes pairs of names and values.
func form(fields ...string) string {
	values := url.Values{}
	for i := 0; i < len(fields); i += 2 {
		values.Add(fields[i], fields[i+1])
	}
	return values.Encode()
}

// request sends a request, a POST of a form if there is one. It follows no
// redirect, and takes the time that it takes.
func request(ctx context.Context, via http.RoundTripper, url, bearer, form string) (answer, error) {
	return requestWith(ctx, via, url, bearerHeader(bearer), form)
}

// bearerHeader is that of a request by an access token, or "".
func bearerHeader(bearer string) http.Header {
	header := http.Header{}
	if bearer != "" {
		header.Set("Authorization", "Bearer "+bearer)
	}
	return header
}

// pageHeader is that of a request by the cookie of a browser session, or "".
func pageHeader(cookie string) http.Header {
	header := http.Header{}
	if cookie != "" {
		header.Set("Cookie", "kwai-dev="+cookie)
	}
	return header
}

func requestWith(ctx context.Context, via http.RoundTripper, url string, header http.Header, form string) (answer, error) {
	method := http.MethodPost
	if form == "" {
		method = http.MethodGet
	}
	r, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(form))
	if err != nil {
		return answer{}, err
	}
	r.Header = header
	if form != "" {
		r.Header.Set("Content-Type", urlencoded)
	}
	res, err := via.RoundTrip(r)
	if err != nil {
		return answer{}, err
	}
	return readAnswer(res)
}

func readAnswer(res *http.Response) (answer, error) {
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	return answer{res.StatusCode, res.Header, body}, err
}

const (
	api      = "/api/v1/auth/"
	userPath = api + "user"
)

// post sends a form to an endpoint of the API. Fields come in pairs.
func (s *site) post(endpoint, bearer string, fields ...string) answer {
	s.tb.Helper()
	a, err := request(s.tb.Context(), s.via, s.URL+api+endpoint, bearer, form(fields...))
	if err != nil {
		s.tb.Fatalf("%s: %v: %s", endpoint, err, s.log)
	}
	return a
}

// get asks for a path; bearer is an access token or "".
func (s *site) get(path, bearer string) answer {
	s.tb.Helper()
	a, err := request(s.tb.Context(), s.via, s.URL+path, bearer, "")
	if err != nil {
		s.tb.Fatalf("%s: %v: %s", path, err, s.log)
	}
	return a
}

// login logs in with the good password.
func (s *site) login(email string) answer {
	s.tb.Helper()
	a := s.post("login", "", "username", email, "password", good)
	if a.Status != http.StatusOK {
		s.tb.Fatalf("login: %v\n%s", a, s.log)
	}
	return a
}

// recovery asks for a mail and returns the unique id in the next one to that
// address that has one.
func (s *site) recovery(mails *mailtest.Server, email string) string {
	s.tb.Helper()
	n := len(mails.Mails())
	if a := s.post("recover", "", "email", email); a.Status != http.StatusOK {
		s.tb.Fatal(a)
	}
	for ; ; n++ {
		if m := waitMails(s.tb, mails, n+1)[n]; m.To == email && m.RecoveryID() != "" {
			return m.RecoveryID()
		}
	}
}

// waitMails returns the mails once there are n.
func waitMails(tb testing.TB, mails *mailtest.Server, n int) []mailtest.Mail {
	tb.Helper()
	all, err := mails.Wait(tb.Context(), n)
	if err != nil {
		tb.Fatal(err)
	}
	return all
}

// apart is the site for a client that does things at the same time as others.
func (s *site) apart() *site {
	other := *s
	other.via = newTransport(s.tb)
	return &other
}

// at is the site as a client with that address of loopback (127.x.y.z, on Linux)
// reaches it.
func (s *site) at(address string) *site {
	dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}}
	via := newTransport(s.tb)
	via.DialContext = dialer.DialContext
	there := *s
	there.via = via
	return &there
}

// decode reads base64 as tokens have it.
func decode(tb testing.TB, text string) []byte {
	tb.Helper()
	b, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

// sessionOf is the session that an access token belongs to.
func sessionOf(tb testing.TB, access string) string {
	tb.Helper()
	parts := strings.Split(access, ".")
	if len(parts) != 3 {
		tb.Fatalf("not a JWT: %s", access)
	}
	var claims struct{ SID string }
	if err := json.Unmarshal(decode(tb, parts[1]), &claims); err != nil || claims.SID == "" {
		tb.Fatalf("not an access token: %s: %v", access, err)
	}
	return claims.SID
}

// pass lets time pass, until ctx ends.
func pass(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

func readFile(tb testing.TB, path string) []byte {
	tb.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		tb.Fatal(err)
	}
	return text
}

// transcript is a server's whole log.
type transcript struct {
	mu    sync.Mutex
	text  bytes.Buffer
	grown chan struct{} // closed and made anew with each writing
}

func newTranscript() *transcript { return &transcript{grown: make(chan struct{})} }

func (l *transcript) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	close(l.grown)
	l.grown = make(chan struct{})
	return l.text.Write(b)
}

func (l *transcript) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// waitLog returns when the log has that text n times.
func (s *site) waitLog(n int, text string) {
	s.tb.Helper()
	for done := s.server.Done(); ; {
		s.log.mu.Lock()
		have, grown := strings.Count(s.log.text.String(), text), s.log.grown
		s.log.mu.Unlock()
		if have >= n {
			return
		}
		if done == nil {
			s.tb.Fatalf("kwai serve ended, and has said %d times of %d: %s\n%s", have, n, text, s.log)
		}
		select {
		case <-grown:
		case <-done:
			done = nil // all that it said is in the log now
		}
	}
}
