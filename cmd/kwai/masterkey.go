package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
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
	used, last [sha256.Size]byte // digests of what is in use, and of what was there at the last look
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

// Metrics are what it tells those who watch the server.
func (f *masterKeyFile) Metrics() []prometheus.Collector { return []prometheus.Collector{f.usable} }

// look takes over what the file holds when it has changed: if it can be read and
// opens all keys, else those in use stay. What has changed is taken once it stays
// the same, so that no half-written file is; its text is compared, since its time
// tells too little.
func (f *masterKeyFile) look(ctx context.Context) {
	file := f.settings.masterKeyFile()
	now := digest(file)
	settled := now == f.last
	f.last = now
	if now == f.used || !settled {
		return
	}
	err := f.settings.useMasterKey(ctx, f.keys, f.log)
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

func (s *Settings) useMasterKey(ctx context.Context, keys *auth.Keys, log *slog.Logger) error {
	named := *s
	named.MasterKeyFile = s.masterKeyFile() // one that has gone is not made anew
	master, err := named.readMasterKey(log)
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

// readMasterKey reads the master key; at the first start on SQLite it makes it. One
// that is missing beside a database is never made anew: it could not open that
// database's keys.
func (s *Settings) readMasterKey(log *slog.Logger) (*token.Master, error) {
	path := s.MasterKeyFile
	if path == "" {
		path = filepath.Join(s.Data, "master.key")
		if err := s.makeMasterKey(path, log); err != nil {
			return nil, err
		}
	}
	f, info, err := openSecret(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: put the key there that the database was made with, or for a new one make it by `kwai key new > %s`", err, path)
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if err := refuseOpen(f, info); err != nil {
		return nil, err
	}
	warnOfOpen(log, path, info)
	text, err := io.ReadAll(f)
	if err != nil {
		return nil, err
	}
	master, err := token.ParseMaster(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return master, nil
}

func (s *Settings) makeMasterKey(path string, log *slog.Logger) error {
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	database := s.Database[len("sqlite://"):]
	if _, err := os.Stat(database); !errors.Is(err, fs.ErrNotExist) {
		return errors.Join(fmt.Errorf("%s is missing, but there is a database (%s) whose keys it seals: put it back from a backup", path, database), err)
	}
	// Under another name first: a file that is there is whole.
	f, err := os.CreateTemp(filepath.Dir(path), "master.key-*") // mode 0600
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(f, token.NewMasterKey())
	err = errors.Join(err, folder.Adopt(f), f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	if err := folder.Sync(filepath.Dir(path)); err != nil {
		return err
	}
	log.Info("made a master key: keep a copy of it apart from the database's", "file", path)
	return nil
}

// checkKeys refuses keys of a database that the server could not start on: they
// must open under the master key in use, which is never made here.
func (s *Settings) checkKeys(keys []store.Key, database string, c console) error {
	named := *s
	named.MasterKeyFile = s.masterKeyFile() // what is named is not made
	master, err := named.readMasterKey(s.logger(c))
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s is missing: put the master key of %s there, or name its file", named.MasterKeyFile, database)
	}
	if err != nil {
		return err
	}
	if err = auth.CheckKeys(master, keys); errors.Is(err, token.ErrNoMaster) {
		return fmt.Errorf("the keys of %s are sealed under another master key than that in %s: add theirs there as the last line, or if that is not the servers' file, name theirs", database, named.MasterKeyFile)
	}
	return err
}
