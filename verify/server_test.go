package verify_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"kwai/verify"
)

const (
	issuer = "https://auth.example.org"
	user   = "0b9f3d3c-6a44-4b0e-9d2a-6f1f4c1d8e21"
)

// server is the issuer of tests, as far as a Verifier sees it. It listens in
// memory, so that time can be a bubble's.
type server struct {
	answer  atomic.Pointer[http.HandlerFunc] // what it does
	fetches atomic.Int64                     // requests, whatever became of them
	memory  *http.Transport                  // to it, from whatever address
}

func newServer(t testing.TB, answer http.HandlerFunc) *server {
	s := &server{}
	s.set(answer)
	l := &listener{conns: make(chan net.Conn), closed: make(chan struct{})}
	h := &http.Server{Handler: s, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)}
	go func() { _ = h.Serve(l) }()
	s.memory = &http.Transport{DialContext: l.dial, DialTLSContext: l.dial}
	t.Cleanup(func() {
		s.memory.CloseIdleConnections()
		h.Close()
	})
	return s
}

func (s *server) set(answer http.HandlerFunc) { s.answer.Store(&answer) }

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.fetches.Add(1)
	(*s.answer.Load())(w, r)
}

func (s *server) verifier() *verify.Verifier {
	return &verify.Verifier{Issuer: issuer, Audience: "kwai", Transport: s.memory, Log: slog.New(slog.DiscardHandler)}
}

// listener hands out connections in memory.
type listener struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (l *listener) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	near, far := net.Pipe()
	select {
	case l.conns <- far:
		return near, nil
	case <-l.closed:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *listener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *listener) Addr() net.Addr { return &net.IPAddr{} }

// key is one of the issuer's.
type key struct {
	*ecdsa.PrivateKey
	id string
}

func newKey(id string) key {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	return key{private, id}
}

func (k key) public() jose.JSONWebKey {
	return jose.JSONWebKey{Key: &k.PublicKey, KeyID: k.id, Use: "sig", Algorithm: "ES256"}
}

// token is good for ten years from now.
func (k key) token(t testing.TB) string { return k.tokenOf(t, issuer) }

func (k key) tokenOf(t testing.TB, issuer string) string {
	t.Helper()
	payload, err := json.Marshal(verify.Claims{
		Issuer: issuer, Audience: "kwai", Subject: user, ClientID: "kwai", SessionID: "s", ID: "j",
		IssuedAt: time.Now(), ExpiresAt: time.Now().AddDate(10, 0, 0),
	})
	if err != nil {
		t.Fatal(err)
	}
	signing := jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: k.PrivateKey, KeyID: k.id}}
	signer, err := jose.NewSigner(signing, (&jose.SignerOptions{}).WithType("at+jwt"))
	if err != nil {
		t.Fatal(err)
	}
	jws, err := signer.Sign(payload)
	if err != nil {
		t.Fatal(err)
	}
	token, err := jws.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// publish answers as kwai does.
func publish(keys ...key) http.HandlerFunc { return publishAs("", keys...) }

// publishAs says as well for which issuer they sign.
func publishAs(issuer string, keys ...key) http.HandlerFunc {
	var set struct {
		Keys   []jose.JSONWebKey `json:"keys"`
		Issuer string            `json:"issuer,omitempty"`
	}
	set.Issuer = issuer
	for _, k := range keys {
		set.Keys = append(set.Keys, k.public())
	}
	document, err := json.Marshal(set)
	if err != nil {
		panic(err)
	}
	return func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/.well-known/jwks.json" {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		if w.Header().Get("Cache-Control") == "" {
			w.Header().Set("Cache-Control", "public, max-age=300")
		}
		_, _ = w.Write(document)
	}
}

// slowly is so slow that a caller with a time-out goes on without it.
func slowly(answer http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(time.Millisecond)
		answer(w, r)
	}
}

// status answers with nothing but a status.
func status(code int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
}

// text answers 200.
func text(body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, body) }
}

// hang never answers.
func hang(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }

// elsewhere redirects, within the site, to what would be good.
func elsewhere(then http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Has("again") {
			then(w, r)
			return
		}
		http.Redirect(w, r, r.URL.Path+"?again", http.StatusTemporaryRedirect)
	}
}
