package main

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"kwai/internal/auth"
	"kwai/internal/folder"
	"kwai/internal/store"
	"kwai/internal/token"
)

// masterKeyEvery is how often the master key file is looked at. Tests have no
// time for it.
var masterKeyEvery = 2 * time.Second

// masterKeyFile is the file as a running server follows it.
type masterKeyFile struct {
	settings   *Settings
	keys       *auth.Keys
	log        *slog.Logger
	used, last [sha256.Size]byte // digests of what is in use, and of what the file held at the last reload
	usable     prometheus.Gauge
}

// newMasterKeyFile is the file whose text with that digest is in use.
func newMasterKeyFile(s *Settings, keys *auth.Keys, used [sha256.Size]byte, log *slog.Logger) *masterKeyFile {
	f := &masterKeyFile{settings: s, keys: keys, log: log, used: used, last: used}
	f.usable = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "kwai_master_key_file_usable", Help: "1 unless the master key file has changed and can't be used.",
	})
	f.usable.Set(1)
	return f
}

// Metrics are the collectors for the registry.
func (f *masterKeyFile) Metrics() []prometheus.Collector { return []prometheus.Collector{f.usable} }

// reload takes over what the file holds when it has changed. The keys in use stay
// where it can't be read, or doesn't open all keys. A change is taken over once it
// has stayed for two looks, so that no half-written file is. The text is compared:
// a file can change without a change of its time.
func (f *masterKeyFile) reload(ctx context.Context) {
	file := f.settings.masterKeyFile()
	now := digest(file)
	settled := now == f.last
	f.last = now
	if now == f.used || !settled {
		return
	}
	master, err := f.settings.readMasterKey(f.log)
	if err == nil {
		err = f.keys.UseMaster(ctx, master)
	}
	switch {
	case errors.Is(err, store.ErrUnavailable) || ctx.Err() != nil:
		return // the file may be good: it is tried again
	case err != nil:
		f.usable.Set(0)
		f.log.Error("the master key file has changed and can't be used; what it held before stays in use", "file", file, "error", err)
	default:
		f.usable.Set(1)
		f.log.Info("took over the changed master key file", "file", file)
	}
	f.used = now
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

// readMasterKey reads the master key. It never makes one.
func (s *Settings) readMasterKey(log *slog.Logger) (*token.Master, error) {
	path := s.masterKeyFile()
	text, err := readSecretFile(path, log)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: put the key there that the database was made with, or for a new one make it by `kwai key new > %s`", err, path)
	}
	if err != nil {
		return nil, err
	}
	master, err := token.ParseMaster(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return master, nil
}

// openMasterKey reads the master key. At the first start on SQLite it makes it,
// unless its file was named. One that is missing beside a database is never made
// anew: it could not open that database's keys.
func (s *kwaiServer) openMasterKey() (*token.Master, error) {
	if s.MasterKeyFile == "" {
		if err := folder.MakeFolder(s.Data); err != nil {
			return nil, &usageError{"--data", err}
		}
		if err := s.ensureMasterKey(s.log); err != nil {
			return nil, &usageError{"--master-key-file", err}
		}
	}
	master, err := s.readMasterKey(s.log)
	if err != nil {
		return nil, &usageError{"--master-key-file", err}
	}
	return master, nil
}

func (s *Settings) ensureMasterKey(log *slog.Logger) error {
	path := s.masterKeyFile()
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	database := s.Database[len("sqlite://"):]
	if _, err := os.Stat(database); !errors.Is(err, fs.ErrNotExist) {
		return errors.Join(fmt.Errorf("%s is missing, but there is a database (%s) whose keys it seals: put it back from a backup", path, database), err)
	}
	if err := folder.WriteFile(path, []byte(token.NewMasterKey()+"\n")); err != nil {
		return err
	}
	log.Info("made a master key: keep a copy of it apart from the database's", "file", path)
	return nil
}

// checkKeys refuses keys of a database that the server could not start on: they
// must open under the master key in use.
func (s *Settings) checkKeys(keys []store.Key, database string, c console) error {
	master, err := s.readMasterKey(s.logger(c))
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s is missing: put the master key of %s there, or name its file", s.masterKeyFile(), database)
	}
	if err != nil {
		return err
	}
	if err = auth.CheckKeys(master, keys); errors.Is(err, token.ErrNoMaster) {
		return fmt.Errorf("the keys of %s are sealed under another master key than that in %s: add theirs there as the last line, or if that is not the servers' file, name theirs", database, s.masterKeyFile())
	}
	return err
}

// masterKeyFile is where the master key is, whether it was named or not.
func (s *Settings) masterKeyFile() string {
	return cmp.Or(s.MasterKeyFile, filepath.Join(s.Data, "master.key"))
}

// listingMaster reads the master key in use. On PostgreSQL it must be named: the one in --data is another database's.
func (s *Settings) listingMaster(log *slog.Logger) (*token.Master, error) {
	if s.MasterKeyFile == "" && !s.onSQLite() {
		return nil, fmt.Errorf("it is not set: %w", fs.ErrNotExist)
	}
	return s.readMasterKey(log)
}

// withKeys opens the server's keys for a command, with the master key in use.
func withKeys(ctx context.Context, s *Settings, c console, do func(*auth.Keys) error) error {
	return withRules(ctx, s, c, func(rules *auth.Service) error {
		master, err := s.readMasterKey(rules.Log)
		if err != nil {
			return &usageError{"--master-key-file", err}
		}
		keys, err := auth.OpenKeys(ctx, rules.Store, master, s.keyRules(), rules.Log)
		if errors.Is(err, token.ErrNoMaster) {
			return &usageError{"--master-key-file", err}
		}
		if err != nil {
			return fmt.Errorf("%w (has `kwai serve` been started once?)", err)
		}
		return do(keys)
	})
}
