package verify_test

import (
	"bytes"
	"compress/gzip"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-jose/go-jose/v4"

	"kwai/verify"
)

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
		"y begins in x":        {json.RawMessage(`{"kty":"EC","crv":"P-256","kid":"bad",` + shifted(k) + `}`), "unknown key"},
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

// shifted has the coordinates' bytes in their order, but 33 and 31 of them.
func shifted(k key) string {
	point, err := k.PublicKey.Bytes()
	if err != nil {
		panic(err)
	}
	b64 := base64.RawURLEncoding
	return fmt.Sprintf(`"x":%q,"y":%q`, b64.EncodeToString(point[1:34]), b64.EncodeToString(point[34:]))
}

// TestAnEndlessAnswerIsNotReadForLong, however fast it comes.
func TestAnEndlessAnswerIsNotReadForLong(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		read := 0
		s := newServer(t, func(w http.ResponseWriter, _ *http.Request) {
			for read < 1<<20 {
				n, err := w.Write(make([]byte, 4<<10))
				if read += n; err != nil {
					return
				}
			}
		})
		wants(t, s.verifier(), newKey("a").token(t), "unavailable", 0)
		if read > 100<<10 {
			t.Errorf("at least %d bytes were read", read)
		}
	})
}

func TestKeyIDsThatTwoKeysHave(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a, b, c := newKey("same"), newKey("same"), newKey("c")
		v := newServer(t, publish(a, b, a, c, c)).verifier()
		wants(t, v, c.token(t), "valid", 0) // one key listed twice is one key
		wants(t, v, a.token(t), "unknown key", 0)
		wants(t, v, b.token(t), "unknown key", 0)
	})
}
