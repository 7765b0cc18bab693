package mailtest

import (
	"bytes"
	"errors"
	"io"
	"regexp"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"

	"kwai/internal/mail"
)

// Mail is one received mail.
type Mail struct {
	// From and To are the envelope's addresses, as the client wrote them.
	From, To string
	// Helo is the name that the client gave itself.
	Helo string
	// TLS is set if the mail came over TLS, UTF8 if the client asked
	// for SMTPUTF8.
	TLS, UTF8 bool
	// Raw is the message as it came over the wire, without dot-stuffing.
	Raw []byte
	// Text and HTML are the decoded parts, with plain newlines.
	Subject, Text, HTML string
}

var recoveryLink = regexp.MustCompile(`(?m)^https?://\S+/reset\?uuid=([0-9a-f-]{36})$`)

// RecoveryLink is the link to choose a password, from the text part; empty in a
// mail that has none.
func (m Mail) RecoveryLink() string { return recoveryLink.FindString(m.Text) }

// RecoveryID is the unique id in that link.
func (m Mail) RecoveryID() string {
	if found := recoveryLink.FindStringSubmatch(m.Text); found != nil {
		return found[1]
	}
	return ""
}

// session is one client's connection.
type session struct {
	server   *Server
	conn     *smtp.Conn
	loggedIn bool
	mail     Mail
}

func (s *session) AuthMechanisms() []string {
	if s.server.user == "" {
		return nil
	}
	return []string{sasl.Plain}
}

func (s *session) Auth(string) (sasl.Server, error) {
	return sasl.NewPlainServer(func(_, user, password string) error {
		if user != s.server.user || password != s.server.password {
			// Some servers quote the client's text.
			return &smtp.SMTPError{Code: 535, EnhancedCode: smtp.EnhancedCode{5, 7, 8}, Message: "no user " + user + " with password " + password}
		}
		s.loggedIn = true
		s.server.mu.Lock()
		s.server.logins++
		s.server.mu.Unlock()
		return nil
	}), nil
}

func (s *session) Mail(from string, opts *smtp.MailOptions) error {
	if s.server.user != "" && !s.loggedIn {
		return &smtp.SMTPError{Code: 530, EnhancedCode: smtp.EnhancedCode{5, 7, 0}, Message: "log in first"}
	}
	_, overTLS := s.conn.TLSConnectionState()
	s.mail = Mail{From: from, Helo: s.conn.Hostname(), TLS: overTLS, UTF8: opts.UTF8}
	return s.server.answer(MailFrom, s.conn)
}

func (s *session) Rcpt(to string, _ *smtp.RcptOptions) error {
	if s.mail.To != "" {
		return errors.New("kwai sends each mail to one recipient")
	}
	s.mail.To = to
	return s.server.answer(RcptTo, s.conn)
}

func (s *session) Data(r io.Reader) error {
	if s.server.hangsUp(Content) {
		_, _ = io.ReadFull(r, make([]byte, 64))
		return s.server.answer(Content, s.conn)
	}
	raw, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	if err := s.server.answer(Content, s.conn); err != nil {
		return err
	}
	parsed, err := mail.Parse(bytes.NewReader(raw))
	if err != nil {
		return &smtp.SMTPError{Code: 554, EnhancedCode: smtp.EnhancedCode{5, 6, 0}, Message: err.Error()}
	}
	s.mail.Raw, s.mail.Subject, s.mail.Text, s.mail.HTML = raw, parsed.Subject, parsed.Text, parsed.HTML
	s.server.keep(s.mail)
	return s.server.answer(Taken, s.conn)
}

func (s *session) Reset()        { s.mail = Mail{} }
func (s *session) Logout() error { return nil }

func (s *Server) hangsUp(step Step) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.refuse[step].code == HangUp
}
