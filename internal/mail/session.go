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
)

// deliver speaks SMTP on conn. It uses the library's protocol client instead of
// its ready-made sender, which leaves connections open when EHLO, STARTTLS or
// AUTH fail, forgets the context once connected, and calls a message failed
// that was accepted when only QUIT went wrong.
func (s *SMTP) deliver(ctx context.Context, conn net.Conn, l *letter) error {
	c, err := smtp.NewClient(conn, s.host)
	if err != nil {
		return s.failed(ctx, stepGreeting, err)
	}
	defer func() { // politeness; its outcome changes nothing
		_ = conn.SetDeadline(time.Now().Add(quitTimeout))
		_ = c.Quit()
	}()
	if err := c.Hello(s.domain); err != nil {
		return s.failed(ctx, stepHello, err)
	}
	if err := s.startTLS(ctx, c); err != nil {
		return err
	}
	if err := s.login(ctx, c); err != nil {
		return err
	}
	if ok, _ := c.Extension("SMTPUTF8"); l.needsUTF8 && !ok {
		return hopeless(fmt.Sprintf("SMTP server %s can't deliver to an address with letters beyond ASCII before the @ (no SMTPUTF8)", s))
	}
	// Asked for without need, a next hop without it would bounce the message.
	c.SkipSMTPUTF8(!l.needsUTF8)
	if err := c.Mail(l.from); err != nil {
		return s.failed(ctx, stepFrom, err)
	}
	if err := c.Rcpt(l.to); err != nil {
		return s.failed(ctx, stepTo, err)
	}
	w, err := c.Data()
	if err != nil {
		return s.failed(ctx, stepData, err)
	}
	if _, err = w.Write(l.data); err == nil { // Close sends the final dot: never after half a message
		err = w.Close()
	}
	if err != nil {
		return s.failed(ctx, stepContent, err)
	}
	return nil
}

func (s *SMTP) startTLS(ctx context.Context, c *smtp.Client) error {
	if s.security == implicit {
		return nil
	}
	offered, _ := c.Extension("STARTTLS")
	if !offered && s.security == required {
		return &failure{what: fmt.Sprintf("SMTP server %s offers no STARTTLS, and reset links are not sent in the clear: use smtps:// if it has a port for that, or smtp+insecure:// on a network you trust", s)}
	}
	if !offered {
		return nil
	}
	if err := c.StartTLS(s.tlsConfig()); err != nil {
		return s.failed(ctx, stepTLS, err)
	}
	return nil
}

// login authenticates if there is a user. Over TLS the mechanisms that every
// server does well come first; in the clear (loopback, smtp+insecure) those
// that don't show the password.
func (s *SMTP) login(ctx context.Context, c *smtp.Client) error {
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
	if _, err := c.GetTLSConnectionState(); err != nil {
		slices.Reverse(methods)
	}
	_, param := c.Extension("AUTH")
	offered := strings.Fields(param)
	for _, m := range methods {
		if slices.Contains(offered, m.name) {
			if err := c.Auth(m.auth); err != nil {
				return s.failed(ctx, stepLogin, err)
			}
			return nil
		}
	}
	return &failure{what: fmt.Sprintf("SMTP server %s offers no login that kwai knows (PLAIN, LOGIN, CRAM-MD5, SCRAM-SHA-256): leave user and password out, or try another port", s)}
}

var enhancedCode = regexp.MustCompile(`^[245]\.\d{1,3}\.\d{1,3}\b`)

// failed describes what went wrong at a step. What a server says after it has
// seen the password or the message may quote them (filters like to quote the
// link they object to); of that only the codes are kept.
func (s *SMTP) failed(ctx context.Context, step string, err error) error {
	f := &failure{}
	told := step == stepLogin || step == stepContent
	var reply *textproto.Error
	var netErr net.Error
	var certErr *tls.CertificateVerificationError
	var text string
	switch {
	case ctx.Err() != nil:
		f.cause = ctx.Err()
		text = "no answer in time, or given up: " + ctx.Err().Error()
	case errors.As(err, &reply) && told:
		text = fmt.Sprintf("refused with %d %s", reply.Code, enhancedCode.FindString(reply.Msg))
	case errors.As(err, &reply):
		text = fmt.Sprintf("refused with %d %s", reply.Code, reply.Msg)
	case errors.As(err, &certErr):
		text = fmt.Sprintf("its certificate is not valid for %s (%v); SSL_CERT_FILE can name a further authority", s.host, certErr.Err)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		text = "it hung up"
	case told && !errors.As(err, &netErr):
		text = "its answer can't be understood"
	default:
		text = err.Error()
	}
	f.permanent = reply != nil && reply.Code/100 == 5 && (step == stepTo || step == stepData || step == stepContent)
	f.what = fmt.Sprintf("SMTP server %s, %s: %s", s, step, line(text, 300))
	return f
}
