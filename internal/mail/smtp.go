package mail

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"time"

	"kwai/internal/loopback"

	gomail "github.com/wneessen/go-mail"
)

// Limits of one Send.
const (
	dialTimeout = 5 * time.Second
	sendTimeout = 20 * time.Second
	quitTimeout = time.Second
	maxReplies  = 1 << 20 // bytes read from the server, certificates included
)

// security is how a connection gets its TLS.
type security int

const (
	opportunistic security = iota // TLS if offered; certificates prove nothing where plain would do
	required                      // STARTTLS or nothing
	implicit                      // TLS from the first byte
)

// SMTP sends each message over a connection of its own.
type SMTP struct {
	identity
	host, port     string
	user, password string
	security       security
	roots          *x509.CertPool // nil: the system's
	dial           func(ctx context.Context, network, addr string) (net.Conn, error)
}

// NewSMTP returns a sender for the server named by rawURL:
//
//	smtp://[user:password@]host[:port]            STARTTLS with a checked certificate; on loopback only if offered
//	smtps://[user:password@]host[:port]           TLS from the start, certificate checked
//	smtp+insecure://[user:password@]host[:port]   STARTTLS if offered, else plain, the password too
//
// Ports not given: 465 for smtps, 587 (submission) with a user, else 25.
// Special characters in user and password are percent-encoded. Errors say what
// is wrong with the setting and quote nothing of it. Nothing is dialled yet.
func NewSMTP(rawURL string, o Options) (*SMTP, error) {
	id, err := o.identity()
	if err != nil {
		return nil, err
	}
	u, err := url.Parse(rawURL)
	if err != nil { // the parser's error quotes the password
		return nil, badURL("it can't be read as smtp://user:password@host:port; percent-encode special characters in user and password")
	}
	s := &SMTP{identity: id, dial: (&net.Dialer{Timeout: dialTimeout}).DialContext}
	if err := s.setHost(u); err != nil {
		return nil, err
	}
	if err := s.setLogin(u); err != nil {
		return nil, err
	}
	return s, s.setPort(u)
}

func badURL(what string) error { return errors.New("mail: the SMTP setting is wrong: " + what) }

func (s *SMTP) setHost(u *url.URL) (err error) {
	switch {
	case u.Scheme != "smtp" && u.Scheme != "smtps" && u.Scheme != "smtp+insecure":
		return badURL("it must begin with smtp://, smtps:// or smtp+insecure://")
	case u.Opaque != "" || u.Hostname() == "":
		return badURL("it names no host; write smtp://host:port")
	case u.Path != "" && u.Path != "/", u.RawQuery != "", u.ForceQuery, u.Fragment != "":
		return badURL("nothing may follow host and port; percent-encode / ? # in user and password")
	}
	s.host = u.Hostname()
	if _, notIP := netip.ParseAddr(s.host); notIP != nil {
		if s.host, err = wireDomain(s.host); err != nil {
			return badURL("its host is neither a domain name nor an IP address")
		}
	}
	switch {
	case u.Scheme == "smtps":
		s.security = implicit
	case u.Scheme == "smtp" && !loopback.Is(s.host):
		s.security = required
	}
	return nil
}

func (s *SMTP) setLogin(u *url.URL) error {
	if u.User == nil {
		return nil
	}
	s.user = u.User.Username()
	s.password, _ = u.User.Password()
	if s.user == "" || s.password == "" {
		return badURL("user and password go together: smtp://user:password@host:port")
	}
	return nil
}

func (s *SMTP) setPort(u *url.URL) error {
	switch s.port = u.Port(); {
	case s.port != "":
		if n, err := strconv.ParseUint(s.port, 10, 16); err != nil || n == 0 {
			return badURL("its port is not a number from 1 to 65535")
		}
	case s.security == implicit:
		s.port = "465"
	case s.user != "":
		s.port = "587"
	default:
		s.port = "25"
	}
	return nil
}

// String returns host and port, without the login: fit for logs.
func (s *SMTP) String() string { return net.JoinHostPort(s.host, s.port) }

// Send hands m to the server, within 20 s, 5 of them to connect.
func (s *SMTP) Send(ctx context.Context, m Message) error {
	_, err := s.send(ctx, m, false)
	return err
}

// Try sends a message that holds no secret, and returns the server's answer; an
// error, too, has all of it.
func (s *SMTP) Try(ctx context.Context, m Message) (answer string, err error) {
	return s.send(ctx, m, true)
}

func (s *SMTP) send(ctx context.Context, m Message, open bool) (answer string, err error) {
	l, err := s.envelope(m, gomail.EncodingQP)
	if err != nil {
		return "", err
	}
	l.open = open
	ctx, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	socket, err := s.dial(ctx, "tcp", s.String())
	if err != nil {
		return "", s.failed(ctx, stepConnect, err)
	}
	defer socket.Close()
	// The protocol client knows no contexts: closing the socket is what ends it.
	defer context.AfterFunc(ctx, func() { socket.Close() })()
	var conn net.Conn = &boundedConn{socket, maxReplies}
	if s.security == implicit {
		conn = tls.Client(conn, s.tlsConfig())
	}
	return s.deliver(ctx, conn, l)
}

func (s *SMTP) tlsConfig() *tls.Config {
	return &tls.Config{
		ServerName: s.host,
		MinVersion: tls.VersionTLS12,
		RootCAs:    s.roots,
		// Where plain text would do, a certificate from nobody is still better.
		InsecureSkipVerify: s.security == opportunistic, //nolint:gosec // only where plain text is allowed
	}
}

// boundedConn bounds what a server can make us read: the library's lines are
// as long as the server likes.
type boundedConn struct {
	net.Conn
	left int
}

func (c *boundedConn) Read(p []byte) (int, error) {
	if c.left <= 0 {
		return 0, errors.New("the server sends too much")
	}
	n, err := c.Conn.Read(p)
	c.left -= n
	return n, err
}
