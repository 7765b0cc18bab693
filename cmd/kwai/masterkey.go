package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"log/slog"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"kwai/internal/auth"
	"kwai/internal/store"
)

// masterKeyEvery is how often the master key file is looked at. Tests have no
// time for it.
var masterKeyEvery = 2 * time.Second

// followMasterKey takes over what the master key file holds when it changes, until
// ctx ends: if it can be read and opens all keys, else those in use stay. What
// has changed is taken once it stays the same, so that no half-written file is;
// its text is compared, since its time tells too little. used is the digest of
// what is in use; usable is 1 while the file could be used as it is.
func (s *Settings) followMasterKey(ctx context.Context, keys *auth.Keys, used [32]byte, usable prometheus.Gauge, log *slog.Logger) {
	file := s.masterKeyFile()
	last := digest(file)
	tick := time.NewTicker(masterKeyEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now := digest(file)
		settled := now == last
		last = now
		if now == used || !settled {
			continue
		}
		err := s.useMasterKey(ctx, keys, log)
		switch {
		case errors.Is(err, store.ErrUnavailable) || ctx.Err() != nil:
			continue // the file may be good: it is tried again
		case err != nil:
			usable.Set(0)
			log.Error("the master key file has changed and can't be used; what it held before stays in use", "file", file, "error", err)
		default:
			usable.Set(1)
			log.Info("took over the changed master key file", "file", file)
		}
		used = now
	}
}

func (s *Settings) useMasterKey(ctx context.Context, keys *auth.Keys, log *slog.Logger) error {
	named := *s
	named.MasterKeyFile = s.masterKeyFile() // one that has gone is not made anew
	master, err := named.masterKey(log)
	if err != nil {
		return err
	}
	return keys.UseMaster(ctx, master)
}

// digest stands for a file's text, and its mode, since what others can read is
// refused; it is zero where it can't be read.
func digest(file string) (sum [sha256.Size]byte) {
	info, err := os.Stat(file)
	if err != nil || !info.Mode().IsRegular() || info.Size() > 1<<20 {
		return sum
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return sum
	}
	return sha256.Sum256(append(text, info.Mode().String()...))
}
