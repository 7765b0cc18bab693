package verify_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-jose/go-jose/v4"

	"kwai/verify"
)

// alive answers as kwai does for a session that lives.
func alive(w http.ResponseWriter, r *http.Request) {
	if !strings.HasPrefix(r.Header.Get("Authorization"), "Bearer ey") {
		loggedOut(w, r)
		return
	}
	_ = json.NewEncoder(w).Encode(map[string]any{"id": user, "email": "ann@example.org", "last_login": nil})
}

func loggedOut(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("WWW-Authenticate", "Bearer")
	w.WriteHeader(http.StatusUnauthorized)
}

// liveVerifier checks tokens of k with the server, and has its keys already.
func liveVerifier(s *server, k key) *verify.Verifier {
	v := s.verifier()
	v.Live, v.Keys = true, jose.JSONWebKeySet{Keys: []jose.JSONWebKey{k.public()}}
	return v
}

func TestLiveCheck(t *testing.T) {
	t.Parallel()
	k := newKey("a")
	for name, test := range map[string]struct {
		answer http.HandlerFunc
		want   string
	}{
		"alive":      {alive, "valid"},
		"logged out": {loggedOut, "invalid"},
		"a proxy wants a password": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("WWW-Authenticate", `Basic realm="staff"`)
			w.WriteHeader(http.StatusUnauthorized)
		}, "unavailable"},
		"401 from who knows where": {status(http.StatusUnauthorized), "unavailable"},
		"another user":             {text(`{"id": "another"}`), "unavailable"},
		"no user":                  {text(`{}`), "unavailable"},
		"two users":                {text(`{"id": "another", "id": "` + user + `"}`), "unavailable"},
		"HTML":                     {text("<!doctype html>"), "unavailable"},
		"nothing":                  {text(""), "unavailable"},
		"204":                      {status(http.StatusNoContent), "unavailable"},
		"redirect":                 {elsewhere(alive), "unavailable"},
		"403":                      {status(http.StatusForbidden), "unavailable"},
		"404":                      {status(http.StatusNotFound), "unavailable"},
		"429":                      {status(http.StatusTooManyRequests), "unavailable"},
		"500":                      {status(http.StatusInternalServerError), "unavailable"},
		"503":                      {status(http.StatusServiceUnavailable), "unavailable"},
		"slow":                     {hang, "unavailable"},
		"hung up":                  {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, "unavailable"},
		"huge": {func(w http.ResponseWriter, r *http.Request) {
			alive(w, r)
			_, _ = io.WriteString(w, strings.Repeat(" ", 64<<10))
		}, "unavailable"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newServer(t, test.answer)
				v, began := liveVerifier(s, k), time.Now()
				wantsLive(t, v, k.token(t), test.want)
				if took := time.Since(began); took > 5*time.Second {
					t.Errorf("it took %v", took)
				}
				if n := s.fetches.Load(); n != 1 {
					t.Errorf("the server was asked %d times, want 1", n)
				}
			})
		})
	}
}

func wantsLive(t *testing.T, v *verify.Verifier, token, want string) {
	t.Helper()
	_, err := v.Verify(token)
	got := outcome(err)
	if errors.Is(err, verify.ErrUnavailable) && !errors.Is(err, verify.ErrInvalid) {
		got = "unavailable"
	}
	if got != want {
		t.Errorf("got %s (%v), want %s", got, err, want)
	}
	if err != nil && strings.Contains(err.Error(), token[:40]) {
		t.Errorf("the error %q holds the token", err)
	}
}

// TestALogoutIsSeenAtOnce since nothing is remembered.
func TestALogoutIsSeenAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		k := newKey("a")
		s := newServer(t, alive)
		h, token := liveVerifier(s, k).Protect(whoami), "Bearer "+k.token(t)
		if w := through(t, h, token); w.Code != http.StatusOK {
			t.Errorf("before: got %d %s", w.Code, w.Body)
		}
		s.set(loggedOut)
		refused(t, through(t, h, token), http.StatusUnauthorized, map[string]string{"WWW-Authenticate": `Bearer error="invalid_token"`})
		s.set(status(http.StatusInternalServerError))
		refused(t, through(t, h, token), http.StatusServiceUnavailable, map[string]string{"Retry-After": "2"})
	})
}

// TestOnlyGoodTokensAreShown to the server: forged ones cost it nothing.
func TestOnlyGoodTokensAreShown(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		v := load(t)
		asked := 0
		s := newServer(t, func(w http.ResponseWriter, r *http.Request) {
			if asked++; r.Method != http.MethodGet || r.URL.Path != "/at/auth/api/v1/auth/user" || r.URL.RawQuery != "" {
				t.Errorf("asked %s %s", r.Method, r.URL)
			}
			alive(w, r)
		})
		live := v.verifier()
		live.Live, live.Transport = true, s.memory
		for _, test := range v.Tokens {
			if test.Want != "valid" {
				if _, err := live.Verify(test.Token); !errors.Is(err, verify.ErrInvalid) {
					t.Errorf("%s: got %v", test.Name, err)
				}
			}
		}
		k := newKey("a")
		live = liveVerifier(s, k)
		live.Issuer = "https://example.org/at/auth"
		wantsLive(t, live, k.tokenOf(t, live.Issuer), "valid")
		if asked != 1 {
			t.Errorf("the server was asked %d times, want 1", asked)
		}
	})
}

func TestALiveCheckEndsWithItsCaller(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		k := newKey("a")
		v := liveVerifier(newServer(t, hang), k)
		var log bytes.Buffer
		v.Log = slog.New(slog.NewTextHandler(&log, nil))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		if _, err := v.VerifyContext(ctx, k.token(t)); !errors.Is(err, verify.ErrUnavailable) || time.Since(began) != time.Second {
			t.Errorf("got %v after %v", err, time.Since(began))
		}
		if log.Len() > 0 {
			t.Errorf("a caller that left is logged: %s", &log)
		}
	})
}

// TestATokenIsNotShownOverPlainHTTP, nor where the keys are given.
func TestATokenIsNotShownOverPlainHTTP(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		k := newKey("a")
		s := newServer(t, alive)
		v := liveVerifier(s, k)
		v.Issuer = "http://auth.example.org"
		wantsLive(t, v, k.tokenOf(t, v.Issuer), "unavailable")
		if err := v.Ready(t.Context()); err == nil || s.fetches.Load() != 0 {
			t.Errorf("Ready says %v; the server was asked %d times", err, s.fetches.Load())
		}
	})
}

func TestOutagesOfLiveChecksAreLoggedOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		k := newKey("a")
		s := newServer(t, alive)
		v, token := liveVerifier(s, k), k.token(t)
		var log bytes.Buffer
		v.Log = slog.New(slog.NewTextHandler(&log, nil))
		for _, answer := range []http.HandlerFunc{alive, status(http.StatusBadGateway), loggedOut, alive} {
			s.set(answer)
			for range 10 {
				_, _ = v.Verify(token)
			}
		}
		if got := fmt.Sprint(strings.Count(log.String(), "WARN"), strings.Count(log.String(), "INFO"), strings.Count(log.String(), "\n")); got != "1 1 2" {
			t.Errorf("the log is %q, want one line for the outage and one for its end", log.String())
		}
	})
}
