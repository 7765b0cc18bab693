package auth_test

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"kwai/internal/auth"
	"kwai/internal/password"
	"kwai/internal/store"
	"kwai/internal/testing/storetest"
)

// What a failed login costs beside its hash, which is the cheapest here; alone
// shows how much of it that is.
func BenchmarkFailedLogin(b *testing.B) {
	for name, url := range map[string]func(testing.TB) string{"sqlite": storetest.SQLite, "postgres": storetest.Postgres} {
		b.Run(name, func(b *testing.B) {
			pool := password.NewPool(password.Options{Params: cheap, Workers: 2})
			b.Cleanup(pool.Close)
			s := &auth.Service{Store: storetest.Open(b, url(b), nil), Passwords: pool, Settings: auth.Defaults, Log: slog.New(slog.DiscardHandler)}
			if _, err := s.CreateUser(b.Context(), auth.NewUser{Email: ann, FirstName: "Ann", LastName: "Other", Password: oldPassword}); err != nil {
				b.Fatal(err)
			}
			for _, c := range []struct {
				name  string
				set   func(*auth.Limits)
				email func(i int) string
			}{
				{"limits off", func(l *auth.Limits) { l.Off = true }, func(int) string { return ann }},
				{"from an unknown network", generous, func(i int) string { return fmt.Sprintf("nobody%d@example.org", i) }},
				{"from a known network", generous, func(int) string { return ann }},
				{"held", func(l *auth.Limits) { l.Most = 1 }, func(int) string { return nobody }},
			} {
				b.Run(c.name, func(b *testing.B) {
					s.Settings.Limits = auth.Defaults.Limits
					c.set(&s.Settings.Limits)
					if strings.Contains(c.name, "known") {
						know(b, s)
					}
					b.ResetTimer()
					for i := range b.N {
						if _, err := s.Login(b.Context(), from(home), c.email(i), wrong); err == nil || auth.CodeOf(err) == 0 {
							b.Fatal(err)
						}
					}
				})
			}
			b.Run("the hash alone", func(b *testing.B) {
				for range b.N {
					if err := pool.VerifyDummy(b.Context(), pool.Cost(), wrong); err != nil {
						b.Fatal(err)
					}
				}
			})
		})
	}
}

// generous limits hold nothing back, but count.
func generous(l *auth.Limits) {
	l.Free, l.Most, l.NetworkBurst, l.NetworkHour = 1<<30, 1<<30, 1_000_000, 1_000_000
}

// know makes ann's home known.
func know(b *testing.B, s *auth.Service) {
	b.Helper()
	err := s.Store.InTx(b.Context(), func(tx *store.Tx) error {
		_, err := tx.KnowNetwork(auth.AccountOf(ann), "192.0.2.0/24", tx.Now.Add(s.Settings.Limits.Remember))
		return err
	})
	if err != nil {
		b.Fatal(err)
	}
}
