package bus

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"regexp"
	"strconv"
	"strings"

	"kwai/internal/loopback"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"
	"golang.org/x/net/idna"
)

// natsSetting is a parsed nats:// URL.
type natsSetting struct {
	servers []string // without secrets
	tls     bool
	remote  bool // one of the servers is on another machine

	user, password, token string
	credentials           string // file
	ca                    string // file
	cert, key             string // files
	handshakeFirst        bool
	stream                string
	replicas              int
	maxBytes              int64 // of a stream that is made; 0: no bound
}

const (
	defaultStream = "KWAI"
	maxReplicas   = 5 // JetStream's
	minMaxBytes   = 1 << 20
	natsPort      = "4222"
)

var streamName = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)

// Errors that quote nothing of the URL: any part of it may belong to a password
// without its percent-encoding.
var (
	errNATSURL = errors.New("it must be nats://[USER:PASSWORD@ or TOKEN@]HOST:PORT, or tls://…, with more hosts after commas; percent-encode what is special in a password or token")
	errParam   = errors.New("it has a parameter that is not known, empty or given twice; there are credentials, ca, cert, key, handshake_first, stream, replicas and max_bytes; percent-encode what is special in a password or token")
)

func parseNATS(setting string) (*natsSetting, error) {
	s := &natsSetting{stream: defaultStream, replicas: 1}
	address, query, _ := strings.Cut(setting, "?")
	scheme, rest, ok := strings.Cut(address, "://")
	if !ok || scheme != "nats" && scheme != "tls" {
		return nil, errNATSURL
	}
	s.tls = scheme == "tls"
	for i, host := range strings.Split(rest, ",") {
		if err := s.addServer(scheme, strings.TrimPrefix(host, scheme+"://"), i == 0); err != nil {
			return nil, err
		}
	}
	if err := s.setParameters(query); err != nil {
		return nil, err
	}
	return s, s.checkFiles()
}

// addServer takes one of the hosts. The first may have the user and password.
func (s *natsSetting) addServer(scheme, host string, first bool) error {
	u, err := url.Parse(scheme + "://" + host)
	if err != nil || u.Hostname() == "" || u.Path != "" && u.Path != "/" || u.Fragment != "" || u.User != nil && !first {
		return errNATSURL
	}
	port := cmp.Or(u.Port(), natsPort)
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return errNATSURL
	}
	if u.User != nil {
		password, both := u.User.Password()
		if u.User.Username() == "" || both && password == "" {
			return errNATSURL
		}
		if both {
			s.user, s.password = u.User.Username(), password
		} else {
			s.token = u.User.Username()
		}
	}
	name := u.Hostname()
	if ascii, err := idna.Lookup.ToASCII(name); err == nil && !strings.EqualFold(ascii, name) {
		name = ascii // only this form can be looked up
	}
	s.servers = append(s.servers, scheme+"://"+net.JoinHostPort(name, port))
	if !loopback.Is(u.Hostname()) {
		s.remote = true
	}
	return nil
}

func (s *natsSetting) setParameters(query string) error {
	values, err := url.ParseQuery(query)
	if err != nil {
		return errParam
	}
	for name, value := range values {
		if len(value) != 1 || value[0] == "" {
			return errParam
		}
		if err := s.setParameter(name, value[0]); err != nil {
			return err
		}
	}
	if !streamName.MatchString(s.stream) {
		return errors.New("stream must be up to 64 letters, digits, - and _")
	}
	if (s.cert == "") != (s.key == "") {
		return errors.New("cert and key need each other")
	}
	if s.credentials != "" && (s.user != "" || s.token != "") {
		return errors.New("it must have either credentials, or a user and password, or a token")
	}
	s.tls = s.tls || s.ca != "" || s.cert != "" || s.handshakeFirst
	return nil
}

func (s *natsSetting) setParameter(name, value string) (err error) {
	texts := map[string]*string{"credentials": &s.credentials, "ca": &s.ca, "cert": &s.cert, "key": &s.key, "stream": &s.stream}
	if text := texts[name]; text != nil {
		*text = value
		return nil
	}
	switch name {
	case "handshake_first":
		if s.handshakeFirst = value == "true"; !s.handshakeFirst {
			return errors.New("handshake_first must be true, or left out")
		}
	case "max_bytes":
		if s.maxBytes, err = strconv.ParseInt(value, 10, 64); err != nil || s.maxBytes < minMaxBytes {
			return fmt.Errorf("max_bytes must be a number of bytes, %d at least", minMaxBytes)
		}
	case "replicas":
		if s.replicas, err = strconv.Atoi(value); err != nil || s.replicas < 1 || s.replicas > maxReplicas {
			return fmt.Errorf("replicas must be a number from 1 to %d", maxReplicas)
		}
	default:
		return errParam
	}
	return nil
}

// checkFiles reads the named files: a wrong one is better reported at the start
// than at the first connection.
func (s *natsSetting) checkFiles() error {
	if s.credentials != "" {
		text, err := os.ReadFile(s.credentials)
		if err != nil {
			return fmt.Errorf("credentials: %w", err)
		}
		// An error of nkeys may quote the file.
		_, err = nkeys.ParseDecoratedJWT(text)
		pair, err2 := nkeys.ParseDecoratedNKey(text)
		if err != nil || err2 != nil {
			return fmt.Errorf("credentials: %s is no NATS credentials file (.creds)", s.credentials)
		}
		pair.Wipe()
	}
	if s.ca != "" {
		text, err := os.ReadFile(s.ca)
		if err != nil {
			return fmt.Errorf("ca: %w", err)
		}
		if !x509.NewCertPool().AppendCertsFromPEM(text) {
			return fmt.Errorf("ca: %s has no certificate in PEM", s.ca)
		}
	}
	if s.cert != "" {
		if _, err := tls.LoadX509KeyPair(s.cert, s.key); err != nil {
			return fmt.Errorf("cert, key: %w", err)
		}
	}
	return nil
}

// login are the options for connecting. Files are read again for each
// connection, so that what expires can be replaced.
func (s *natsSetting) login() []nats.Option {
	var options []nats.Option
	switch {
	case s.credentials != "":
		options = append(options, nats.UserCredentials(s.credentials))
	case s.token != "":
		options = append(options, nats.Token(s.token))
	case s.user != "":
		options = append(options, nats.UserInfo(s.user, s.password))
	}
	if s.tls {
		options = append(options, nats.Secure(&tls.Config{MinVersion: tls.VersionTLS12}))
	}
	if s.handshakeFirst {
		options = append(options, nats.TLSHandshakeFirst())
	}
	if s.ca != "" {
		options = append(options, nats.RootCAs(s.ca))
	}
	if s.cert != "" {
		options = append(options, nats.ClientCert(s.cert, s.key))
	}
	return options
}
