package verify_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"kwai/verify"
)

// A signature takes nearly all of the time: 60 to 75 µs on one core.

func BenchmarkVerify(b *testing.B) {
	v := load(b)
	verifier, good := v.verifier(), v.good(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := verifier.Verify(good); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkVerifierForOneCheck is how kwai itself uses it.
func BenchmarkVerifierForOneCheck(b *testing.B) {
	v := load(b)
	good, now := v.good(b), v.verifier().Now
	b.ReportAllocs()
	for b.Loop() {
		verifier := verify.Verifier{Issuer: v.Issuer, Audience: v.Audience, Keys: v.JWKS, Now: now}
		if _, err := verifier.Verify(good); err != nil {
			b.Fatal(err)
		}
	}
}

// fetching has its keys from a server.
func fetching(b *testing.B) (*verify.Verifier, string) {
	b.Helper()
	k := newKey("a")
	v := newServer(b, publish(k)).verifier()
	if err := v.Ready(b.Context()); err != nil {
		b.Fatal(err)
	}
	return v, k.token(b)
}

func BenchmarkVerifyWithFetchedKeys(b *testing.B) {
	v, good := fetching(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := v.Verify(good); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkVerifyInParallel(b *testing.B) {
	v, good := fetching(b)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := v.Verify(good); err != nil {
				b.Error(err)
			}
		}
	})
}

// BenchmarkForgedKeyID is what a flood of forged tokens costs each.
func BenchmarkForgedKeyID(b *testing.B) {
	v, _ := fetching(b)
	forged := newKey("forged").token(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := v.Verify(forged); err == nil {
			b.Fatal("it is taken")
		}
	}
}

func BenchmarkProtect(b *testing.B) {
	v, good := fetching(b)
	h := v.Protect(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	r := httptest.NewRequest(http.MethodGet, "/", http.NoBody)
	r.Header.Set("Authorization", "Bearer "+good)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			if w.Code != http.StatusOK {
				b.Error(w.Code, w.Body)
			}
		}
	})
}
