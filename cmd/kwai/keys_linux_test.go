package main

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"kwai/internal/store/storetest"
	"kwai/verify"
)

// rotating are the settings of a fleet whose keys change every five seconds or so:
// the least that there is.
var rotating = []string{
	"--key-rotation=5s", "--jwks-max-age=1s", "--access-life=10s", "--refresh-idle=30s",
	"--public-url=" + publicURL, "--limits=off", "--log-level=info",
}

// Keys change every five seconds on three replicas, for 20 seconds
// (KWAI_TEST_ROTATE=1m: for a minute). Clients of kwai, and programs that check
// tokens by themselves with package verify, see no token refused. Then one of each kind of keys is revoked, while a replica
// stands still: when the command has ended no replica accepts a token of it, also
// not that one's first answer, and programs neither once their public keys are old;
// and all goes on.
func TestKeysRotateUnderLoad(t *testing.T) {
	t.Parallel()
	f := newRotation(t)
	f.run(rotateFor(t), nil)
	if made := f.kids(); made < 3 {
		t.Errorf("only %d keys signed", made)
	}
	for _, purpose := range []string{"sign", "mac"} {
		f.revoke(purpose)
		f.run(3*time.Second, nil) // longer than a program keeps public keys
		for _, token := range f.stolen {
			for _, p := range f.programs {
				if _, err := p.v.Verify(token); !errors.Is(err, verify.ErrUnknownKey) {
					t.Errorf("a program that checks a revoked key's token says %v", err)
				}
			}
		}
	}
	t.Logf("%d renewals, %d checks by kwai, %d by programs, %d logins; %d keys signed",
		f.renewals.Load(), f.checks.Load(), f.verified.Load(), f.logins.Load(), f.kids())
}

func rotateFor(t *testing.T) time.Duration {
	if text := os.Getenv("KWAI_TEST_ROTATE"); text != "" {
		d, err := time.ParseDuration(text)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	return 20 * time.Second
}

// rotation is a fleet and its clients.
type rotation struct {
	t        *testing.T
	database string
	key      string // the master key file
	servers  []*process
	up       atomic.Pointer[[]*process] // those that clients come to
	clients  []*holder
	programs []*checker

	renewals, checks, verified, logins atomic.Int64

	stolen  []string // access tokens of a key that was revoked
	mu      sync.Mutex
	signers map[string]bool // kids of access tokens
}

// holder is a client of kwai with the tokens that it still may use.
type holder struct {
	email   string
	every   time.Duration // between renewals
	refresh string
	renewed time.Time
	held    []heldToken
}

type heldToken struct {
	access  string
	expires time.Time
}

func newRotation(t *testing.T) *rotation {
	t.Helper()
	f := &rotation{t: t, database: storetest.Postgres(t), signers: map[string]bool{}}
	f.key = masterKeyOf(t, f.database)
	flags := append([]string{"--database=" + f.database, "--master-key-file=" + f.key}, rotating...)
	for range 3 {
		f.servers = append(f.servers, launch(t, nil, append([]string{"--data=" + t.TempDir()}, flags...)...))
	}
	f.up.Store(&f.servers)
	for i := range 6 {
		k := &holder{email: fmt.Sprintf("ann%d@example.org", i), every: 50 * time.Millisecond}
		if i == 0 {
			k.every = 12 * time.Second // when its access token has long expired
		}
		f.command(good, "user", "create", k.email, "--password-stdin")
		f.clients = append(f.clients, k)
		f.login(k)
	}
	for range 3 {
		f.programs = append(f.programs, &checker{f: f, v: verify.Verifier{Issuer: publicURL, Audience: "kwai", Transport: f}})
	}
	return f
}

// command runs a command of kwai beside the fleet.
func (f *rotation) command(stdin string, args ...string) string {
	f.t.Helper()
	s := &site{tb: f.t, flags: append([]string{"--data=" + f.t.TempDir(), "--database=" + f.database, "--master-key-file=" + f.key, "--jwks-max-age=1s", "--log-level=error"}, quick...)}
	return s.mustCommand(stdin, args...)
}

// any is the URL of one of the replicas.
func (f *rotation) any() string {
	up := *f.up.Load()
	return up[rand.IntN(len(up))].URL
}

// ask sends a request; an empty form makes it a GET.
func ask(url, path, bearer string, form url.Values) (answer, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	method, body := http.MethodGet, ""
	if form != nil {
		method, body = http.MethodPost, form.Encode()
	}
	r, err := http.NewRequestWithContext(ctx, method, url+path, strings.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	r.Header.Set("Content-Type", urlencoded)
	if bearer != "" {
		r.Header.Set("Authorization", "Bearer "+bearer)
	}
	res, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		return answer{}, err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	return answer{res.StatusCode, res.Header, text}, err
}

func (f *rotation) login(k *holder) {
	a, err := ask(f.any(), "/api/v1/auth/login", "", url.Values{"username": {k.email}, "password": {good}})
	if err != nil || a.Status != http.StatusOK {
		f.t.Errorf("a login: %v %v", a, err)
		return
	}
	f.logins.Add(1)
	k.held = nil
	f.take(k, a)
}

// take notes the tokens of an answer.
func (f *rotation) take(k *holder, a answer) {
	seconds, err := strconv.Atoi(a.field("expires_in"))
	if err != nil {
		f.t.Errorf("%v: %v", a, err)
	}
	k.refresh, k.renewed = a.field("refresh_token"), time.Now()
	access := a.field("access_token")
	// Whole seconds: up to one less than it says.
	k.held = append(k.held, heldToken{access, time.Now().Add(time.Duration(seconds)*time.Second - 2*time.Second)})
	f.mu.Lock()
	defer f.mu.Unlock()
	f.signers[kidOf(access)] = true
}

func (f *rotation) kids() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.signers)
}

// kidOf is the key that signed an access token, macOf that of a refresh token.
func kidOf(access string) string {
	raw, _ := base64.RawURLEncoding.DecodeString(strings.Split(access, ".")[0])
	var header struct{ Kid string }
	_ = json.Unmarshal(raw, &header)
	return header.Kid
}

func macOf(refresh string) string {
	raw, _ := base64.RawURLEncoding.DecodeString(refresh)
	if len(raw) < 5 {
		return ""
	}
	return hex.EncodeToString(raw[1:5])
}

// run has all clients do everything for a while. Those whose key the test revokes
// meanwhile may be refused: forgiven says so of a token.
func (f *rotation) run(d time.Duration, forgiven func(token string) bool) {
	ctx, stop := context.WithTimeout(f.t.Context(), d)
	defer stop()
	f.start(ctx, forgiven).Wait()
}

func (f *rotation) start(ctx context.Context, forgiven func(token string) bool) *sync.WaitGroup {
	all := new(sync.WaitGroup)
	for _, k := range f.clients {
		all.Go(func() {
			for ctx.Err() == nil && !f.t.Failed() {
				f.step(k, forgiven)
				pass(ctx, 10*time.Millisecond)
			}
		})
	}
	for _, p := range f.programs {
		all.Go(func() {
			for ctx.Err() == nil && !f.t.Failed() {
				p.step(forgiven)
				pass(ctx, 10*time.Millisecond)
			}
		})
	}
	return all
}

func (f *rotation) step(k *holder, forgiven func(string) bool) {
	if time.Since(k.renewed) >= k.every {
		refresh := k.refresh
		a, err := ask(f.any(), "/api/v1/auth/access_token", "", url.Values{"refresh_token": {refresh}})
		switch {
		case err == nil && a.Status == http.StatusOK:
			f.renewals.Add(1)
			f.take(k, a)
		case err == nil && a.Status == http.StatusUnauthorized && forgiven != nil && forgiven(refresh):
			f.login(k)
		default:
			f.t.Errorf("a renewal: %v %v", a, err)
			return
		}
	}
	for len(k.held) > 0 && time.Now().After(k.held[0].expires) {
		k.held = k.held[1:]
	}
	if len(k.held) == 0 {
		return
	}
	at := rand.IntN(len(k.held))
	if rand.IntN(2) == 0 {
		at = 0 // the oldest
	}
	held := k.held[at]
	a, err := ask(f.any(), userPath, held.access, nil)
	switch {
	case err == nil && a.Status == http.StatusOK:
		f.checks.Add(1)
	case err == nil && forgiven != nil && forgiven(held.access):
		k.held = append(k.held[:at:at], k.held[at+1:]...)
		return
	case time.Now().After(held.expires):
		return
	default:
		f.t.Errorf("a check: %v %v", a, err)
	}
	for _, p := range f.programs {
		p.hand(held)
	}
}

// checker is a program that checks tokens by itself, by package verify.
type checker struct {
	f *rotation
	v verify.Verifier

	mu   sync.Mutex
	next *heldToken
}

// RoundTrip brings what a program asks the issuer to one of the replicas.
func (f *rotation) RoundTrip(r *http.Request) (*http.Response, error) {
	to, err := url.Parse(f.any())
	if err != nil {
		return nil, err
	}
	r = r.Clone(r.Context())
	r.URL.Scheme, r.URL.Host = to.Scheme, to.Host
	return http.DefaultTransport.RoundTrip(r)
}

// hand gives it a token to check, if it has none.
func (p *checker) hand(h heldToken) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.next = &h
}

func (p *checker) step(forgiven func(string) bool) {
	p.mu.Lock()
	next := p.next
	p.next = nil
	p.mu.Unlock()
	if next == nil {
		return
	}
	_, err := p.v.Verify(next.access)
	switch {
	case err == nil:
		p.f.verified.Add(1)
	case time.Now().After(next.expires), forgiven != nil && forgiven(next.access):
	default:
		p.f.t.Errorf("a program refuses a token of %s: %v", kidOf(next.access), err)
	}
}

// revoke revokes the active key of a purpose while clients go on and a replica
// stands still.
func (f *rotation) revoke(purpose string) {
	f.t.Helper()
	var keys []serverKeyView
	if err := json.Unmarshal([]byte(f.command("", "key", "list", "--json")), &keys); err != nil {
		f.t.Fatal(err)
	}
	id := ""
	for _, k := range keys {
		if k.Purpose == purpose && k.State == "active" {
			id = k.ID
		}
	}
	of := func(token string) bool {
		return purpose == "sign" && kidOf(token) == id || purpose == "mac" && macOf(token) == id
	}

	// Tokens of that key for all replicas, and no more clients for one that will
	// stand still.
	var stolen []string
	for _, k := range f.clients {
		f.login(k)
		if token := map[string]string{"sign": k.held[0].access, "mac": k.refresh}[purpose]; of(token) {
			stolen = append(stolen, token)
		}
	}
	if len(stolen) == 0 {
		f.revoke(purpose) // the next one has just become active
		return
	}
	still := f.servers[0]
	for _, token := range stolen {
		if purpose != "sign" {
			continue
		}
		if a := f.use(still, purpose, token); a.Status != http.StatusOK { // it is remembered there
			f.t.Errorf("before the revocation: %v", a)
		}
	}
	others := f.servers[1:]
	f.up.Store(&others)
	if err := still.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		f.t.Fatal(err)
	}
	ctx, stop := context.WithCancel(f.t.Context())
	running := f.start(ctx, of)
	f.command("", "key", "revoke", id)
	if err := still.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		f.t.Fatal(err)
	}
	for _, token := range stolen {
		for _, s := range f.servers { // first the one that stood still
			if a := f.use(s, purpose, token); a.Status != http.StatusUnauthorized {
				f.t.Errorf("after the revocation of its %s key a token gets %v", purpose, a)
			}
		}
	}
	stop()
	running.Wait()
	f.up.Store(&f.servers)
	f.stolen = nil
	if purpose == "sign" {
		f.stolen = stolen
	}
	for _, k := range f.clients {
		if of(k.refresh) {
			f.login(k)
		}
		k.held = nil
	}
	for _, p := range f.programs {
		p.mu.Lock()
		p.next = nil
		p.mu.Unlock()
	}
}

// use sends a stolen token to a replica.
func (f *rotation) use(s *process, purpose, token string) (a answer) {
	var err error
	if purpose == "sign" {
		a, err = ask(s.URL, userPath, token, nil)
	} else {
		a, err = ask(s.URL, "/api/v1/auth/access_token", "", url.Values{"refresh_token": {token}})
	}
	if err != nil {
		f.t.Error(err)
	}
	return a
}
