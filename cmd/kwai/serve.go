package main

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"kwai/internal/auth"
	"kwai/internal/bus"
	"kwai/internal/database"
	"kwai/internal/folder"
	"kwai/internal/i18n"
	"kwai/internal/loopback"
	"kwai/internal/mail"
	"kwai/internal/offline"
	"kwai/internal/password"
	"kwai/internal/store"
	"kwai/internal/token"
	"kwai/internal/web"
)

type serveCmd struct {
	Dev bool `help:"To try it out: a folder of its own (./kwai-dev), a demo account, sent mail at /dev/mail."`
}

// Time-outs of HTTP. A client has readHeaders to send the headers and readBody to
// send all of a request; an answer takes writeAnswer at most, with the wait for a
// hash.
const (
	readHeaders = 5 * time.Second
	readBody    = 15 * time.Second
	writeAnswer = 30 * time.Second
	maxHeaders  = 16 << 10 // bytes
	// After SIGTERM requests under way have drainTimeout, and then the events that
	// wait have flushTimeout.
	drainTimeout = 20 * time.Second
	flushTimeout = 10 * time.Second
)

// gcPercent lets the heap grow to two and a half times what is in use, instead of
// twice: some MiB for a few percent of the rate.
const gcPercent = 150

// kwaiServer is the server: its parts, in the order in which they are made.
type kwaiServer struct {
	*Settings
	console  console
	dev      bool
	log      *slog.Logger
	name     string // in the log, and in kwai status as the holder of leases
	registry *prometheus.Registry

	certificate *certificate // nil: plain HTTP
	listener    net.Listener
	sender      mail.Sender
	publisher   *bus.NATS // nil: no events are published outside
	masterKey   *masterKeyFile
	db          *store.Store
	keys        *auth.Keys
	passwords   *password.Pool
	rules       *auth.Service
	buses       map[string]*bus.Bus // by their subscribers
	brand       web.Brand
	site        *web.Server
	http        *http.Server

	closers []func() error // the last one comes first
}

// Run serves until ctx ends.
func (cmd *serveCmd) Run(ctx context.Context, settings *Settings, c console) (err error) {
	if cmd.Dev {
		if err := settings.applyDev(); err != nil {
			return err
		}
	}
	if err := settings.checkServing(); err != nil {
		return err
	}
	s, err := openServer(ctx, settings, c, cmd.Dev)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	return s.run(ctx)
}

// openServer makes the parts of a server, which listens from then on. It answers
// once it runs.
func openServer(ctx context.Context, settings *Settings, c console, dev bool) (*kwaiServer, error) {
	s := &kwaiServer{
		Settings: settings, console: c, dev: dev, log: settings.logger(c), name: uuid.NewString(), registry: newRegistry(settings),
	}
	for _, step := range []func(context.Context) error{s.listen, s.makeSenders, s.readBrand, s.open, s.makeRules, s.makeBuses, s.makeSite} {
		if err := step(ctx); err != nil {
			return nil, errors.Join(err, s.close())
		}
	}
	return s, nil
}

// close gives back what openServer took, the last first.
func (s *kwaiServer) close() (err error) {
	for _, closer := range slices.Backward(s.closers) {
		err = errors.Join(err, closer())
	}
	return err
}

// listen comes first: where the address can't be had, nothing has been made yet.
func (s *kwaiServer) listen(ctx context.Context) (err error) {
	if s.certificate, err = s.readCertificate(s.log); err != nil {
		return err
	}
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	if s.dev {
		if err := checkLocalhost(ctx, s.Listen); err != nil {
			return err
		}
	}
	if s.listener, err = (&net.ListenConfig{}).Listen(ctx, "tcp", s.Listen); err != nil {
		return &usageError{"--listen", err}
	}
	listener := s.listener
	s.closers = append(s.closers, func() error { _ = listener.Close(); return nil }) // the server has closed it, mostly
	if s.MetricsListen != "" {
		stop, err := serveMetrics(ctx, s.MetricsListen, s.registry, s.log)
		if err != nil {
			return err
		}
		s.closers = append(s.closers, func() error { stop(); return nil })
	}
	if s.publicURL == nil {
		s.publicURL = &url.URL{Scheme: s.scheme(), Host: s.listener.Addr().String()}
		if s.dev {
			s.publicURL.Host = localhost(s.listener.Addr())
		}
	}
	s.warnOfPlainHTTP()
	return nil
}

// warnOfPlainHTTP warns where passwords can be read on their way. They can't where
// TLS ends at a proxy: then the public URL has https, and a proxy is trusted.
func (s *kwaiServer) warnOfPlainHTTP() {
	atProxy := s.publicURL.Scheme == "https" && len(s.TrustedProxies) > 0
	if s.TLSCert == "" && !onLoopback(s.Listen) && !atProxy {
		s.log.Warn("serving without TLS on an address that is not loopback: anybody on the way reads passwords and tokens (--tls-cert, or a proxy and --trusted-proxies)", "listen", s.Listen)
	}
}

// makeSenders makes what events leave by. It opens nothing yet: what the settings
// name is looked at before anything is made.
func (s *kwaiServer) makeSenders(context.Context) (err error) {
	if s.sender, err = s.mailSender(); err != nil {
		return err
	}
	if s.Bus == "local" {
		return nil
	}
	s.publisher, err = bus.NewNATS(s.Bus, bus.NATSOptions{Source: s.publicURL.String(), MaxAge: s.BusKeep, Log: s.log})
	if err != nil {
		return &usageError{"--bus", err}
	}
	return nil
}

func (s *kwaiServer) readBrand(context.Context) (err error) {
	s.brand, err = s.Settings.brand()
	return err
}

// open opens the database and its keys.
func (s *kwaiServer) open(ctx context.Context) error {
	master, err := s.openMasterKey()
	if err != nil {
		return err
	}
	used := digest(s.masterKeyFile())
	if err := folder.MakeFolder(s.Data); err != nil {
		return &usageError{"--data", err}
	}
	s.db, err = store.Open(ctx, database.Options{URL: s.Database, Serve: true, Connections: s.DatabaseConnections, Log: s.log})
	if err != nil {
		return &usageError{"--database", err}
	}
	s.closers = append(s.closers, s.db.Close)
	s.keys, err = auth.EnsureKeys(ctx, s.db, master, s.keyRules(), s.log)
	if errors.Is(err, token.ErrNoMaster) {
		return &usageError{"--master-key-file", err}
	}
	if err != nil {
		return err
	}
	s.masterKey = newMasterKeyFile(s.Settings, s.keys, used, s.log)
	if files, ok := s.sender.(*mail.Files); ok {
		if err := files.MakeFolder(); err != nil {
			return &usageError{"--data", err}
		}
	}
	return nil
}

func (s *kwaiServer) makeRules(ctx context.Context) error {
	s.warn()
	s.passwords = password.NewPool(password.Options{
		Params: s.hashing(), Workers: s.HashWorkers, MaxWait: s.HashWait, Processes: true, Log: s.log,
	})
	s.closers = append(s.closers, func() error { s.passwords.Close(); return nil })
	s.rules = &auth.Service{Store: s.db, Passwords: s.passwords, Keys: s.keys, Settings: s.Settings.rules(), Log: s.log, Name: s.name}
	s.rules.Settings.Issuer = s.publicURL.String()
	return errors.Join(s.rules.RefreshCosts(ctx), s.warnOfPasskeys(ctx))
}

// warnOfPasskeys warns of passkeys that are for another host: browsers show them there
// alone.
func (s *kwaiServer) warnOfPasskeys(ctx context.Context) error {
	elsewhere, err := s.rules.PasskeysElsewhere(ctx)
	if elsewhere > 0 {
		s.log.Warn("there are passkeys for another host than the public URL's: their users can't log in by them here", "passkeys", elsewhere, "public_url", s.publicURL.String())
	}
	return err
}

// warn warns of settings that are seldom meant.
func (s *kwaiServer) warn() {
	if files, ok := s.sender.(*mail.Files); ok {
		s.log.Warn("no mail server is set (--smtp): mails are written to files", "folder", files.Folder())
	}
	if s.SMTP != "" && s.PublicURL == "" {
		s.log.Warn("no public URL is set (--public-url): links in mails lead to this machine only", "public_url", s.publicURL.String())
	}
	if s.SMTP != "" && s.MailFrom == "" && s.PublicURL != "" && mailDomain(s.publicURL.Hostname()) == noDomain {
		s.log.Warn("the public URL has no domain for a sender, and none is set (--mail-from): mail servers may refuse mails", "sender", "noreply@"+noDomain)
	}
	warnOfFolder(s.log, s.Data)
	if s.Limits == "off" {
		s.log.Warn("--limits is off: nothing is throttled")
	}
}

// makeBuses makes what delivers events: to users by mail, and to other programs.
func (s *kwaiServer) makeBuses(ctx context.Context) error {
	mails := &mail.Subscriber{
		Rules:  s.rules,
		Writer: s.mailWriter(),
		Sender: s.sender,
		Log:    s.log,
	}
	register(s.registry, mails)
	s.buses = map[string]*bus.Bus{auth.SubscriberMail: bus.New(s.db, mails, s.log)}
	s.buses[auth.SubscriberMail].AtOnce = s.SMTPConnections
	s.db.Published = func(subscriber string) {
		if b := s.buses[subscriber]; b != nil { // another server may serve it
			b.Wake()
		}
	}
	if s.publisher != nil {
		if err := s.startPublishing(ctx); err != nil {
			return err
		}
	}
	for _, b := range s.buses {
		b.SetOwner(s.name)
		register(s.registry, b)
	}
	return errors.Join(s.rules.RefreshSubscribers(ctx), s.warnOfUnserved(ctx))
}

// startPublishing connects to the publisher and has events kept for it from now on.
func (s *kwaiServer) startPublishing(ctx context.Context) error {
	s.closers = append(s.closers, func() error { s.publisher.Close(); return nil })
	b := bus.NewOrdered(s.db, s.publisher, s.BusKeep, s.log)
	s.buses[s.publisher.Name()] = b
	if err := s.publisher.Connect(ctx, b.Wake); err != nil {
		return &usageError{"--bus", err}
	}
	if err := b.Register(ctx); err != nil {
		return err
	}
	s.log.Info("publishing events", "servers", s.publisher.Servers(), "stream", s.publisher.Stream())
	return nil
}

// warnOfUnserved warns of events that are kept for a subscriber that this server
// doesn't serve: perhaps another one does, perhaps a setting was forgotten.
func (s *kwaiServer) warnOfUnserved(ctx context.Context) error {
	found, err := s.db.Read(ctx).Subscribers()
	for _, f := range found {
		if s.buses[f.Name] == nil && !f.SeenAt.IsZero() {
			s.log.Warn("events are kept for a subscriber whom this server does not tell (--bus)", "subscriber", f.Name, "seen", f.SeenAt, "keep", s.BusKeep)
		}
	}
	return err
}

// makeSite makes what answers requests.
func (s *kwaiServer) makeSite(ctx context.Context) error {
	s.site = &web.Server{Rules: s.rules, PublicURL: s.publicURL, SiteURL: s.SiteURL, Brand: s.brand, SelfDelete: s.SelfDelete == "on", Language: i18n.Lookup(s.Language), CORSOrigins: s.CORSOrigins, Proxies: s.proxies, Log: s.log}
	if s.dev {
		s.site.DevMail, _ = s.sender.(*mail.Files)
		s.site.Loopback = true
	}
	handler, err := s.site.Handler()
	if err != nil {
		return &usageError{"--public-url", err}
	}
	if s.dev {
		if err := startDev(ctx, s.Settings, s.rules, s.console); err != nil {
			return err
		}
	}
	s.listener = s.site.Refusals(s.listener)
	if s.certificate != nil {
		s.listener = tls.NewListener(s.listener, s.certificate.config())
		register(s.registry, s.certificate)
		// Browsers would keep to it for all that is served on this machine.
		if !loopback.Is(s.publicURL.Hostname()) {
			handler = hsts(handler)
		}
	}
	clients := limitConnections(s.listener, s.MaxConnections, s.log)
	s.listener = clients
	s.http = newServer(handler, s.IdleTimeout, s.log)
	s.http.ConnState = clients.track
	if s.onSQLite() {
		s.registry.MustRegister(offline.BackupMetric(s.Database))
	}
	register(s.registry, s.masterKey, s.db, s.passwords, s.rules, s.site, clients)
	return nil
}

// tasks are what goes on in the background, until after the last request: all of
// it, but for what belongs to one connection (to NATS) or one delivery (its lease).
func (s *kwaiServer) tasks() []task {
	const second, minute = time.Second, time.Minute
	all := []task{
		{every: auth.KeysEvery, do: s.keys.Tend},
		{every: auth.RecoveriesEvery, name: "recoveries", try: s.rules.TakeAllRecoveries},
		{every: second, name: "subscribers", try: s.rules.RefreshSubscribers},
		{every: minute, name: "costs", try: s.rules.RefreshCosts},
		{every: auth.AppsEvery, name: "tiles", try: s.rules.RefreshTiles},
		{every: minute, name: "abandoned events", try: s.dropAbandoned},
		{every: second, do: s.db.TryWriting},
		{every: masterKeyEvery, do: s.masterKey.reload},
		{every: second, do: s.rules.Purge}, // each hour, by one of the servers
	}
	logouts := &auth.LogoutSender{Rules: s.rules, Keep: s.LogoutKeep}
	all = append(all, task{every: second, name: "logouts", try: logouts.Send})
	if s.certificate != nil {
		all = append(all, task{every: certificateEvery, do: s.certificate.reload})
	}
	for _, b := range s.buses {
		all = append(all, task{do: b.Run}) // each second, and when there is an event
	}
	return all
}

func (s *kwaiServer) dropAbandoned(ctx context.Context) error {
	return bus.DropAbandoned(ctx, s.db, s.BusKeep, s.log)
}

// task is something that is done now and then.
type task struct {
	every time.Duration // 0: do returns when its context ends; it decides on its own times
	// One of the two: do logs by itself what fails.
	do   func(context.Context)
	try  func(context.Context) error
	name string // of try, in the log
}

// run does it until ctx ends, for the first time at once.
func (t task) run(ctx context.Context, log *slog.Logger) {
	if t.every == 0 {
		t.do(ctx)
		return
	}
	tick := time.NewTicker(t.every)
	defer tick.Stop()
	var failing database.Recurring
	for {
		if t.do != nil {
			t.do(ctx)
		} else if err := t.try(ctx); ctx.Err() == nil && failing.Log(err) {
			log.Warn("a task in the background failed; it is tried again", "task", t.name, "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// run serves until ctx ends, and then ends in order.
func (s *kwaiServer) run(ctx context.Context) error {
	defer s.rules.StopPurging(context.WithoutCancel(ctx)) // last, when nothing works any more
	var background sync.WaitGroup
	working, stopWorking := context.WithCancel(context.WithoutCancel(ctx))
	defer background.Wait()
	defer stopWorking()
	for _, t := range s.tasks() {
		background.Go(func() { t.run(working, s.log) })
	}
	failed := make(chan error, 1)
	go func() { failed <- s.http.Serve(s.listener) }()
	s.log.Info("serving", "address", s.listener.Addr().String(), "public_url", s.publicURL.String(), "version", version(), "server", s.name)
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	s.site.Drain()
	if s.DrainDelay > 0 {
		s.log.Info("draining: /readyz says so, and requests are answered as before", "for", s.DrainDelay)
		select {
		case err := <-failed:
			return err
		case <-time.After(s.DrainDelay):
		}
	}
	s.log.Info("stopping: requests under way are answered, mail that waits is sent")
	s.shutDown(ctx)
	stopWorking()
	background.Wait()
	s.flush(ctx)
	s.log.Info("stopped")
	return nil
}

// shutDown answers the requests that are under way.
func (s *kwaiServer) shutDown(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTimeout)
	defer cancel()
	if err := s.http.Shutdown(ctx); err != nil {
		s.log.Warn("some requests were cut off", "error", errors.Join(err, s.http.Close()))
	}
}

// flush delivers the events that wait, as far as there is time.
func (s *kwaiServer) flush(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), flushTimeout)
	defer cancel()
	for {
		if taken, err := s.rules.TakeRecoveries(ctx); err != nil || taken == 0 {
			break // what is left is kept for the next start
		}
	}
	for _, b := range s.buses {
		b.Flush(ctx)
		b.Release(ctx)
	}
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
