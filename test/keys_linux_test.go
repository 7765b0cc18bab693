package test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"kwai/internal/testing/need"
	"kwai/internal/testing/storetest"
	"kwai/verify"
)

// rotating are the settings of a fleet whose keys change every five seconds or so:
// the least that there is.
var rotating = []string{
	"--key-rotation=5s", "--jwks-max-age=1s", "--access-life=10s", "--refresh-idle=30s",
	"--public-url=" + publicURL,
}

// Keys change every five seconds on three replicas, for 15 seconds. Clients of
// kwai, and programs that check tokens by themselves with package verify, see no
// token refused. Then one of each kind of keys is revoked, while a replica stands
// still: when the command has ended no replica accepts a token of it, also not that
// one's first answer, and programs neither once they have fetched the public keys
// anew; and all goes on.
func TestKeysRotateUnderLoad(t *testing.T) {
	t.Parallel()
	need.Time(t)
	f := newRotation(t)
	f.run(func() bool { return f.kids() >= 3 && time.Since(f.begun) > 15*time.Second })
	for _, purpose := range []string{"sign", "mac"} {
		f.revoke(purpose)
		begun := time.Now()
		f.run(func() bool { return f.refused() && time.Since(begun) > 3*time.Second })
		if !f.refused() {
			t.Error("programs take a revoked key's tokens again")
		}
	}
	t.Logf("%d renewals, %d checks by kwai, %d by programs, %d logins; %d keys signed",
		f.renewals.Load(), f.checks.Load(), f.verified.Load(), f.logins.Load(), f.kids())
}

// rotation is a fleet and its clients.
type rotation struct {
	t        *testing.T
	begun    time.Time
	servers  []*site
	up       atomic.Pointer[[]*site] // those that clients come to
	clients  []*holder
	programs []*checker

	renewals, checks, verified, logins atomic.Int64

	stolen  []string // access tokens of a key that was revoked
	mu      sync.Mutex
	signers map[string]bool // kids of access tokens
}

// holder is a client of kwai with the tokens that it still may use.
type holder struct {
	via     *http.Transport
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
	f := &rotation{t: t, signers: map[string]bool{}}
	k := install(t, patient(storetest.Postgres(t)))
	for range 3 {
		f.servers = append(f.servers, start(t, k, rotating...))
	}
	f.up.Store(&f.servers)
	key, err := k.MasterKey(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	f.servers[1].flags = []string{"--master-key-file=" + key, "--jwks-max-age=1s", "--log-level=error"}
	for i := range 6 {
		k := &holder{via: newTransport(t), email: fmt.Sprintf("ann%d@example.org", i), every: 50 * time.Millisecond}
		if i == 0 {
			k.every = 12 * time.Second // when its access token has long expired
		}
		f.command(good, "user", "create", k.email, "--password-stdin")
		f.clients = append(f.clients, k)
		f.login(k)
	}
	for range 3 {
		p := &checker{f: f, via: newTransport(t)}
		p.v = verify.Verifier{Issuer: publicURL, Audience: "kwai", Transport: p}
		f.programs = append(f.programs, p)
	}
	f.begun = time.Now()
	return f
}

// command runs a command of kwai beside the fleet.
func (f *rotation) command(stdin string, args ...string) string {
	f.t.Helper()
	return f.servers[1].mustCommand(stdin, args...)
}

// any is the URL of one of the replicas.
func (f *rotation) any() string {
	up := *f.up.Load()
	return up[rand.IntN(len(up))].URL
}

// ask sends a request to one of the replicas.
func (f *rotation) ask(k *holder, path, bearer string, fields ...string) (answer, error) {
	return request(f.t.Context(), k.via, f.any()+path, bearer, form(fields...))
}

func (f *rotation) login(k *holder) {
	begun := time.Now()
	a, err := f.ask(k, api+"login", "", "username", k.email, "password", good)
	if err != nil || a.Status != http.StatusOK {
		f.t.Errorf("a login: %v %v", a, err)
		return
	}
	f.logins.Add(1)
	k.held = nil
	f.take(k, a, begun)
}

// take notes the tokens of an answer to a request that began then.
func (f *rotation) take(k *holder, a answer, begun time.Time) {
	seconds, err := strconv.Atoi(a.field("expires_in"))
	if err != nil {
		f.t.Errorf("%v: %v", a, err)
	}
	k.refresh, k.renewed = a.field("refresh_token"), time.Now()
	access := a.field("access_token")
	// Whole seconds: up to one less than it says.
	k.held = append(k.held, heldToken{access, begun.Add(time.Duration(seconds-1) * time.Second)})
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

// run has all clients do everything until it is enough.
func (f *rotation) run(enough func() bool) {
	ctx, stop := context.WithCancel(f.t.Context())
	running := f.start(ctx, nil)
	for !enough() && !f.t.Failed() {
		pass(ctx, 10*time.Millisecond)
	}
	stop()
	running.Wait()
	if f.t.Failed() {
		f.t.FailNow()
	}
}

// start has all clients do everything until ctx ends. Those whose key the test
// revokes meanwhile may be refused: forgiven says so of a token.
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
		refresh, begun := k.refresh, time.Now()
		a, err := f.ask(k, api+"access_token", "", "refresh_token", refresh)
		switch {
		case err == nil && a.Status == http.StatusOK:
			f.renewals.Add(1)
			f.take(k, a, begun)
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
	a, err := f.ask(k, userPath, held.access)
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
	f   *rotation
	via *http.Transport
	v   verify.Verifier

	mu    sync.Mutex
	next  *heldToken
	known []string // ids of the keys that it fetched last
}

// RoundTrip passes a program's request to one of the replicas, and records which keys
// the answer has.
func (p *checker) RoundTrip(r *http.Request) (*http.Response, error) {
	a, err := request(r.Context(), p.via, p.f.any()+r.URL.Path, "", "")
	if err != nil {
		return nil, err
	}
	var set struct{ Keys []struct{ Kid string } }
	if json.Unmarshal(a.Body, &set) == nil {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.known = nil
		for _, key := range set.Keys {
			p.known = append(p.known, key.Kid)
		}
	}
	return &http.Response{StatusCode: a.Status, Header: a.Header, Body: io.NopCloser(bytes.NewReader(a.Body)), Request: r}, nil
}

// known reports whether all programs have got a key.
func (f *rotation) known(kid string) bool {
	return !slices.ContainsFunc(f.programs, func(p *checker) bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return !slices.Contains(p.known, kid)
	})
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

// refused says whether all programs refuse all stolen tokens, as those of a key
// that they don't know.
func (f *rotation) refused() bool {
	for _, token := range f.stolen {
		for _, p := range f.programs {
			if _, err := p.v.Verify(token); !errors.Is(err, verify.ErrUnknownKey) {
				return false
			}
		}
	}
	return true
}

// key is the id of a purpose's key in that state, "" for none.
func (f *rotation) key(purpose, state string) string {
	f.t.Helper()
	var keys []struct{ ID, Purpose, State string }
	if err := json.Unmarshal([]byte(f.command("", "key", "list", "--json")), &keys); err != nil {
		f.t.Fatal(err)
	}
	for _, k := range keys {
		if k.Purpose == purpose && k.State == state {
			return k.ID
		}
	}
	return ""
}

// revoke revokes the active key of a purpose while clients go on and a replica
// stands still.
func (f *rotation) revoke(purpose string) {
	f.t.Helper()
	// The next key takes its place at once. A program knows that one if it was
	// published for as long as the schedule has it.
	next := ""
	for next == "" {
		next = f.key(purpose, "next")
	}
	if purpose == "sign" {
		f.run(func() bool { return f.known(next) })
	}
	id := f.key(purpose, "active")
	of := func(token string) bool {
		return purpose == "sign" && kidOf(token) == id || purpose == "mac" && macOf(token) == id
	}

	// Tokens of that key for all replicas, and no more clients for one that will
	// stand still.
	var stolen []string
	for _, k := range f.clients {
		f.login(k)
		if f.t.Failed() {
			f.t.FailNow()
		}
		if token := map[string]string{"sign": k.held[0].access, "mac": k.refresh}[purpose]; of(token) {
			stolen = append(stolen, token)
		}
	}
	if id == next || len(stolen) == 0 {
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
	if err := still.server.Pause(); err != nil {
		f.t.Fatal(err)
	}
	ctx, stop := context.WithCancel(f.t.Context())
	running := f.start(ctx, of)
	f.command("", "key", "revoke", id)
	if err := still.server.Continue(); err != nil {
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
func (f *rotation) use(s *site, purpose, token string) answer {
	f.t.Helper()
	if purpose == "sign" {
		return s.get(userPath, token)
	}
	return s.post("access_token", "", "refresh_token", token)
}
