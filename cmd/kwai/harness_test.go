package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/gorillamux"
	"github.com/rogpeppe/go-internal/testscript"

	"kwai/internal/password"
	"kwai/internal/testing/docpages"
	"kwai/internal/testing/keytest"
	"kwai/internal/testing/mailtest"
	"kwai/internal/testing/need"
	"kwai/internal/testing/storetest"
	"kwai/internal/token"
)

type mainRun func() int

func (run mainRun) Run() int { return run() }

func TestMain(m *testing.M) {
	password.RunWorker()
	masterKeyEvery, certificateEvery = 100*time.Millisecond, 100*time.Millisecond
	need.ShareCores()
	if need.All() { // with the race detector they compute more than they wait
		_ = flag.Set("test.parallel", strconv.Itoa(2*runtime.GOMAXPROCS(0)))
	}
	// Scripts run this test binary as the command kwai.
	testscript.Main(mainRun(func() int {
		if signal.Ignored(syscall.SIGHUP) { // by nohup: the servers that tests start must hear it
			signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP)
		}
		return storetest.Main(m)
	}), map[string]func(){"kwai": main})
}

// quick are settings for tests: hashes that cost next to nothing, on a machine that
// may be slow.
var quick = []string{"--hash-memory=64", "--hash-time=1", "--hash-wait=1h"}

// site is a running `kwai serve`, in this process.
type site struct {
	tb       testing.TB
	URL      string // of the server, without a path
	Database string
	flags    []string // of every command
	log      *logBuffer
	stop     context.CancelFunc
	exit     chan int
	via      http.RoundTripper // of its requests
}

// each runs f against a site on each kind of database, served with these flags.
func each(t *testing.T, f func(t *testing.T, s *site), flags ...string) {
	storetest.Each(t, func(t *testing.T, url string) { f(t, start(t, url, flags...)) })
}

// publicURL is where users reach the sites of withMail: not where they listen.
const publicURL = "https://auth.example.org"

// withMail is each with a mail server, and with publicURL. The everyday run has SQLite
// alone: which mails wait is tried on both databases by package bus.
func withMail(t *testing.T, f func(t *testing.T, s *site, mails *mailtest.Server), flags ...string) {
	t.Helper()
	storetest.Mostly(t, func(t *testing.T, url string) {
		mails := mailtest.Serve(t)
		all := append([]string{"--public-url=" + publicURL, "--smtp=" + mails.URL()}, flags...)
		f(t, start(t, url, all...), mails)
	})
}

// start runs `kwai serve` on a database until the end of the test.
func start(tb testing.TB, database string, flags ...string) *site {
	tb.Helper()
	data := tb.TempDir()
	s := &site{tb: tb, Database: database, log: newLogBuffer(tb), exit: make(chan int, 1), via: http.DefaultTransport}
	s.flags = append(s.flags, "--data="+data, "--database="+withLongTimeout(database))
	s.flags = append(s.flags, quick...)
	serve := append([]string{"serve", "--listen=127.0.0.1:0", "--log-format=json"}, s.flags...)
	if strings.HasPrefix(database, "postgres") {
		serve = append(serve, "--public-url=http://127.0.0.1:8080")
	}
	serve = append(serve, flags...)
	if !slices.ContainsFunc(flags, func(f string) bool { return strings.HasPrefix(f, "--master-key-file=") }) {
		serve = append(serve, "--master-key-file="+masterKeyOf(tb, database))
	}
	s.run(serve)
	return s
}

// runRefused runs a server that is to refuse its settings, and returns its exit
// code and its output. A server that starts all the same is ended.
func runRefused(tb testing.TB, args ...string) (code int, output string) {
	tb.Helper()
	ctx, stop := context.WithCancel(tb.Context())
	defer stop()
	log := newLogBuffer(tb)
	go func() {
		select {
		case <-log.serving:
			stop()
		case <-ctx.Done():
		}
	}()
	code = run(ctx, append([]string{"serve", "--listen=127.0.0.1:0", "--log-format=json"}, args...), console{strings.NewReader(""), log, log})
	return code, log.String()
}

// withLongTimeout is a database's URL for a slow machine, where to log in may take longer
// than kwai waits of itself.
func withLongTimeout(url string) string {
	if strings.HasPrefix(url, "postgres") {
		url += "&connect_timeout=600"
	}
	return url
}

// masterKeys has a master key file for each database, so that a site can be
// started again on it.
var masterKeys sync.Map

// masterKeyOf is the file of a database's master key. A new one has a key for ID tokens,
// which the server needn't make.
func masterKeyOf(tb testing.TB, database string) string {
	tb.Helper()
	if path, ok := masterKeys.Load(database); ok {
		return path.(string)
	}
	path, master := newMasterKey(tb)
	s := storetest.Open(tb, database, nil)
	keytest.Insert(tb, s, master)
	if err := s.Close(); err != nil {
		tb.Fatal(err)
	}
	masterKeys.Store(database, path)
	return path
}

func newMasterKey(tb testing.TB) (path string, master *token.Master) {
	tb.Helper()
	path = tb.TempDir() + "/master.key"
	text := []byte(token.NewMasterKey() + "\n")
	master, err := token.ParseMaster(text)
	if err == nil {
		err = os.WriteFile(path, text, 0o600)
	}
	if err != nil {
		tb.Fatal(err)
	}
	return path, master
}

func (s *site) run(args []string) {
	s.tb.Helper()
	ctx, stop := context.WithCancel(context.Background())
	s.stop = stop
	go func() { s.exit <- run(ctx, args, console{strings.NewReader(""), io.Discard, s.log}) }()
	s.tb.Cleanup(func() { s.close() })
	select {
	case address := <-s.log.serving:
		s.URL = "http://" + address
	case code := <-s.exit:
		s.exit <- code
		s.tb.Fatalf("kwai serve ended with %d: %s", code, s.log)
	}
}

// close ends the server as SIGTERM does and returns its exit code.
func (s *site) close() int {
	s.stop()
	code := <-s.exit
	s.exit <- code
	return code
}

// command runs another command beside the server and returns its output.
func (s *site) command(stdin string, args ...string) (stdout, stderr string, code int) {
	var out, err bytes.Buffer
	code = run(context.Background(), append(args, s.flags...), console{strings.NewReader(stdin), &out, &err})
	return out.String(), err.String(), code
}

// mustCommand is command for what must succeed.
func (s *site) mustCommand(stdin string, args ...string) string {
	s.tb.Helper()
	out, err, code := s.command(stdin, args...)
	if code != 0 {
		s.tb.Fatalf("kwai %v: exit code %d: %s", args, code, err)
	}
	return out
}

// user makes an account and returns its id.
func (s *site) user(email, password string) string {
	s.tb.Helper()
	return strings.TrimSpace(s.mustCommand(password, "user", "create", email, "--first-name=Ann", "--last-name=Other", "--password-stdin"))
}

// answer is the answer to a request.
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

// problem holds the answer against what every error has and returns its
// detail. A 422 must have exactly these wrong fields.
func (a answer) problem(tb testing.TB, status int, fields ...string) string {
	tb.Helper()
	var p struct {
		Type, Title, Detail string
		Status              int
		Errors              []struct{ Field, Message string }
	}
	members := map[string]any{}
	if a.Status != status || json.Unmarshal(a.Body, &p) != nil || json.Unmarshal(a.Body, &members) != nil {
		tb.Errorf("got %v, want a problem with status %d", a, status)
		return ""
	}
	want := []string{"detail", "status", "title", "type"}
	if status == http.StatusUnprocessableEntity {
		want = append([]string{"detail", "errors"}, want[1:]...)
	}
	if got := slices.Sorted(maps.Keys(members)); !slices.Equal(got, want) {
		tb.Errorf("the members of %v are %q, want %q", a, got, want)
	}
	if p.Type != "about:blank" || p.Title != http.StatusText(status) || p.Status != status || p.Detail == "" {
		tb.Errorf("%v: its members don't fit the status %d", a, status)
	}
	for name, want := range map[string]string{
		"Content-Type": "application/problem+json", "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff",
	} {
		if got := a.Header.Values(name); len(got) != 1 || got[0] != want {
			tb.Errorf("%v: %s is %q, want %q", a, name, got, want)
		}
	}
	var wrong []string
	for _, e := range p.Errors {
		wrong = append(wrong, e.Field)
		if e.Message == "" || !strings.Contains(p.Detail, e.Message) {
			tb.Errorf("%v: the detail lacks the message of %s", a, e.Field)
		}
	}
	if !slices.Equal(wrong, fields) {
		tb.Errorf("%v is about the fields %q, want %q", a, wrong, fields)
	}
	return p.Detail
}

// post sends a form to an endpoint of the API. Fields come in pairs.
func (s *site) post(endpoint, bearer string, fields ...string) answer {
	s.tb.Helper()
	return s.send("POST", "/api/v1/auth/"+endpoint, bearer, urlencoded, encodeURL(fields...))
}

const urlencoded = "application/x-www-form-urlencoded"

func encodeURL(fields ...string) string {
	form := url.Values{}
	for i := 0; i < len(fields); i += 2 {
		form.Add(fields[i], fields[i+1])
	}
	return form.Encode()
}

// get asks for a path; bearer is an access token or "".
func (s *site) get(path, bearer string) answer {
	s.tb.Helper()
	return s.send("GET", path, bearer, "", "")
}

// forClient sends a request as a proxy does for a client with that address; with fields
// it is a form.
func (s *site) forClient(client, method, path, bearer string, fields ...string) answer {
	s.tb.Helper()
	r, err := http.NewRequestWithContext(s.tb.Context(), method, s.URL+path, strings.NewReader(encodeURL(fields...)))
	if err != nil {
		s.tb.Fatal(err)
	}
	r.Header = http.Header{"X-Forwarded-For": {client}, "User-Agent": {"kwai-test of " + client}}
	if len(fields) > 0 {
		r.Header.Set("Content-Type", urlencoded)
	}
	if bearer != "" {
		r.Header.Set("Authorization", "Bearer "+bearer)
	}
	return s.do(r)
}

func (s *site) send(method, path, bearer, contentType, body string) answer {
	s.tb.Helper()
	r, err := http.NewRequestWithContext(s.tb.Context(), method, s.URL+path, strings.NewReader(body))
	if err != nil {
		s.tb.Fatal(err)
	}
	if contentType != "" {
		r.Header.Set("Content-Type", contentType)
	}
	if bearer != "" {
		r.Header.Set("Authorization", "Bearer "+bearer)
	}
	return s.do(r)
}

// do sends a request and holds the answer against openapi.yaml. It follows no
// redirect.
func (s *site) do(r *http.Request) answer {
	s.tb.Helper()
	via := s.via
	if via == nil {
		via = http.DefaultTransport // of a program
	}
	res, err := via.RoundTrip(r)
	if err != nil {
		s.tb.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		s.tb.Fatal(err)
	}
	a := answer{res.StatusCode, res.Header, body}
	if err := documented(r, a); err != nil {
		s.tb.Errorf("%s %s answered %v: not as openapi.yaml has it: %v", r.Method, r.URL.Path, a, err)
	}
	return a
}

// apiRouter finds what openapi.yaml says of a request.
var apiRouter = sync.OnceValues(func() (routers.Router, error) {
	for _, text := range []string{"text/html", "text/css"} {
		openapi3filter.RegisterBodyDecoder(text, openapi3filter.RegisteredBodyDecoder("text/plain"))
	}
	doc, err := openapi3.NewLoader().LoadFromFile("../../internal/web/openapi.yaml")
	if err != nil {
		return nil, err
	}
	doc.Servers = nil // any host
	for _, item := range doc.Paths.Map() {
		for _, o := range item.Operations() {
			o.Responses.Delete("default") // here a status must be named
		}
	}
	return gorillamux.NewRouter(doc)
})

// documented says how an answer departs from openapi.yaml.
func documented(r *http.Request, a answer) error {
	router, err := apiRouter()
	if err != nil {
		return err
	}
	route, params, err := router.FindRoute(r)
	if err != nil {
		if a.Status == http.StatusNotFound || a.Status == http.StatusMethodNotAllowed || r.Method == http.MethodOptions || r.Method == http.MethodHead {
			return nil // what isn't described isn't there
		}
		return err
	}
	return openapi3filter.ValidateResponse(r.Context(), (&openapi3filter.ResponseValidationInput{
		RequestValidationInput: &openapi3filter.RequestValidationInput{Request: r, PathParams: params, Route: route},
		Status:                 a.Status,
		Header:                 a.Header,
		Options:                &openapi3filter.Options{IncludeResponseStatus: true},
	}).SetBodyBytes(a.Body))
}

// logBuffer keeps a server's log and says when it serves.
type logBuffer struct {
	tb      testing.TB
	mu      sync.Mutex
	text    bytes.Buffer
	grown   chan struct{} // closed and made anew with each line
	serving chan string   // its address, once
}

// newLogBuffer compares each line with docs/operating.md at the end of the test.
func newLogBuffer(tb testing.TB) *logBuffer {
	l := &logBuffer{tb: tb, serving: make(chan string, 1), grown: make(chan struct{})}
	tb.Cleanup(l.forget)
	return l
}

// wait returns when the log has n lines with that text.
func (l *logBuffer) wait(tb testing.TB, n int, text string) {
	tb.Helper()
	for {
		l.mu.Lock()
		have, grown := strings.Count(l.text.String(), text), l.grown
		l.mu.Unlock()
		if have >= n {
			return
		}
		<-grown
	}
}

func (l *logBuffer) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var line struct{ Msg, Address string }
	if json.Unmarshal(b, &line) == nil && line.Msg == "serving" {
		l.serving <- line.Address
	}
	close(l.grown)
	l.grown = make(chan struct{})
	return l.text.Write(b)
}

// forget empties it.
func (l *logBuffer) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	docpages.Log(l.tb, l.text.String())
	l.text = bytes.Buffer{}
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

const good = "a long enough one" // a password

// login is a successful one, with good.
func (s *site) login(email string) answer {
	s.tb.Helper()
	a := s.post("login", "", "username", email, "password", good)
	if a.Status != http.StatusOK {
		s.tb.Fatalf("login: %v\n%s", a, s.log)
	}
	return a
}
