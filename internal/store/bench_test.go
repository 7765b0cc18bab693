package store_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"

	"kwai/internal/store"
	"kwai/internal/testing/storetest"
)

// benchmark calls f for parallel clients on each engine: for a client's n-th
// call with the session that is its own.
func benchmark(b *testing.B, f func(ctx context.Context, s *store.Store, session string, n int64) error) {
	b.Helper()
	for name, newURL := range map[string]func(testing.TB) string{"sqlite": storetest.SQLite, "postgres": storetest.Postgres} {
		b.Run(name, func(b *testing.B) {
			const sessions = 1024
			s := storetest.Open(b, newURL(b), nil)
			storetest.At(b, s, s.Now(), func(tx *store.Tx) error {
				err := addUser(tx, "u")
				for i := range sessions {
					if err == nil {
						_, err = tx.OpenSession(fmt.Sprint(i), "u", many)
					}
				}
				return err
			})
			var clients atomic.Int64
			b.ReportAllocs()
			b.SetParallelism(32) // clients for each core: what group commit is for
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				session := fmt.Sprint(clients.Add(1) % sessions)
				for n := int64(0); pb.Next(); n++ {
					if err := f(b.Context(), s, session, n); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}

// BenchmarkRenew renews sessions durably.
func BenchmarkRenew(b *testing.B) {
	benchmark(b, func(ctx context.Context, s *store.Store, session string, n int64) error {
		return s.Statement(ctx, func(tx *store.Tx) error { return discard(tx.Renew(session, n, lifetimes, window)) })
	})
}

// BenchmarkCheck reads what is read for each access token that is shown.
func BenchmarkCheck(b *testing.B) {
	benchmark(b, func(ctx context.Context, s *store.Store, session string, _ int64) error {
		return discard(s.Read(ctx).UserOfSession(session, s.Now(), lifetimes))
	})
}
