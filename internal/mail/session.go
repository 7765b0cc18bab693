package mail

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/textproto"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/wneessen/go-mail/smtp"
)

// The steps of a delivery, as errors name them.
const (
	stepConnect  = "connecting"
	stepGreeting = "the greeting"
	stepHello    = "EHLO"
	stepTLS      = "STARTTLS"
	stepLogin    = "the login"
	stepFrom     = "MAIL FROM"
	stepTo       = "RCPT TO"
	stepData     = "DATA"
	stepContent  = "the message"
	stepOpen     = "the test message"
)

// deliver speaks SMTP on conn. A message that was accepted is sent, whatever goes
// wrong with QUIT.
func (s *SMTP) deliver(ctx context.Context, conn net.Conn, l *envelope) (answer string, err error) {
	c, err := newClient(conn)
	if err != nil {
		return "", s.failed(ctx, stepGreeting, err)
	}
	defer func() { // politeness; its outcome changes nothing
		_ = conn.SetDeadline(time.Now().Add(quitTimeout))
		_, _, _ = c.command(221, "QUIT")
	}()
	if err := c.hello(s.domain); err != nil {
		return "", s.failed(ctx, stepHello, err)
	}
	if err := s.startTLS(ctx, c); err != nil {
		return "", err
	}
	if err := s.login(ctx, c); err != nil {
		return "", err
	}
	if l.needsUTF8 && !c.offers("SMTPUTF8") {
		return "", permanent(fmt.Sprintf("SMTP server %s can't deliver to an address with letters beyond ASCII before the @ (no SMTPUTF8)", s))
	}
	answer, step, err := c.send(l)
	if err != nil && step == stepContent && l.open {
		step = stepOpen
	}
	if err != nil {
		return "", s.failed(ctx, step, err)
	}
	return answer, nil
}

func (s *SMTP) startTLS(ctx context.Context, c *client) error {
	offered := c.offers("STARTTLS")
	switch {
	case c.tls:
	case offered:
		if err := c.startTLS(s.tlsConfig(), s.domain); err != nil {
			return s.failed(ctx, stepTLS, err)
		}
	case s.security == required:
		return &failure{what: fmt.Sprintf("SMTP server %s offers no STARTTLS, and reset links are not sent in the clear: use smtps:// if it has a port for that, or smtp+insecure:// on a network you trust", s)}
	}
	return nil
}

// login authenticates if there is a user. Over TLS the most common mechanisms come
// first; in the clear (loopback, smtp+insecure) the ones that don't show the password.
func (s *SMTP) login(ctx context.Context, c *client) error {
	if s.user == "" {
		return nil
	}
	methods := []struct {
		name string
		auth smtp.Auth
	}{
		{"PLAIN", smtp.PlainAuth("", s.user, s.password, s.host, true)},
		{"LOGIN", smtp.LoginAuth(s.user, s.password, s.host, true)},
		{"CRAM-MD5", smtp.CRAMMD5Auth(s.user, s.password)},
		{"SCRAM-SHA-256", smtp.ScramSHA256Auth(s.user, s.password)},
	}
	if !c.tls {
		slices.Reverse(methods)
	}
	offered := strings.Fields(c.extensions["AUTH"])
	for _, m := range methods {
		if slices.Contains(offered, m.name) {
			if err := c.auth(m.auth, s.host, offered); err != nil {
				return s.failed(ctx, stepLogin, err)
			}
			return nil
		}
	}
	return &failure{what: fmt.Sprintf("SMTP server %s offers no login that kwai knows (PLAIN, LOGIN, CRAM-MD5, SCRAM-SHA-256): leave user and password out, or try another port", s)}
}

var (
	enhancedCode = regexp.MustCompile(`^[245]\.\d{1,3}\.\d{1,3}\b`)
	// The codes about the recipient (RFC 3463, 3.2); 7 and 8 are about the sender.
	ofMailbox = regexp.MustCompile(`^5\.1\.([0-69]|\d\d+)$`)
	// The codes of a mailbox that takes nothing for now: closed, full (RFC 3463, 3.3).
	// Other codes of that class are about the sender, or say "later" for another reason.
	mailboxStatus = regexp.MustCompile(`^[45]\.2\.[12]$`)
)

// noMailbox reports whether a refusal at a step is about the recipient's address, and
// so will be repeated. Other refusals can end: a quota, a rule, a corrected sender or
// setting. A refusal at RCPT TO without such a code is about the recipient.
func noMailbox(step string, reply *textproto.Error) bool {
	if reply.Code/100 != 5 || step != stepTo && step != stepData && step != stepContent {
		return false
	}
	code := enhancedCode.FindString(reply.Msg)
	return code == "" && step == stepTo || ofMailbox.MatchString(code)
}

// failed describes what went wrong at a step. A server that has seen the password or
// the message may quote them (filters quote the link that they object to); of its
// answer only the codes are kept then.
func (s *SMTP) failed(ctx context.Context, step string, err error) error {
	f := &failure{}
	mayQuote := step == stepLogin || step == stepContent
	var reply *textproto.Error
	var netErr net.Error
	var certErr *tls.CertificateVerificationError
	var text string
	switch {
	case ctx.Err() != nil:
		f.cause = ctx.Err()
		text = "no answer in time, or given up: " + ctx.Err().Error()
		if step == stepGreeting && s.security != implicit && errors.Is(ctx.Err(), context.DeadlineExceeded) { // each waits for the other
			text += "; if TLS comes first there (port 465), write smtps://"
		}
	case s.security == implicit && errors.As(err, new(tls.RecordHeaderError)):
		text = "no TLS comes first there: write smtp://, which takes it by STARTTLS"
	case errors.As(err, &reply) && mayQuote:
		text = fmt.Sprintf("refused with %d %s", reply.Code, enhancedCode.FindString(reply.Msg))
	case errors.As(err, &reply):
		text = fmt.Sprintf("refused with %d %s", reply.Code, reply.Msg)
	case errors.As(err, &certErr):
		text = fmt.Sprintf("its certificate is not valid for %s (%v); SSL_CERT_FILE can name a further authority", s.host, certErr.Err)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		text = "it hung up"
	case mayQuote && !errors.As(err, &netErr):
		text = "its answer can't be understood"
	default:
		text = err.Error()
	}
	if reply != nil {
		f.reply, f.permanent = reply.Code, noMailbox(step, reply)
		f.full = (step == stepTo || step == stepData || step == stepContent) && mailboxStatus.MatchString(enhancedCode.FindString(reply.Msg))
	}
	f.what = fmt.Sprintf("SMTP server %s, %s: %s", s, step, line(text, 300))
	return f
}
