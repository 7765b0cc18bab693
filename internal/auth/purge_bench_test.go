package auth_test

import (
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"kwai/internal/auth"
	"kwai/internal/password"
	"kwai/internal/store"
	"kwai/internal/testing/storetest"
	"kwai/internal/token"
)

// BenchmarkRenewWhilePurging shows what a purge of 200,000 ended sessions costs
// those who renew meanwhile: the 50th and 99th percentile of a renewal without
// and with it, in ms, and how long the purge takes, in s, of 16 clients each of
// whom renews a hundred times a second. One run is enough:
//
//	go test ./internal/auth -run '^$' -bench RenewWhilePurging -benchtime 1x
func BenchmarkRenewWhilePurging(b *testing.B) {
	for name, newURL := range map[string]func(testing.TB) string{"sqlite": storetest.SQLite, "postgres": storetest.Postgres} {
		b.Run(name, func(b *testing.B) {
			const clients, ended = 16, 200_000
			pool := password.NewPool(password.Options{Params: cheap, Workers: 2})
			defer pool.Close()
			db := storetest.Open(b, newURL(b), nil)
			master, err := token.ParseMaster([]byte(token.NewMasterKey()))
			if err != nil {
				b.Fatal(err)
			}
			keys, err := auth.EnsureKeys(b.Context(), db, master, auth.KeySettings{Lifetimes: auth.Defaults.KeyLifetimes()}, slog.New(slog.DiscardHandler))
			if err != nil {
				b.Fatal(err)
			}
			s := &auth.Service{Store: db, Passwords: pool, Keys: keys, Settings: auth.Defaults, Log: slog.New(slog.DiscardHandler)}
			s.Settings.Issuer, s.Settings.Limits.Off = "https://auth.example.org", true
			id, err := s.CreateUser(b.Context(), auth.NewUser{Email: ann, Password: oldPassword})
			if err != nil {
				b.Fatal(err)
			}
			long := db.Now().Add(-100 * day)
			for range ended / 1000 {
				err := db.InTx(b.Context(), func(tx *store.Tx) error {
					now := tx.Now
					tx.Now = long
					defer func() { tx.Now = now }()
					for range 1000 {
						if _, err := tx.OpenSession(uuid.NewString(), id, 1<<30); err != nil {
							return err
						}
					}
					return nil
				})
				if err != nil {
					b.Fatal(err)
				}
			}
			tokens := make([]auth.Tokens, clients)
			for i := range tokens {
				if tokens[i], err = s.Login(b.Context(), auth.Client{}, ann, oldPassword); err != nil {
					b.Fatal(err)
				}
			}
			// renew until stop is closed.
			renew := func(stop <-chan struct{}) (took []time.Duration) {
				var mu sync.Mutex
				var all sync.WaitGroup
				for i := range tokens {
					all.Go(func() {
						tick := time.NewTicker(10 * time.Millisecond)
						defer tick.Stop()
						var own []time.Duration
						for {
							select {
							case <-stop:
								mu.Lock()
								took = append(took, own...)
								mu.Unlock()
								return
							case <-tick.C:
							}
							begun := time.Now()
							fresh, err := s.Renew(b.Context(), auth.Client{}, tokens[i].Refresh, db.Now())
							if err != nil {
								b.Error(err)
								return
							}
							tokens[i] = fresh
							own = append(own, time.Since(begun))
						}
					})
				}
				all.Wait()
				slices.Sort(took)
				return took
			}
			for b.Loop() {
				stop := make(chan struct{})
				time.AfterFunc(15*time.Second, func() { close(stop) })
				report(b, renew(stop), "without")
				stop = make(chan struct{})
				begun := time.Now()
				go func() {
					defer close(stop)
					if swept, err := s.NewPurger(nil).RestAsServed().Sweep(b.Context()); err != nil || !swept {
						b.Error("the purge: ", swept, err)
					}
				}()
				report(b, renew(stop), "with")
				b.ReportMetric(time.Since(begun).Seconds(), "s-purge")
			}
		})
	}
}

func report(b *testing.B, took []time.Duration, when string) {
	b.Helper()
	for name, at := range map[string]int{"p50": 50, "p99": 99} {
		b.ReportMetric(float64(took[len(took)*at/100].Microseconds())/1000, "ms-"+name+"-"+when)
	}
}
