package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/gorillamux"
	"github.com/rogpeppe/go-internal/testscript"

	"kwai/internal/store/storetest"
)

type mainRun func() int

func (run mainRun) Run() int { return run() }

func TestMain(m *testing.M) {
	// Scripts run this test binary as the command kwai.
	testscript.Main(mainRun(func() int { return storetest.Main(m) }), map[string]func(){"kwai": main})
}

// quick are settings for tests: hashes that cost next to nothing.
var quick = []string{"--hash-memory=64", "--hash-time=1"}

// site is a running `kwai serve`, in this process.
type site struct {
	tb       testing.TB
	URL      string // of the server, without a path
	Database string
	flags    []string // of every command
	log      *logBuffer
	stop     context.CancelFunc
	exit     chan int
}

// each runs f against a site on each kind of database.
func each(t *testing.T, f func(t *testing.T, s *site)) {
	storetest.Each(t, func(t *testing.T, url string) { f(t, start(t, url)) })
}

// start runs `kwai serve` on a database until the end of the test.
func start(tb testing.TB, database string, flags ...string) *site {
	tb.Helper()
	data := tb.TempDir()
	s := &site{tb: tb, Database: database, log: newLogBuffer(tb), exit: make(chan int, 1)}
	s.flags = append(s.flags, "--data="+data, "--database="+database)
	s.flags = append(s.flags, quick...)
	serve := append([]string{"serve", "--listen=127.0.0.1:0", "--log-format=json"}, s.flags...)
	if strings.HasPrefix(database, "postgres") {
		serve = append(serve, "--public-url=http://127.0.0.1:8080")
	}
	serve = append(serve, "--master-key-file="+masterKeyOf(tb, database))
	serve = append(serve, flags...)
	s.run(serve)
	return s
}

// masterKeys has a master key file for each database, so that a site can be
// started again on it.
var masterKeys sync.Map

func masterKeyOf(tb testing.TB, database string) string {
	if path, ok := masterKeys.Load(database); ok {
		return path.(string)
	}
	path := tb.TempDir() + "/master.key"
	var key bytes.Buffer
	run(tb.Context(), []string{"key", "new"}, console{nil, &key, os.Stderr})
	if err := os.WriteFile(path, key.Bytes(), 0o600); err != nil {
		tb.Fatal(err)
	}
	masterKeys.Store(database, path)
	return path
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

// answer is what the server said.
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

// post sends a form to an endpoint of the API. Fields come in pairs.
func (s *site) post(endpoint, bearer string, fields ...string) answer {
	s.tb.Helper()
	form := url.Values{}
	for i := 0; i < len(fields); i += 2 {
		form.Add(fields[i], fields[i+1])
	}
	return s.send("POST", "/api/v1/auth/"+endpoint, bearer, "application/x-www-form-urlencoded", form.Encode())
}

// postMultipart is post with a multipart body.
func (s *site) postMultipart(endpoint, bearer string, fields ...string) answer {
	s.tb.Helper()
	var body bytes.Buffer
	w := multipart.NewWriter(&body)
	for i := 0; i < len(fields); i += 2 {
		if err := w.WriteField(fields[i], fields[i+1]); err != nil {
			s.tb.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		s.tb.Fatal(err)
	}
	return s.send("POST", "/api/v1/auth/"+endpoint, bearer, w.FormDataContentType(), body.String())
}

// get asks for a path; bearer is an access token or "".
func (s *site) get(path, bearer string) answer {
	s.tb.Helper()
	return s.send("GET", path, bearer, "", "")
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
	res, err := http.DefaultTransport.RoundTrip(r)
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
	doc, err := openapi3.NewLoader().LoadFromFile("../../internal/web/openapi.yaml")
	if err != nil {
		return nil, err
	}
	doc.Servers = nil // any host
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
	mu      sync.Mutex
	text    bytes.Buffer
	serving chan string // its address, once
}

func newLogBuffer(testing.TB) *logBuffer { return &logBuffer{serving: make(chan string, 1)} }

func (l *logBuffer) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var line struct{ Msg, Address string }
	if json.Unmarshal(b, &line) == nil && line.Msg == "serving" {
		l.serving <- line.Address
	}
	return l.text.Write(b)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}
