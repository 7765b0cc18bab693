package web_test

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/gorillamux"

	"kwai/internal/auth"
	"kwai/internal/bus"
	"kwai/internal/database"
	"kwai/internal/mail"
	"kwai/internal/password"
	"kwai/internal/store"
	"kwai/internal/testing/mailtest"
	"kwai/internal/testing/need"
	"kwai/internal/testing/storetest"
	"kwai/internal/token"
	"kwai/internal/web"
)

func TestMain(m *testing.M) {
	need.ShareCores()
	os.Exit(storetest.Main(m))
}

const (
	// publicURL is where users reach the sites: not where they listen.
	publicURL = "https://auth.example.org"
	// host is what requests to a site name that doesn't listen.
	host = "http://kwai.internal:8080"

	good   = "a long enough one"   // a password
	better = "a tatami by the sea" // another one
)

// site is all of kwai but the command line and the connections: wired as the
// command serve does it, with nothing going on in the background. It has a
// database unless it is bare, and mail if it is one of withMail.
type site struct {
	tb      testing.TB
	URL     string // of the site, without a path
	rules   *auth.Service
	command *auth.Service // the rules as commands use them: without keys
	web     *web.Server
	handler http.Handler
	via     http.RoundTripper // of its requests
	clock   *clock
	master  *token.Master
	log     *logBuffer
	mails   *mailtest.Server // of withMail
	bus     *bus.Bus         // of withMail
}

// setup is what sites differ in.
type setup struct {
	rules auth.Settings
	web   *web.Server
	level slog.Level // of the log
	mail  bool
	clock *clock
}

// limitsOff has nothing throttled.
func limitsOff(s *setup) { s.rules.Limits.Off = true }

// noMailPause has each recovery mailed that is asked for.
func noMailPause(s *setup) { s.rules.Limits.MailPause = 0 }

// debugLog has everything logged.
func debugLog(s *setup) { s.level = slog.LevelDebug }

// corsOf lets pages of these origins call the API.
func corsOf(origins ...string) func(*setup) {
	return func(s *setup) { s.web.CORSOrigins = origins }
}

// behindProxy believes what the header X-Forwarded-For says, as of a proxy on
// this machine.
func behindProxy(s *setup) { s.web.Proxies = trusting("127.0.0.1") }

// trusting are proxies that are trusted, in words.
func trusting(proxies string) (trusted web.Proxies) {
	for text := range strings.FieldsSeq(proxies) {
		prefix, err := web.ParseProxy(text)
		if err != nil {
			panic(err)
		}
		trusted = append(trusted, prefix)
	}
	return trusted
}

// each runs f against a site on each kind of database; the everyday run has SQLite alone.
func each(t *testing.T, f func(t *testing.T, s *site), options ...func(*setup)) {
	storetest.Mostly(t, func(t *testing.T, url string) { f(t, start(t, url, options...)) })
}

// withMail is each with a mail server.
func withMail(t *testing.T, f func(t *testing.T, s *site), options ...func(*setup)) {
	each(t, f, append(options, func(s *setup) { s.mail = true })...)
}

// bare is a site without rules or a database, for what needs none.
func bare(tb testing.TB, options ...func(*setup)) *site {
	tb.Helper()
	s, _ := prepare(tb, options)
	return s
}

// prepare makes a site that lacks the rules.
func prepare(tb testing.TB, options []func(*setup)) (*site, *setup) {
	tb.Helper()
	public, err := url.Parse(publicURL)
	if err != nil {
		tb.Fatal(err)
	}
	o := &setup{rules: auth.Defaults, web: &web.Server{PublicURL: public, SelfDelete: true}, clock: newClock()}
	for _, option := range options {
		option(o)
	}
	s := &site{tb: tb, URL: host, web: o.web, clock: o.clock, log: newLogBuffer()}
	o.web.Log = slog.New(slog.NewJSONHandler(s.log, &slog.HandlerOptions{Level: o.level}))
	if s.handler, err = o.web.Handler(); err != nil {
		tb.Fatal(err)
	}
	s.via = direct{s.handler}
	return s, o
}

// start makes a site on a database, for the time of the test.
func start(tb testing.TB, url string, options ...func(*setup)) *site {
	tb.Helper()
	s, o := prepare(tb, options)
	log := o.web.Log
	var err error
	s.master, err = token.ParseMaster([]byte(token.NewMasterKey()))
	s.ok(err)
	db, err := store.Open(tb.Context(), database.Options{URL: url, Serve: true, Now: s.clock.now, Log: log})
	s.ok(err)
	tb.Cleanup(func() { s.ok(db.Close()) })
	keys, err := auth.EnsureKeys(tb.Context(), db, s.master, auth.KeySettings{JWKSMaxAge: auth.KeyDefaults.JWKSMaxAge, Lifetimes: o.rules.KeyLifetimes()}, log)
	s.ok(err)
	hashing := password.Params{MemoryKiB: 8, Time: 1, Threads: 1} // which costs next to nothing
	passwords := password.NewPool(password.Options{Params: hashing, Workers: 1, MaxWait: time.Hour, Log: log})
	tb.Cleanup(passwords.Close)
	s.command = &auth.Service{Store: db, Passwords: passwords, Settings: o.rules, Log: log}
	s.rules = &auth.Service{Store: db, Passwords: passwords, Keys: keys, Settings: o.rules, Log: log}
	s.rules.Settings.Issuer = publicURL
	o.web.Rules = s.rules
	if o.mail {
		s.mails = mailtest.Serve(tb)
		sender, err := mail.NewSMTP(s.mails.URL(), mail.Options{From: "noreply@auth.example.org"})
		s.ok(err)
		s.bus = bus.New(db, &mail.Subscriber{Rules: s.rules, Writer: &mail.Writer{PublicURL: publicURL}, Sender: sender, Log: log}, log)
	}
	s.ok(s.rules.RefreshCosts(tb.Context()))
	s.ok(s.rules.RefreshSubscribers(tb.Context()))
	return s
}

// clock is a time that passes only where a test wants it to, but for a
// microsecond at each look, so that nothing happens at the same time.
type clock struct{ micros atomic.Int64 }

func newClock() *clock {
	c := new(clock)
	c.micros.Store(time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC).UnixMicro()) // on a boundary of the reuse windows
	return c
}

func (c *clock) now() time.Time          { return time.UnixMicro(c.micros.Add(1)).UTC() }
func (c *clock) advance(d time.Duration) { c.micros.Add(d.Microseconds()) }

// listen is the site over HTTP on a port of this machine, for what depends on
// the connection.
func (s *site) listen() *site {
	s.tb.Helper()
	server := httptest.NewUnstartedServer(s.handler)
	server.Config.ErrorLog = slog.NewLogLogger(slog.NewJSONHandler(s.log, nil), slog.LevelInfo)
	server.Config.DisableGeneralOptionsHandler = true
	server.Listener = s.web.Refusals(server.Listener)
	server.Start()
	s.tb.Cleanup(server.Close)
	near := *s
	near.URL, near.via = server.URL, server.Client().Transport
	return &near
}

// direct is a way to a handler without any connection, for clients on this
// machine.
type direct struct{ http.Handler }

// RoundTrip has the handler answer, as a server does.
func (d direct) RoundTrip(r *http.Request) (*http.Response, error) {
	in := r.Clone(r.Context())
	in.RequestURI = r.URL.RequestURI()
	var err error
	if in.URL, err = url.ParseRequestURI(in.RequestURI); err != nil {
		return nil, err
	}
	in.Host, in.RemoteAddr = cmp.Or(r.Host, r.URL.Host), "127.0.0.1:4711"
	switch {
	case in.Body == nil:
		in.Body = http.NoBody
	case in.Body != http.NoBody && in.ContentLength == 0:
		in.ContentLength = -1
	}
	w := httptest.NewRecorder()
	d.ServeHTTP(w, in)
	res := w.Result()
	if r.Method == http.MethodHead {
		res.Body = http.NoBody
	}
	return res, nil
}

// ok ends the test unless err is nil.
func (s *site) ok(err error) {
	s.tb.Helper()
	if err != nil {
		s.tb.Fatal(err)
	}
}

// user makes an account, as an operator does, and returns its id.
func (s *site) user(email, password string) string {
	s.tb.Helper()
	return s.create(auth.NewUser{Email: email, FirstName: "Ann", LastName: "Other", Password: password})
}

func (s *site) create(user auth.NewUser) (id string) {
	s.tb.Helper()
	id, err := s.command.CreateUser(s.tb.Context(), user)
	s.ok(err)
	return id
}

// revoke and reinstate do what the commands revoke and enact do.
func (s *site) revoke(email string) {
	s.tb.Helper()
	s.ok(s.command.Revoke(s.tb.Context(), email))
}

func (s *site) reinstate(email string) {
	s.tb.Helper()
	s.ok(s.command.Reinstate(s.tb.Context(), email))
}

// setPassword does what the command of that name does.
func (s *site) setPassword(email, password string) {
	s.tb.Helper()
	s.ok(s.command.SetPassword(s.tb.Context(), email, password))
}

// sent has all done that goes on in the background and returns the mails so far,
// which must be n.
func (s *site) sent(n int) []mailtest.Mail {
	s.tb.Helper()
	for taken := -1; taken != 0; {
		var err error
		taken, err = s.rules.TakeRecoveries(s.tb.Context())
		s.ok(err)
	}
	for delivered := -1; delivered != 0; {
		var err error
		delivered, err = s.bus.DeliverDue(s.tb.Context())
		s.ok(err)
	}
	left, err := s.rules.Store.Read(s.tb.Context()).Deliveries(auth.SubscriberMail, "", 1)
	s.ok(err)
	if len(left) > 0 {
		s.tb.Fatalf("a mail couldn't be delivered: %+v", left)
	}
	all := s.mails.Mails()
	if len(all) != n {
		var subjects []string
		for _, m := range all {
			subjects = append(subjects, m.To+": "+m.Subject)
		}
		s.tb.Fatalf("%d mails came, want %d: %q", len(all), n, subjects)
	}
	return all
}

// recovery asks for a mail, which is the only new one, and returns the unique id
// in it.
func (s *site) recovery(email string) string {
	s.tb.Helper()
	n := len(s.mails.Mails())
	s.sent(n)
	if a := s.post("recover", "", "email", email); a.Status != http.StatusOK {
		s.tb.Fatal(a)
	}
	m := s.sent(n + 1)[n]
	if m.RecoveryID() == "" {
		s.tb.Fatalf("the mail has no unique id: %s", m.Text)
	}
	return m.RecoveryID()
}

// login is a successful one, with good.
func (s *site) login(email string) answer {
	s.tb.Helper()
	a := s.post("login", "", "username", email, "password", good)
	if a.Status != http.StatusOK {
		s.tb.Fatalf("login: %v\n%s", a, s.log)
	}
	return a
}

// answer is what the site said.
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
	same(tb, "the problem's type", p.Type, "about:blank")
	same(tb, "the problem's title", p.Title, http.StatusText(status))
	same(tb, "the problem's status", p.Status, status)
	if p.Detail == "" {
		tb.Errorf("%v has no detail", a)
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

// oauthProblem is problem where the request had a grant_type: OAuth 2's members
// stand beside the others.
func (a answer) oauthProblem(tb testing.TB, status int, code string, fields ...string) {
	tb.Helper()
	var members map[string]any
	if err := json.Unmarshal(a.Body, &members); err != nil {
		tb.Errorf("%v: %v", a, err)
		return
	}
	same[any](tb, "the error of "+a.String(), members["error"], code)
	if text, _ := members["error_description"].(string); text == "" || strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r > '~' || r == '"' || r == '\\' }) {
		tb.Errorf("%v: no error_description as RFC 6749 has it", a)
	}
	delete(members, "error")
	delete(members, "error_description")
	a.Body, _ = json.Marshal(members)
	a.problem(tb, status, fields...)
}

// done holds an answer against the one that says only that.
func (a answer) done(tb testing.TB, what string) {
	tb.Helper()
	if a.Status != http.StatusOK || string(a.Body) != "{}\n" {
		tb.Fatalf("%s: %v", what, a)
	}
}

// same holds a value against the one it must be.
func same[T comparable](tb testing.TB, what string, got, want T) {
	tb.Helper()
	if got != want {
		tb.Errorf("%s is %#v, want %#v", what, got, want)
	}
}

// contains holds that a text has another in it.
func contains(tb testing.TB, what, text, part string) {
	tb.Helper()
	if !strings.Contains(text, part) {
		tb.Errorf("%s lacks %q: %s", what, part, text)
	}
}

// The two kinds of forms, by their content types.
const (
	urlencoded    = "application/x-www-form-urlencoded"
	multipartForm = "multipart/form-data; boundary=" + boundary
	boundary      = "kwai-test"
)

// encoders encode pairs of names and values, by content type.
var encoders = map[string]func(fields ...string) string{urlencoded: encodeURL, multipartForm: encodeMultipart}

func encodeURL(fields ...string) string {
	form := url.Values{}
	for i := 0; i < len(fields); i += 2 {
		form.Add(fields[i], fields[i+1])
	}
	return form.Encode()
}

func encodeMultipart(fields ...string) string {
	var body bytes.Buffer // which takes all that is written
	w := multipart.NewWriter(&body)
	_ = w.SetBoundary(boundary)
	for i := 0; i < len(fields); i += 2 {
		_ = w.WriteField(fields[i], fields[i+1])
	}
	_ = w.Close()
	return body.String()
}

// post sends a form to an endpoint of the API. Fields come in pairs.
func (s *site) post(endpoint, bearer string, fields ...string) answer {
	s.tb.Helper()
	return s.send("POST", "/api/v1/auth/"+endpoint, bearer, urlencoded, encodeURL(fields...))
}

// postMultipart is post with a multipart body.
func (s *site) postMultipart(endpoint, bearer string, fields ...string) answer {
	s.tb.Helper()
	return s.send("POST", "/api/v1/auth/"+endpoint, bearer, multipartForm, encodeMultipart(fields...))
}

// get asks for a path; bearer is an access token or "".
func (s *site) get(path, bearer string) answer {
	s.tb.Helper()
	return s.send("GET", path, bearer, "", "")
}

func (s *site) send(method, path, bearer, contentType, body string) answer {
	s.tb.Helper()
	r := s.request(method, path, strings.NewReader(body))
	if contentType != "" {
		r.Header.Set("Content-Type", contentType)
	}
	if bearer != "" {
		r.Header.Set("Authorization", "Bearer "+bearer)
	}
	return s.do(r)
}

// pageCookie is the cookie of a browser session.
func (s *site) pageCookie(email string) string {
	s.tb.Helper()
	c, err := s.rules.LoginBrowser(s.tb.Context(), auth.Client{}, email, good, true, "")
	s.ok(err)
	return c.Value
}

// loginFrom is a login as a proxy passes it on for a client with that address.
func (s *site) loginFrom(address, email string) answer {
	s.tb.Helper()
	r := s.request("POST", "/api/v1/auth/login", strings.NewReader(encodeURL("username", email, "password", good)))
	r.Header = http.Header{"Content-Type": {urlencoded}, "X-Forwarded-For": {address}, "User-Agent": {"kwai-test of " + address}}
	a := s.do(r)
	if a.Status != http.StatusOK {
		s.tb.Fatal(a)
	}
	return a
}

// from sends a request as a browser does for a page of that origin. Headers come
// in pairs.
func (s *site) from(origin, method, path, contentType, body string, headers ...string) answer {
	s.tb.Helper()
	r := s.request(method, path, strings.NewReader(body))
	if origin != "" {
		r.Header.Set("Origin", origin)
	}
	if contentType != "" {
		r.Header.Set("Content-Type", contentType)
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	return s.do(r)
}

func (s *site) request(method, path string, body io.Reader) *http.Request {
	s.tb.Helper()
	r, err := http.NewRequestWithContext(s.tb.Context(), method, s.URL+path, body)
	s.ok(err)
	return r
}

// do sends a request and holds the answer against openapi.yaml. It follows no
// redirect.
func (s *site) do(r *http.Request) answer {
	s.tb.Helper()
	res, err := s.via.RoundTrip(r)
	s.ok(err)
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	s.ok(err)
	a := answer{res.StatusCode, res.Header, body}
	if err := documented(r, a); err != nil {
		s.tb.Errorf("%s %s answered %v: not as openapi.yaml has it: %v", r.Method, r.URL.Path, a, err)
	}
	return a
}

// apiRouter finds what openapi.yaml says of a request.
var apiRouter = sync.OnceValues(func() (routers.Router, error) {
	for _, text := range []string{"text/html", "text/css", "text/javascript", "image/svg+xml"} {
		openapi3filter.RegisterBodyDecoder(text, openapi3filter.RegisteredBodyDecoder("text/plain"))
	}
	doc, err := openapi3.NewLoader().LoadFromFile("openapi.yaml")
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
		if strings.HasPrefix(r.URL.Path, "/dev/") || a.Status == http.StatusNotFound || a.Status == http.StatusMethodNotAllowed || r.Method == http.MethodOptions || r.Method == http.MethodHead {
			return nil // what isn't described isn't there, but for developers
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

// logBuffer keeps a site's log.
type logBuffer struct {
	mu    sync.Mutex
	text  bytes.Buffer
	grown chan struct{} // closed and made anew with each line
}

func newLogBuffer() *logBuffer { return &logBuffer{grown: make(chan struct{})} }

func (l *logBuffer) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	close(l.grown)
	l.grown = make(chan struct{})
	return l.text.Write(b)
}

// wait returns when the log has n lines with that text: a server logs a request
// a moment after its answer.
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

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}
