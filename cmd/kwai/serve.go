package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"kwai/internal/auth"
	"kwai/internal/bus"
	"kwai/internal/folder"
	"kwai/internal/mail"
	"kwai/internal/password"
	"kwai/internal/store"
	"kwai/internal/token"
	"kwai/internal/web"
)

type serveCmd struct {
	Dev bool `help:"For the first five minutes: a folder of its own (./kwai-dev), a demo account, sent mail at /dev/mail."`
}

// Time-outs of HTTP. A client has readHeaders to say what it wants and
// readBody to say all of it; an answer, waiting for a hash included, takes
// writeAnswer at most.
const (
	readHeaders = 5 * time.Second
	readBody    = 15 * time.Second
	writeAnswer = 30 * time.Second
	maxHeaders  = 16 << 10 // bytes
	// drain is how long requests under way have after SIGTERM, and flush then
	// the events that wait.
	drain = 20 * time.Second
	flush = 10 * time.Second
)

// gcPercent lets the heap grow to two and a half times what is in use, instead of
// twice: some MiB for a few percent of the rate.
const gcPercent = 150

// Run serves until ctx ends.
func (cmd *serveCmd) Run(ctx context.Context, s *Settings, c console) (err error) {
	if cmd.Dev {
		if err := s.forDev(); err != nil {
			return err
		}
	}
	if err := s.checkServing(); err != nil {
		return err
	}
	log := s.logger(c)
	if w, ok := c.err.(*logWriter); ok {
		w.tellLost(func(lines int) {
			log.Warn("lines of this log were lost: standard error could not be written", "lines", lines)
		})
	}
	certificate, err := s.certificate(log)
	if err != nil {
		return err
	}
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	// First the address: where it can't be had, nothing has been made yet.
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", s.Listen)
	if err != nil {
		return &usageError{"--listen", err}
	}
	defer listener.Close()
	watched := newRegistry(s)
	if s.MetricsListen != "" {
		stop, err := serveMetrics(ctx, s.MetricsListen, watched, log)
		if err != nil {
			return err
		}
		defer stop()
	}
	if s.publicURL == nil {
		s.publicURL = &url.URL{Scheme: s.scheme(), Host: listener.Addr().String()}
	}
	s.warnOfPlain(log)
	sender, err := s.sender()
	if err != nil {
		return err
	}
	publisher, err := s.publisher(log)
	if err != nil {
		return err
	}

	// A key that is named is looked at before anything is made.
	if s.MasterKeyFile == "" {
		if err := os.MkdirAll(s.Data, 0o700); err != nil {
			return &usageError{"--data", err}
		}
	}
	master, err := s.masterKey(log)
	if err != nil {
		return &usageError{"--master-key-file", err}
	}
	masterDigest := digest(s.masterKeyFile())
	if err := os.MkdirAll(s.Data, 0o700); err != nil {
		return &usageError{"--data", err}
	}
	db, err := store.Open(ctx, store.Options{URL: s.Database, Serve: true, Connections: s.DatabaseConnections, Log: log})
	if err != nil {
		return &usageError{"--database", err}
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	keys, err := auth.EnsureKeys(ctx, db, master, s.rules(), log)
	if errors.Is(err, token.ErrNoMaster) {
		return &usageError{"--master-key-file", err}
	}
	if err != nil {
		return err
	}
	if files, ok := sender.(*mail.Files); ok {
		if err := files.MakeFolder(); err != nil {
			return &usageError{"--data", err}
		}
		log.Warn("no mail server is set (--smtp): mails are written to files", "folder", files.Folder())
	}
	if s.SMTP != "" && s.PublicURL == "" {
		log.Warn("no public URL is set (--public-url): links in mails lead to this machine only", "public_url", s.publicURL.String())
	}
	if s.SMTP != "" && s.MailFrom == "" && s.PublicURL != "" && mailDomain(s.publicURL.Hostname()) == noDomain {
		log.Warn("the public URL has no domain for a sender, and none is set (--mail-from): mail servers may refuse mails", "sender", "noreply@"+noDomain)
	}
	warnOfFolder(log, s.Data)
	if s.Limits == "off" {
		log.Warn("--limits is off: nothing is throttled")
	}
	passwords := password.NewPool(password.Options{
		Params: s.hashing(), Workers: s.HashWorkers, MaxWait: s.HashWait, Processes: true, Log: log,
	})
	defer passwords.Close()

	name := uuid.NewString() // in the log, and in kwai status as the holder of leases
	rules := &auth.Service{Store: db, Passwords: passwords, Keys: keys, Settings: s.rules(), Log: log, Name: name}
	rules.Settings.Issuer = s.publicURL.String()
	mails := &mail.Subscriber{
		Rules:  rules,
		Writer: &mail.Writer{PublicURL: s.publicURL.String(), SiteURL: s.SiteURL, Service: s.ServiceName},
		Sender: sender,
		Log:    log,
	}
	buses := map[string]*bus.Bus{auth.SubscriberMail: bus.New(db, mails, log)}
	buses[auth.SubscriberMail].AtOnce = s.SMTPConnections
	db.Published = func(subscriber string) {
		if b := buses[subscriber]; b != nil { // another server may tell it
			b.Wake()
		}
	}
	if publisher != nil {
		defer publisher.Close()
		buses[publisher.Name()] = bus.NewOutside(db, publisher, s.BusKeep, log)
		if err := startPublishing(ctx, publisher, buses[publisher.Name()], log); err != nil {
			return err
		}
	}
	if err := errors.Join(rules.RefreshCosts(ctx), rules.RefreshSubscribers(ctx), s.warnOfUntold(ctx, db, buses, log)); err != nil {
		return err
	}
	proxies, err := s.proxies()
	if err != nil {
		return err
	}
	site := &web.Server{Rules: rules, PublicURL: s.publicURL, SiteURL: s.SiteURL, CORSOrigins: s.CORSOrigins, Proxies: proxies, Log: log}
	if cmd.Dev {
		site.DevMail, _ = sender.(*mail.Files)
		site.Loopback = true
	}
	handler, err := site.Handler()
	if err != nil {
		return &usageError{"--public-url", err}
	}
	if cmd.Dev {
		if err := startDev(ctx, s, rules, c); err != nil {
			return err
		}
	}
	listener = site.Refusals(listener)

	// What goes on in the background; it ends after the last request.
	var background sync.WaitGroup
	working, stopWorking := context.WithCancel(context.WithoutCancel(ctx))
	defer background.Wait()
	defer stopWorking()
	background.Go(func() { db.FollowWrites(working, log) })
	background.Go(func() { rules.FollowRecoveries(working) })
	background.Go(func() { rules.FollowCosts(working) })
	background.Go(func() { rules.FollowKeys(working) })
	usable := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "kwai_master_key_file_usable", Help: "1 unless the master key file has changed and can't be used.",
	})
	usable.Set(1)
	watched.MustRegister(usable)
	background.Go(func() { s.followMasterKey(working, keys, masterDigest, usable, log) })
	background.Go(func() { rules.FollowSubscribers(working) })
	background.Go(func() { rules.FollowPurge(working) })
	background.Go(func() { bus.Tidy(working, db, s.BusKeep, log) })
	for _, b := range buses {
		b.SetOwner(name)
		background.Go(func() { b.Run(working) })
	}

	if certificate != nil {
		listener = tls.NewListener(listener, certificate.config())
		background.Go(func() { certificate.follow(working) })
		watch(watched, certificate)
		// Browsers would keep to it for all that is served on this machine.
		if !isLoopback(s.publicURL.Hostname()) {
			handler = hsts(handler)
		}
	}
	server := newServer(handler, s.IdleTimeout, log)
	clients := bound(listener, s.MaxConnections, log)
	server.ConnState = clients.follow
	watch(watched, db, passwords, rules, mails, site, clients)
	for _, b := range buses {
		watch(watched, b)
	}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(clients) }()
	log.Info("serving", "address", listener.Addr().String(), "public_url", s.publicURL.String(), "version", version(), "server", name)
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}

	site.Drain()
	if s.DrainDelay > 0 {
		log.Info("draining: /readyz says so, and requests are answered as before", "for", s.DrainDelay)
		select {
		case err := <-failed:
			return err
		case <-time.After(s.DrainDelay):
		}
	}
	log.Info("stopping: requests under way are answered, mail that waits is sent")
	ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), drain)
	defer cancel()
	if err := server.Shutdown(ending); err != nil {
		log.Warn("some requests were cut off", "error", errors.Join(err, server.Close()))
	}
	stopWorking()
	background.Wait()
	flushing, cancel := context.WithTimeout(context.WithoutCancel(ctx), flush)
	defer cancel()
	for {
		if taken, err := rules.TakeRecoveries(flushing); err != nil || taken == 0 {
			break // what is left is kept for the next start
		}
	}
	for _, b := range buses {
		b.Flush(flushing)
		b.Release(flushing)
	}
	log.Info("stopped")
	return nil
}

// newServer bounds what a client may take of the server.
func newServer(handler http.Handler, idle time.Duration, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: readHeaders,
		ReadTimeout:       readBody,
		WriteTimeout:      writeAnswer,
		IdleTimeout:       idle,
		MaxHeaderBytes:    maxHeaders,

		DisableGeneralOptionsHandler: true, // "OPTIONS *" is answered as all that isn't there
		ErrorLog:                     slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
}

// sender is what takes mails away.
func (s *Settings) sender() (mail.Sender, error) {
	o := mail.Options{From: s.MailFrom, Domain: strings.TrimSuffix(s.publicURL.Hostname(), ".")}
	if o.From == "" {
		o.From = "noreply@" + mailDomain(s.publicURL.Hostname())
		o.Domain = ""
	}
	if s.SMTP != "" {
		smtp, err := mail.NewSMTP(s.SMTP, o)
		if err != nil {
			return nil, &usageError{"--smtp, --mail-from", err}
		}
		return smtp, nil
	}
	files, err := mail.NewFiles(filepath.Join(s.Data, "mail"), o)
	if err != nil {
		return nil, &usageError{"--mail-from", err}
	}
	return files, nil
}

// noDomain stands for a domain where the public URL has none.
const noDomain = "localhost.localdomain"

// mailDomain is the domain of mails where none is set. An address is none: mail
// servers hardly take a sender at one.
func mailDomain(host string) string {
	host = strings.TrimSuffix(host, ".")
	if _, err := netip.ParseAddr(host); err == nil || isLoopback(host) {
		return noDomain
	}
	return host
}

// masterKey reads the master key; at the first start on SQLite it makes it. One
// that is missing beside a database is never made anew: it could not open that
// database's keys.
func (s *Settings) masterKey(log *slog.Logger) (*token.Master, error) {
	path := s.MasterKeyFile
	if path == "" {
		path = filepath.Join(s.Data, "master.key")
		if err := s.makeMasterKey(path, log); err != nil {
			return nil, err
		}
	}
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: put the key there that the database was made with, or for a new one make it by `kwai key new > %s`", err, path)
	}
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a file", path)
	}
	if err := refuseOpen(path, info); err != nil {
		return nil, err
	}
	warnOfOpen(log, path, info)
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, explainDenied(err)
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
	master, err := named.masterKey(s.logger(c))
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s is missing: put the master key of %s there, or name its file", named.MasterKeyFile, database)
	}
	if err != nil {
		return err
	}
	if err = auth.CheckKeys(master, keys); errors.Is(err, token.ErrNoMaster) {
		return fmt.Errorf("the keys of %s are sealed under another master key than that in %s: name the file with theirs", database, named.MasterKeyFile)
	}
	return err
}
