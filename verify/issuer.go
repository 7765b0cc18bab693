package verify

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-jose/go-jose/v4/json"
)

// Bounds of a request to the issuer. A key set of two keys takes half a KiB.
const (
	answerTime = 5 * time.Second
	answerSize = 64 << 10 // bytes, of the headers as well
)

// issuer asks the server that signs the tokens.
type issuer struct {
	name          string
	mistake       error // in the configuration: the server can't be asked
	keysURL, user string
	client        http.Client
	log           *slog.Logger
	clock         func() time.Time

	away  atomic.Bool            // the latest live check had no answer
	known atomic.Pointer[keySet] // as last fetched; nil at first
	mu    sync.Mutex
	last  *fetch // the one under way, or the latest; nil at first
}

func newIssuer(name, server string, plain bool, transport http.RoundTripper, log *slog.Logger, now func() time.Time) *issuer {
	s := &issuer{name: name, log: cmp.Or(log, slog.Default()), clock: now}
	field, base := "server", server
	if base == "" {
		field, base = "issuer", name
	}
	if s.clock == nil {
		s.clock = time.Now
	}
	s.client = http.Client{
		Transport: cmp.Or(transport, bounded()),
		// No redirects: a token, and the trust in keys, go to the configured server
		// and nowhere else.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	u, err := url.Parse(base)
	switch {
	case err != nil || u.Hostname() == "" || u.User != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || u.Scheme != "https" && u.Scheme != "http":
		s.mistake = fmt.Errorf("the verifier's %s is not a URL such as https://auth.example.org", field)
	case u.Scheme == "http" && !plain && !loopback(u.Hostname()):
		s.mistake = fmt.Errorf("the verifier's %s is plain http and not on loopback: use https, or set PlainHTTP on a network that is your own", field)
	default:
		s.keysURL = u.JoinPath("/.well-known/jwks.json").String()
		s.user = u.JoinPath("/api/v1/auth/user").String()
	}
	return s
}

// loopback says whether a host is this machine. It is not package loopback: verify
// imports nothing of kwai's.
func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// bounded is http.DefaultTransport with smaller headers (the default is 10 MiB) and more
// kept connections (the default is two): live checks make many at once.
var bounded = sync.OnceValue(func() http.RoundTripper {
	t, ok := http.DefaultTransport.(*http.Transport)
	if !ok {
		return http.DefaultTransport
	}
	t = t.Clone()
	t.MaxResponseHeaderBytes = answerSize
	t.MaxIdleConnsPerHost = 64
	return t
})

// now is the wall clock. Unlike the monotonic clock in time.Now, it goes on while the
// machine sleeps. If it jumps, keys are fetched again.
func (s *issuer) now() time.Time { return s.clock().Round(0) }

// answer is the issuer's answer.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// get asks the issuer.
func (s *issuer) get(ctx context.Context, url, token string) (*answer, error) {
	if s.mistake != nil {
		return nil, s.mistake
	}
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return nil, err
	}
	r.Header.Set("Accept", "application/json")
	r.Header.Set("Cache-Control", "no-cache") // a cache on the way may not know the newest keys
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	res, err := s.client.Do(r)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, answerSize+1))
	if err == nil && len(body) > answerSize {
		err = errors.New("it is too large")
	}
	if err != nil {
		return nil, fmt.Errorf("reading the answer of %s: %w", url, err)
	}
	return &answer{res.StatusCode, res.Header, body}, nil
}

// live asks the server whether a token with a good signature is still good.
func (s *issuer) live(ctx context.Context, token, subject string) error {
	err := s.ask(ctx, token, subject)
	switch away := errors.Is(err, ErrUnavailable); {
	case ctx.Err() != nil: // it says nothing about the server
	case away && s.away.CompareAndSwap(false, true):
		s.log.Warn("access tokens can't be shown to the server", "error", err)
	case !away && s.away.CompareAndSwap(true, false):
		s.log.Info("access tokens can be shown to the server again")
	}
	return err
}

func (s *issuer) ask(ctx context.Context, token, subject string) error {
	got, err := s.get(ctx, s.user, token)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	switch {
	case got.status == http.StatusOK:
		var user struct {
			ID string `json:"id"`
		}
		if json.Unmarshal(got.body, &user) != nil || user.ID != subject {
			return fmt.Errorf("%w: %s didn't answer with the token's user", ErrUnavailable, s.user)
		}
		return nil
	case got.status == http.StatusUnauthorized && challenges(got.header):
		return invalid("the server says that its session has ended")
	}
	return fmt.Errorf("%w: %s answered %d", ErrUnavailable, s.user, got.status)
}

// challenges reports whether a 401 is kwai's own. A proxy that asks for a password also
// sends one, which is not about the token.
func challenges(h http.Header) bool {
	scheme, _, _ := strings.Cut(h.Get("WWW-Authenticate"), " ")
	return strings.EqualFold(scheme, "Bearer")
}
