// Package mailtest is a real SMTP server for tests. It listens on a loopback port,
// keeps the mails that it gets, and fails in the ways in which mail servers fail
// ([Server.RefuseAt], [HangUp], [Server.Stop]).
//
//	s := mailtest.Serve(t)
//	// … start kwai with --smtp s.URL(), ask for a recovery …
//	mails, err := s.Wait(ctx, 1)
//	link := mails[0].RecoveryLink()
package mailtest

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/emersion/go-smtp"
)

// Step is a command of SMTP at which the server can refuse.
type Step string

// The steps. Content is the answer to the message itself, after DATA. Taken is
// the same when the server has kept the message: with HangUp its answer is lost.
const (
	MailFrom Step = "MAIL FROM"
	RcptTo   Step = "RCPT TO"
	Content  Step = "content"
	Taken    Step = "taken"
)

// HangUp instead of a code makes the server close the connection at a step; at
// Content, in the middle of the message.
const HangUp = -1

// Option changes what the server offers. Without any: plain text, no login, no
// SMTPUTF8.
type Option func(*Server)

// StartTLS makes the server offer STARTTLS with the certificate of config.
func StartTLS(config *tls.Config) Option { return func(s *Server) { s.startTLS = config } }

// ImplicitTLS makes the server speak TLS from the first byte.
func ImplicitTLS(config *tls.Config) Option { return func(s *Server) { s.implicitTLS = config } }

// Login makes the server demand this user and password, by AUTH PLAIN, and
// offer that without TLS, too: the client must refuse that.
func Login(user, password string) Option {
	return func(s *Server) { s.user, s.password = user, password }
}

// UTF8 makes the server offer SMTPUTF8.
func UTF8() Option { return func(s *Server) { s.utf8 = true } }

// Server is the running server; safe for concurrent use.
type Server struct {
	tb                    testing.TB
	startTLS, implicitTLS *tls.Config
	user, password        string
	utf8                  bool

	mu       sync.Mutex
	addr     string
	running  *smtp.Server
	listener net.Listener
	stopped  chan struct{} // closed when running has ended
	refuse   map[Step]refusal
	mails    []Mail
	arrived  chan struct{} // closed and made anew with each mail
	logins   int
}

type refusal struct {
	code int
	text string
}

// Serve starts a server that ends with the test.
func Serve(tb testing.TB, options ...Option) *Server {
	tb.Helper()
	s := &Server{tb: tb, addr: "127.0.0.1:0", refuse: map[Step]refusal{}, arrived: make(chan struct{})}
	for _, o := range options {
		o(s)
	}
	s.Restart()
	tb.Cleanup(s.Stop)
	return s
}

// Addr is the host and port, the same after a restart.
func (s *Server) Addr() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.addr
}

// URL is the server as kwai's setting --smtp, without login.
func (s *Server) URL() string {
	if s.implicitTLS != nil {
		return "smtps://" + s.Addr()
	}
	return "smtp://" + s.Addr()
}

// Listen listens on a server's address after a Stop. If a connection of another test has
// got the port meanwhile, it waits until that has ended.
func Listen(tb testing.TB, address string) net.Listener {
	tb.Helper()
	for {
		l, err := new(net.ListenConfig).Listen(tb.Context(), "tcp", address)
		switch {
		case err == nil:
			return l
		case !errors.Is(err, syscall.EADDRINUSE):
			tb.Fatalf("mailtest: listen: %v", err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// Restart starts the server again on the same port after a Stop. Its refusals and its
// mails stay.
func (s *Server) Restart() {
	s.tb.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running != nil {
		return
	}
	l := Listen(s.tb, s.addr)
	s.addr = l.Addr().String()
	if s.implicitTLS != nil {
		l = tls.NewListener(l, s.implicitTLS)
	}
	server := smtp.NewServer(smtp.BackendFunc(func(c *smtp.Conn) (smtp.Session, error) {
		return &session{server: s, conn: c}, nil
	}))
	server.Domain = "mail.test"
	server.TLSConfig = s.startTLS
	server.EnableSMTPUTF8 = s.utf8
	server.AllowInsecureAuth = true
	server.MaxMessageBytes = 1 << 20
	server.ErrorLog = log.New(io.Discard, "", 0)
	stopped := make(chan struct{})
	s.running, s.listener, s.stopped = server, l, stopped
	go func() {
		defer close(stopped)
		_ = server.Serve(l)
	}()
}

// Stop ends the server and its connections; new connections are refused.
func (s *Server) Stop() {
	s.mu.Lock()
	server, listener, stopped := s.running, s.listener, s.stopped
	s.running = nil
	s.mu.Unlock()
	if server == nil {
		return
	}
	_ = server.Close()
	_ = listener.Close() // Close misses it if Serve has not begun yet
	<-stopped
}

// Refuse makes the server answer each RCPT TO with code; 0 takes that back.
func (s *Server) Refuse(code int) { s.RefuseAt(RcptTo, code, "refused by the test") }

// RefuseAt makes the server answer a step with code and text; 0 takes that back.
// The code may be [HangUp]. The text may begin with an enhanced code; "- " is for
// none.
func (s *Server) RefuseAt(step Step, code int, text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refuse[step] = refusal{code, text}
}

// Mails returns the mails received so far, the oldest first.
func (s *Server) Mails() []Mail {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.mails)
}

// Logins is the number of successful AUTH commands so far.
func (s *Server) Logins() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.logins
}

// Wait returns the mails as soon as there are n, or an error when ctx ends.
func (s *Server) Wait(ctx context.Context, n int) ([]Mail, error) {
	for {
		s.mu.Lock()
		mails, arrived := slices.Clone(s.mails), s.arrived
		s.mu.Unlock()
		if len(mails) >= n {
			return mails, nil
		}
		select {
		case <-arrived:
		case <-ctx.Done():
			return mails, fmt.Errorf("mailtest: %d of %d mails came: %w", len(mails), n, ctx.Err())
		}
	}
}

func (s *Server) keep(m Mail) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mails = append(s.mails, m)
	close(s.arrived)
	s.arrived = make(chan struct{})
}

// answer is what the server is to answer at a step.
func (s *Server) answer(step Step, c *smtp.Conn) error {
	s.mu.Lock()
	r := s.refuse[step]
	s.mu.Unlock()
	switch r.code {
	case 0:
		return nil
	case HangUp:
		_ = c.Conn().Close()
		return io.ErrUnexpectedEOF
	}
	refused := &smtp.SMTPError{Code: r.code, EnhancedCode: smtp.EnhancedCode{r.code / 100, 7, 1}, Message: strings.TrimSpace(r.text)}
	var class, subject, detail int
	if n, _ := fmt.Sscanf(r.text, "%d.%d.%d", &class, &subject, &detail); n == 3 {
		_, refused.Message, _ = strings.Cut(refused.Message, " ")
		refused.EnhancedCode = smtp.EnhancedCode{class, subject, detail}
	}
	if text, without := strings.CutPrefix(r.text, "- "); without {
		refused.EnhancedCode, refused.Message = smtp.NoEnhancedCode, text
	}
	return refused
}
