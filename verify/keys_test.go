package verify_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-jose/go-jose/v4"

	"kwai/verify"
)

// Each test of time runs in a bubble, where a request to the server takes none.
const maxAge = 5 * time.Minute // as publish says

// wants holds the outcome of a check, and the time that it takes, against what
// is wanted.
func wants(t *testing.T, v *verify.Verifier, token, want string, took time.Duration) {
	t.Helper()
	began := time.Now()
	_, err := v.Verify(token)
	got := outcome(err)
	if errors.Is(err, verify.ErrUnavailable) && !errors.Is(err, verify.ErrInvalid) {
		got = "unavailable"
	}
	if got != want || time.Since(began) != took {
		t.Fatalf("got %s (%v) after %v, want %s after %v", got, err, time.Since(began), want, took)
	}
	synctest.Wait() // for what goes on in the background
}

func TestKeysAreKeptWhileFresh(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		k := newKey("a")
		s := newServer(t, publish(k))
		v, token := s.verifier(), k.token(t)
		for range 223 { // just less than three quarters of 300
			wants(t, v, token, "valid", 0)
			time.Sleep(time.Second)
		}
		if n := s.fetches.Load(); n != 1 {
			t.Errorf("%d fetches, want 1", n)
		}
		time.Sleep(2 * time.Second)
		wants(t, v, token, "valid", 0)
		if n := s.fetches.Load(); n != 2 {
			t.Errorf("%d fetches before the set is stale, want another one", n)
		}
	})
}

// TestRevokedKeysAreRefusedOnceTheSetIsStale tells the bounds of a set's life.
func TestRevokedKeysAreRefusedOnceTheSetIsStale(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		control, age string
		life         time.Duration
	}{
		{"public, max-age=300", "", 5 * time.Minute},
		{`MAX-AGE="100"`, "", 100 * time.Second},
		{"max-age=300", "100", 200 * time.Second},
		{"max-age=300", "400", 3 * time.Second},
		{"max-age=300", "-1", 5 * time.Minute},
		{"max-age=0", "", 3 * time.Second},
		{"max-age=-5", "", 3 * time.Second},
		{"max-age=x", "", 3 * time.Second},
		{"max-age=300, no-cache", "", 3 * time.Second},
		{"no-store", "", 3 * time.Second},
		{"public", "", time.Minute},
		{"max-age=31536000", "", 10 * time.Minute},
		{"max-age=99999999999999999999", "", 10 * time.Minute},
	} {
		synctest.Test(t, func(t *testing.T) {
			old, next := newKey("old"), newKey("next")
			before := publish(old)
			s := newServer(t, nil)
			for elapsed, want := range map[time.Duration]string{test.life - time.Millisecond: "valid", test.life: "unknown key"} {
				s.set(func(w http.ResponseWriter, r *http.Request) {
					w.Header().Set("Cache-Control", test.control)
					w.Header().Set("Age", test.age)
					before(w, r)
				})
				v, token := s.verifier(), old.token(t)
				wants(t, v, token, "valid", 0)
				s.set(publish(next))
				time.Sleep(elapsed)
				if _, err := v.Verify(token); outcome(err) != want {
					t.Errorf("%q, Age %q: after %v the key is %s (%v), want %s", test.control, test.age, elapsed, outcome(err), err, want)
				}
				synctest.Wait()
			}
		})
	}
}

func TestKeysRotate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a, b := newKey("a"), newKey("b")
		s := newServer(t, publish(a))
		v, old, fresh := s.verifier(), a.token(t), b.token(t)
		wants(t, v, old, "valid", 0)
		time.Sleep(10 * time.Second)

		s.set(publish(b, a))
		wants(t, v, fresh, "valid", 0) // at once, by one fetch
		wants(t, v, old, "valid", 0)
		if n := s.fetches.Load(); n != 2 {
			t.Errorf("%d fetches, want 2", n)
		}

		s.set(publish(b))
		for range maxAge / time.Second { // in use all the time
			wants(t, v, fresh, "valid", 0)
			time.Sleep(time.Second)
		}
		wants(t, v, old, "unknown key", 0)
	})
}

func TestForgedKeyIDsCostOneFetchInTwoSeconds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		k := newKey("a")
		s := newServer(t, publish(k))
		v, token := s.verifier(), k.token(t)
		forged := make([]string, 100)
		for i := range forged {
			forged[i] = key{k.PrivateKey, fmt.Sprint("forged ", i)}.token(t)
		}
		for range 20 { // seconds
			for i, f := range forged {
				wants(t, v, f, "unknown key", 0)
				if i%10 == 0 {
					wants(t, v, token, "valid", 0)
				}
				time.Sleep(time.Second / time.Duration(len(forged)))
			}
		}
		if n := s.fetches.Load(); n != 10 {
			t.Errorf("%d fetches in 20 seconds, want 10", n)
		}
	})
}

func TestOneFetchServesAllWhoWait(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		k := newKey("a")
		answer := publish(k)
		s := newServer(t, func(w http.ResponseWriter, r *http.Request) {
			time.Sleep(time.Second)
			answer(w, r)
		})
		v, token := s.verifier(), k.token(t)
		gone, leave := context.WithCancel(t.Context())
		var all sync.WaitGroup
		for i := range 100 {
			all.Go(func() {
				ctx, want := t.Context(), error(nil)
				if i < 10 { // among them perhaps the one that began the fetch
					ctx, want = gone, context.Canceled
				}
				if _, err := v.VerifyContext(ctx, token); !errors.Is(err, want) {
					t.Errorf("got %v, want %v", err, want)
				}
			})
		}
		time.Sleep(time.Second / 2)
		leave()
		all.Wait()
		if n := s.fetches.Load(); n != 1 {
			t.Errorf("%d fetches, want 1", n)
		}
	})
}

func TestASlowServerHoldsUpNobodyWhoseKeyIsKnown(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		k, other := newKey("a"), newKey("b")
		s := newServer(t, publish(k))
		v, token := s.verifier(), k.token(t)
		wants(t, v, token, "valid", 0)
		s.set(hang)
		for range 4 * maxAge / time.Second {
			wants(t, v, token, "valid", 0)
			time.Sleep(time.Second)
		}
		if n := s.fetches.Load(); n > 1+int64(4*maxAge/(5*time.Second)) {
			t.Errorf("%d fetches, want one in five seconds at most", n)
		}
		// The others wait no longer than the fetch may take, nor than they want.
		time.Sleep(time.Minute)
		wants(t, v, other.token(t), "unavailable", 5*time.Second)
		time.Sleep(time.Minute)
		began := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		_, err := v.VerifyContext(ctx, other.token(t))
		if waited := time.Since(began); !errors.Is(err, verify.ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) || waited != 100*time.Millisecond {
			t.Errorf("got %v after %v, want that it can't be told after 100ms", err, waited)
		}
	})
}

func TestAfterAPauseTheFirstRequestsWaitForFreshKeys(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		k := newKey("a")
		s := newServer(t, publish(k))
		v, token := s.verifier(), k.token(t)
		wants(t, v, token, "valid", 0)
		s.set(hang)
		time.Sleep(2 * maxAge)
		wants(t, v, token, "valid", time.Second) // the longest wait
		wants(t, v, token, "valid", 0)
		time.Sleep(time.Minute)
		wants(t, v, token, "valid", 0) // now it's known to be away

		s.set(publish(newKey("b")))
		time.Sleep(time.Minute)
		wants(t, v, token, "valid", 0)
		wants(t, v, token, "unknown key", 0)

		v = s.verifier()
		s.set(publish(k))
		wants(t, v, token, "valid", 0)
		s.set(publish(newKey("b")))
		time.Sleep(2 * maxAge)
		wants(t, v, token, "unknown key", 0) // revoked meanwhile
	})
}

func TestKnownKeysOutliveAnOutageByAnHour(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		k, other := newKey("a"), newKey("b")
		s := newServer(t, publish(k))
		v, token := s.verifier(), k.token(t)
		wants(t, v, token, "valid", 0)
		s.set(status(http.StatusInternalServerError))
		time.Sleep(maxAge + time.Hour - time.Millisecond)
		wants(t, v, token, "valid", 0)
		wants(t, v, other.token(t), "unavailable", 0) // it may be a new one
		time.Sleep(time.Millisecond)
		wants(t, v, token, "unavailable", 0)

		s.set(publish(k))
		wants(t, v, token, "unavailable", 0) // asked just now
		time.Sleep(2 * time.Second)
		wants(t, v, token, "valid", 0)
	})
}

// TestAClockThatJumps makes the keys' age unknown: they are fetched anew.
func TestAClockThatJumps(t *testing.T) {
	t.Parallel()
	for _, jump := range []time.Duration{-time.Hour, 24 * time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			k := newKey("a")
			s := newServer(t, publish(k))
			v, token := s.verifier(), k.token(t)
			var off time.Duration
			v.Now = func() time.Time { return time.Now().Add(off) }
			time.Sleep(time.Hour) // no token is from the future
			wants(t, v, token, "valid", 0)
			off = jump
			wants(t, v, token, "valid", 0)
			if n := s.fetches.Load(); n != 2 {
				t.Errorf("a jump of %v: %d fetches, want 2", jump, n)
			}
			for range 100 {
				wants(t, v, token, "valid", 0)
			}
			if n := s.fetches.Load(); n != 2 {
				t.Errorf("a jump of %v: %d fetches, want no more than 2", jump, n)
			}
		})
	}
}

// useless are answers in which there is nothing to use, given a good one.
func useless(t testing.TB, good http.HandlerFunc, k key) map[string]http.HandlerFunc {
	t.Helper()
	set := func(keys ...jose.JSONWebKey) http.HandlerFunc {
		document, err := json.Marshal(jose.JSONWebKeySet{Keys: keys})
		if err != nil {
			t.Fatal(err)
		}
		return text(string(document))
	}
	return map[string]http.HandlerFunc{
		"500":      status(http.StatusInternalServerError),
		"404":      status(http.StatusNotFound),
		"204":      status(http.StatusNoContent),
		"redirect": elsewhere(good),
		"good, but 201": func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusCreated)
			good(w, r)
		},
		"huge": func(w http.ResponseWriter, r *http.Request) {
			good(w, r)
			_, _ = io.WriteString(w, strings.Repeat(" ", 64<<10))
		},
		"huge once unpacked": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			z := gzip.NewWriter(w)
			_, _ = z.Write(bytes.Repeat([]byte(" "), 1<<20))
			_ = z.Close()
		},
		"endless": func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				_, _ = w.Write([]byte(" "))
				_ = http.NewResponseController(w).Flush()
				select {
				case <-r.Context().Done():
				case <-time.After(time.Second):
				}
			}
		},
		"cut off": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "10000")
			good(w, r)
		},
		"hung up":        func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"slow":           hang,
		"empty":          text(""),
		"HTML":           text("<!doctype html><title>Welcome</title>"),
		"null":           text("null"),
		"no keys":        text(`{}`),
		"keys null":      text(`{"keys": null}`),
		"keys no list":   text(`{"keys": {}}`),
		"empty set":      text(`{"keys": []}`),
		"junk for keys":  text(`{"keys": [null, 1, "a", [], {}, {"kty": 1}]}`),
		"two sets":       func(w http.ResponseWriter, r *http.Request) { good(w, r); good(w, r) },
		"no kid":         set(key{k.PrivateKey, ""}.public()),
		"a private key":  set(jose.JSONWebKey{Key: k.PrivateKey, KeyID: k.id}),
		"a secret":       set(jose.JSONWebKey{Key: []byte("shared"), KeyID: k.id}),
		"for encryption": set(jose.JSONWebKey{Key: &k.PublicKey, KeyID: k.id, Use: "enc"}),
		"another's id":   set(k.public(), key{newKey("").PrivateKey, k.id}.public(), k.public()),
	}
}

func TestAnswersOfNoUse(t *testing.T) {
	t.Parallel()
	k := newKey("a")
	good := publish(k)
	for name, answer := range useless(t, good, k) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newServer(t, answer)
				v, token := s.verifier(), k.token(t)
				began := time.Now()
				_, err := v.Verify(token)
				if !errors.Is(err, verify.ErrUnavailable) || errors.Is(err, verify.ErrInvalid) || time.Since(began) > 5*time.Second {
					t.Errorf("with no keys: got %v after %v", err, time.Since(began))
				}
				if err := v.Ready(t.Context()); !errors.Is(err, verify.ErrUnavailable) {
					t.Errorf("with no keys Ready says %v", err)
				}

				v = s.verifier()
				s.set(good)
				wants(t, v, token, "valid", 0)
				s.set(answer)
				time.Sleep(maxAge * 9 / 10)
				wants(t, v, token, "valid", 0)
				time.Sleep(maxAge)
				wants(t, v, token, "valid", 0)
				if err := v.Ready(t.Context()); err != nil {
					t.Errorf("with good keys Ready says %v", err)
				}
			})
		})
	}
}

// TestBadKeysArePassedOver puts each bad key under the id of a token, beside a
// good key.
func TestBadKeysArePassedOver(t *testing.T) {
	t.Parallel()
	good, k := newKey("good"), newKey("bad")
	text, err := k.public().MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	var members map[string]any
	if err := json.Unmarshal(text, &members); err != nil {
		t.Fatal(err)
	}
	with := func(name string, value any) any {
		changed := map[string]any{}
		for n, v := range members {
			changed[n] = v
		}
		if changed[name] = value; value == nil {
			delete(changed, name)
		}
		return changed
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	zeros := strings.Repeat("A", 43)
	for name, test := range map[string]struct {
		key  any
		want string
	}{
		"as it is":             {members, "valid"},
		"without use":          {with("use", nil), "valid"},
		"without alg":          {with("alg", nil), "valid"},
		"with key_ops":         {with("key_ops", []string{"verify"}), "valid"},
		"with other members":   {with("x5c", 1), "valid"},
		"for signing":          {with("key_ops", []string{"sign"}), "unknown key"},
		"for nothing":          {with("key_ops", []string{}), "unknown key"},
		"for encryption":       {with("use", "enc"), "unknown key"},
		"another algorithm":    {with("alg", "ES384"), "unknown key"},
		"another type":         {with("kty", "OKP"), "unknown key"},
		"without type":         {with("kty", nil), "unknown key"},
		"another curve's name": {with("crv", "P-384"), "unknown key"},
		"without kid":          {with("kid", nil), "unknown key"},
		"kid a number":         {with("kid", 1), "unknown key"},
		"not on the curve":     {with("x", members["y"]), "unknown key"},
		"at infinity":          {json.RawMessage(`{"kty":"EC","crv":"P-256","kid":"bad","x":"` + zeros + `","y":"` + zeros + `"}`), "unknown key"},
		"x too short":          {with("x", members["x"].(string)[4:]), "unknown key"},
		"x too long":           {with("x", "AAAA"+members["x"].(string)), "unknown key"},
		"x padded":             {with("x", members["x"].(string)+"="), "unknown key"},
		"without y":            {with("y", nil), "unknown key"},
		"with its private key": {with("d", zeros), "unknown key"},
		"twice the kid":        {json.RawMessage(`{"kid":"bad",` + string(text[1:])), "unknown key"},
		"P-384":                {jose.JSONWebKey{Key: &p384.PublicKey, KeyID: "bad"}, "unknown key"},
		"RSA":                  {jose.JSONWebKey{Key: &rsaKey.PublicKey, KeyID: "bad"}, "unknown key"},
		"a shared secret":      {jose.JSONWebKey{Key: []byte("shared"), KeyID: "bad"}, "unknown key"},
		"no key":               {"bad", "unknown key"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			document, err := json.Marshal(map[string]any{"keys": []any{test.key, good.public()}})
			if err != nil {
				t.Fatal(err)
			}
			synctest.Test(t, func(t *testing.T) {
				v := newServer(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(document) }).verifier()
				wants(t, v, good.token(t), "valid", 0)
				wants(t, v, k.token(t), test.want, 0)
			})
		})
	}
}

func TestKeyIDsThatTwoKeysHave(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a, b, c := newKey("same"), newKey("same"), newKey("c")
		v := newServer(t, publish(a, b, a, c, c)).verifier()
		wants(t, v, c.token(t), "valid", 0) // one key told twice is one key
		wants(t, v, a.token(t), "unknown key", 0)
		wants(t, v, b.token(t), "unknown key", 0)
	})
}

// TestOutagesAreLoggedOnce and not at each try.
func TestOutagesAreLoggedOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		k := newKey("a")
		s := newServer(t, publish(k))
		var log bytes.Buffer
		v, token := s.verifier(), k.token(t)
		v.Log = slog.New(slog.NewTextHandler(&log, nil))
		wants(t, v, token, "valid", 0)
		s.set(status(http.StatusBadGateway))
		for range 100 {
			time.Sleep(10 * time.Second)
			wants(t, v, token, "valid", 0)
		}
		s.set(publish(k))
		time.Sleep(10 * time.Second)
		wants(t, v, token, "valid", 0)
		lines := strings.Split(strings.TrimSpace(log.String()), "\n")
		if len(lines) != 2 || !strings.Contains(lines[0], "level=WARN") || !strings.Contains(lines[0], "answered 502") || !strings.Contains(lines[1], "again") {
			t.Errorf("the log is %q, want one line for the outage and one for its end", lines)
		}
	})
}
