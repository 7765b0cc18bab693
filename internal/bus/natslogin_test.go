package bus_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nkeys"

	"kwai/internal/bus"
	"kwai/internal/testing/natstest"
)

// authority issues certificates, which are written to files.
type authority struct {
	t      *testing.T
	folder string
	cert   *x509.Certificate
	key    *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t, folder: t.TempDir()}
	a.issue("ca", &x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign})
	return a
}

func (a *authority) file(name string) string { return filepath.Join(a.folder, name) }

// issue makes NAME.pem and NAME.key.
func (a *authority) issue(name string, c *x509.Certificate) tls.Certificate {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	c.SerialNumber, c.Subject = big.NewInt(time.Now().UnixNano()), pkix.Name{CommonName: name}
	c.NotBefore, c.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = c, key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, key.Public(), signer)
	if err != nil {
		a.t.Fatal(err)
	}
	if a.cert == nil {
		a.key = key
		a.cert, _ = x509.ParseCertificate(der)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	pair := tls.Certificate{}
	if err == nil {
		err = errors.Join(
			os.WriteFile(a.file(name+".pem"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600),
			os.WriteFile(a.file(name+".key"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}), 0o600))
	}
	if err == nil {
		pair, err = tls.LoadX509KeyPair(a.file(name+".pem"), a.file(name+".key"))
	}
	if err != nil {
		a.t.Fatal(err)
	}
	return pair
}

// credentials has a server trust an operator and returns a file of one user
// of its only account with JetStream, which may have other limits.
func credentials(t *testing.T, o *server.Options, limit ...func(*jwt.JetStreamLimits)) (file string) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	pair := func(kp nkeys.KeyPair, err error) (nkeys.KeyPair, string) {
		t.Helper()
		must(err)
		public, err := kp.PublicKey()
		must(err)
		return kp, public
	}
	operator, operatorID := pair(nkeys.CreateOperator())
	_, systemID := pair(nkeys.CreateAccount())
	account, accountID := pair(nkeys.CreateAccount())
	user, userID := pair(nkeys.CreateUser())

	system, err := jwt.NewAccountClaims(systemID).Encode(operator)
	must(err)
	claims := jwt.NewAccountClaims(accountID)
	claims.Limits.JetStreamLimits = jwt.JetStreamLimits{DiskStorage: -1, MemoryStorage: -1, Streams: -1, Consumer: -1}
	for _, l := range limit {
		l(&claims.Limits.JetStreamLimits)
	}
	encoded, err := claims.Encode(operator)
	must(err)
	resolver := &server.MemAccResolver{}
	must(resolver.Store(systemID, system))
	must(resolver.Store(accountID, encoded))
	trusted := jwt.NewOperatorClaims(operatorID)
	o.TrustedOperators, o.AccountResolver, o.SystemAccount = []*jwt.OperatorClaims{trusted}, resolver, systemID

	login, err := jwt.NewUserClaims(userID).Encode(account)
	must(err)
	seed, err := user.Seed()
	must(err)
	text, err := jwt.FormatUserConfig(login, seed)
	must(err)
	file = filepath.Join(t.TempDir(), "kwai.creds")
	must(os.WriteFile(file, text, 0o600))
	return file
}

func TestNATSSettingsThatCannotBe(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("-----BEGIN NATS USER JWT-----\nunspoken\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	const address, parameter = "it must be nats://", "has a parameter"
	for setting, want := range map[string]string{
		"":                                           address,
		"nats://":                                    address,
		"http://u:unspoken@host":                     address,
		"nats://u:unspoken/@host":                    address,
		"nats://u:unspoken#@host":                    address,
		"nats://u:unspoken,@host":                    address,
		"nats://a,u:unspoken@host":                   address,
		"nats://u:unspoken@host:70000":               address,
		"nats://u:unspoken@host:0":                   address,
		"nats://u:unspoken@":                         address,
		"nats://u:unspoken@host/path":                address,
		"nats://u:@host":                             address,
		"nats://a,tls://b":                           address,
		"nats://u:un?spoken@host":                    address,
		"nats://unspoken?x@host":                     parameter,
		"nats://host?unspoken=1":                     parameter,
		"nats://host?stream=A&stream=B":              parameter,
		"nats://host?stream=":                        parameter,
		"nats://host?%zz":                            parameter,
		"nats://host?stream=a.b":                     "stream must be",
		"nats://host?replicas=6":                     "from 1 to 5",
		"nats://host?replicas=x":                     "from 1 to 5",
		"nats://host?handshake_first=yes":            "handshake_first must be true",
		"nats://host?max_bytes=1GB":                  "max_bytes must be a number of bytes, 1048576 at least",
		"nats://host?max_bytes=1024":                 "max_bytes must be",
		"nats://host?max_bytes=-1":                   "max_bytes must be",
		"nats://host?cert=" + file:                   "cert and key need each other",
		"nats://host?cert=" + file + "&key=x":        "cert, key: ",
		"nats://host?ca=missing":                     "ca: open missing: no such file",
		"nats://host?ca=" + file:                     "no certificate in PEM",
		"nats://host?credentials=missing":            "credentials: open missing: no such file",
		"nats://host?credentials=" + file:            "is no NATS credentials file",
		"nats://u:unspoken@host?credentials=" + file: "either credentials, or",
	} {
		n, err := bus.NewNATS(setting, bus.NATSOptions{})
		if err == nil {
			n.Close()
		}
		if err == nil {
			t.Errorf("%q is taken", setting)
			continue
		}
		if text := err.Error(); !strings.Contains(text, want) {
			t.Errorf("%q: %q, want %q", setting, text, want)
		}
		if text := err.Error(); strings.Contains(text, "spoken") || strings.Contains(text, "\n") {
			t.Errorf("%q: %q tells a secret or has two lines", setting, text)
		}
	}
}

func TestNATSServersAreToldWithoutSecrets(t *testing.T) {
	t.Parallel()
	for setting, want := range map[string]string{
		"nats://u:unspoken@a.example.org,b.example.org:4333": "nats://a.example.org:4222,nats://b.example.org:4333",
		"tls://unspoken@a.example.org,tls://[::1]:1/":        "tls://a.example.org:4222,tls://[::1]:1",
		"tls://Bücher.example,a_b,NATS":                      "tls://xn--bcher-kva.example:4222,tls://a_b:4222,tls://NATS:4222",
	} {
		if n, _ := newNATS(t, setting); n.Servers() != want {
			t.Errorf("%q is shown as %q", setting, n.Servers())
		}
	}
}

func TestNATSLogsIn(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	cert := ca.issue("server", &x509.Certificate{IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
	ca.issue("client", &x509.Certificate{ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	pool := x509.NewCertPool()
	pool.AddCert(ca.cert)
	withTLS := func(o *server.Options) {
		o.TLS, o.TLSConfig = true, &tls.Config{Certificates: []tls.Certificate{cert}, ClientCAs: pool, MinVersion: tls.VersionTLS12}
	}
	withTLSFirst := func(o *server.Options) { withTLS(o); o.TLSHandshakeFirst = true }
	withClients := func(o *server.Options) {
		withTLS(o)
		o.TLSVerify, o.TLSConfig.ClientAuth = true, tls.RequireAndVerifyClientCert
	}
	const permissions = "kwai.>,$JS.API.STREAM.INFO.KWAI,$JS.API.STREAM.CREATE.KWAI"
	var creds, other server.Options
	file := credentials(t, &creds)
	wrong := credentials(t, &other)
	trust := func(o *server.Options) {
		o.TrustedOperators, o.AccountResolver, o.SystemAccount = creds.TrustedOperators, creds.AccountResolver, creds.SystemAccount
	}
	tests := []struct {
		name    string
		server  func(*server.Options)
		setting string // $ is the server's address
		refused string
	}{
		{"nothing", func(*server.Options) {}, "nats://$", ""},
		{"user and password", func(o *server.Options) { o.Username, o.Password = "kwai", "un@s/p?o,ken" }, "nats://kwai:un%40s%2Fp%3Fo%2Cken@$", ""},
		{"token", func(o *server.Options) { o.Authorization = "unspoken" }, "nats://unspoken@$", ""},
		{"the second server", func(o *server.Options) { o.Authorization = "unspoken" }, "nats://unspoken@127.0.0.1:1,$", ""},
		{"few permissions", func(o *server.Options) {
			o.Users = []*server.User{{Username: "kwai", Password: "unspoken", Permissions: &server.Permissions{
				Publish: &server.SubjectPermission{Allow: strings.Split(permissions, ",")}, Subscribe: &server.SubjectPermission{Allow: []string{"_INBOX.>"}}}}}
		}, "nats://kwai:unspoken@$", ""},
		{"credentials", trust, "nats://$?credentials=" + file, ""},
		{"other credentials", trust, "nats://$?credentials=" + wrong, "authorization violation"},
		{"TLS", withTLS, "nats://$?ca=" + ca.file("ca.pem"), ""},
		{"TLS with a password", func(o *server.Options) { withTLS(o); o.Authorization = "unspoken" }, "tls://unspoken@$?ca=" + ca.file("ca.pem"), ""},
		{"TLS first", withTLSFirst, "tls://$?handshake_first=true&ca=" + ca.file("ca.pem"), ""},
		{"TLS first, or else not", func(o *server.Options) { withTLSFirst(o); o.TLSHandshakeFirstFallback = time.Millisecond }, "nats://$?ca=" + ca.file("ca.pem"), ""},
		{"TLS first, not here", withTLS, "nats://$?handshake_first=true&ca=" + ca.file("ca.pem"), "leave handshake_first out"},
		{"TLS first of another authority", withTLSFirst, "nats://$?handshake_first=true", "is not trusted (ca=FILE"},
		{"TLS of another authority", withTLS, "tls://$", "is not trusted (ca=FILE"},
		{"a client's certificate", withClients, "tls://$?ca=" + ca.file("ca.pem") + "&cert=" + ca.file("client.pem") + "&key=" + ca.file("client.key"), ""},
		{"no client's certificate", withClients, "tls://$?ca=" + ca.file("ca.pem"), "cert=FILE"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := natstest.Serve(t, tt.server)
			n, log := newNATS(t, strings.ReplaceAll(tt.setting, "$", s.Address()))
			err := n.Connect(t.Context(), func() {})
			if text := fmt.Sprint(log, err, n.Servers()); strings.Contains(text, "spoken") || strings.Contains(text, "ken@") {
				t.Errorf("it shows a secret: %s", text)
			}
			if tt.refused != "" {
				if !errors.Is(err, bus.ErrRefused) || !strings.Contains(err.Error(), tt.refused) {
					t.Errorf("Connect says %v, want %q; %s", err, tt.refused, log)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			deliver(t, n, event)
			deliver(t, n, event)
			if s.Options.TLSVerify { // no other client can look
				return
			}
			var login nats.Option
			switch {
			case tt.name == "credentials":
				login = nats.UserCredentials(file)
			case s.Options.Authorization != "":
				login = nats.Token(s.Options.Authorization)
			case len(s.Options.Users) > 0:
				login = nats.UserInfo("kwai", "unspoken")
			default:
				login = nats.UserInfo(s.Options.Username, s.Options.Password)
			}
			if tt.name == "TLS first" {
				login = nats.TLSHandshakeFirst()
			}
			if got := stream(t, s.JetStream(login), "KWAI").State.Msgs; got != 1 {
				t.Errorf("the stream has %d messages", got)
			}
		})
	}
}

func TestNATSWithoutTLSIsWarnedOf(t *testing.T) {
	t.Parallel()
	for setting, warned := range map[string]bool{
		"nats://kwai.invalid:4222": true, "nats://127.0.0.1:1,192.0.2.1:1": true, "nats://127.0.0.1:1": false, "nats://localhost:1": false, "tls://kwai.invalid:4222": false,
	} {
		_, log := newNATS(t, setting)
		if strings.Contains(log.String(), "without TLS") != warned {
			t.Errorf("%s: %s", setting, log)
		}
	}
}

// A server that waits for TLS says nothing; that is not the same as one that can't
// be reached.
func TestNATSThatWaitsForTLSIsTold(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	cert := ca.issue("server", &x509.Certificate{IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
	for _, who := range []string{"NATS", "kwai"} { // gives up first
		s := natstest.Serve(t, func(o *server.Options) {
			o.TLS, o.TLSHandshakeFirst, o.TLSConfig = true, true, &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}
			if who == "NATS" {
				o.TLSTimeout = 0.02
			}
		})
		for _, setting := range []string{s.URL(), "tls://" + s.Address(), s.URL() + "?ca=" + ca.file("ca.pem")} {
			n, log := newNATS(t, setting)
			if who == "kwai" {
				n.SetTimes(ages, 50*time.Millisecond, 20*time.Millisecond)
			}
			if err := n.Connect(t.Context(), func() {}); err != nil {
				t.Fatal(err)
			}
			eventually(t, "the way out", func() bool {
				err := n.Deliver(t.Context(), event)
				return err != nil && strings.Contains(err.Error(), "add handshake_first=true to the setting")
			})
			if !strings.Contains(log.String(), "can't be reached") {
				t.Errorf("%s: %s", setting, log)
			}
		}
	}
}

// Accounts may allow no stream without a size, or none of that size: what to do is
// said, and does it.
func TestNATSAccountsThatLimitStreams(t *testing.T) {
	t.Parallel()
	const size = 4 << 20
	for name, tt := range map[string]struct {
		limit              func(*jwt.JetStreamLimits)
		parameter, refused string
		maxBytes           int64
	}{
		"no size":                   {func(l *jwt.JetStreamLimits) { l.MaxBytesRequired = true }, "", "add max_bytes=N to the setting", 0},
		"a size":                    {func(l *jwt.JetStreamLimits) { l.MaxBytesRequired = true }, "&max_bytes=4194304", "", size},
		"none is asked":             {func(*jwt.JetStreamLimits) {}, "", "", -1},
		"too large":                 {func(l *jwt.JetStreamLimits) { l.MaxBytesRequired, l.DiskMaxStreamBytes = true, size }, "&max_bytes=4194305", "lower max_bytes=N", 0},
		"more than the account has": {func(l *jwt.JetStreamLimits) { l.DiskStorage = size }, "&max_bytes=8388608", "lower max_bytes=N", 0},
		"no more streams":           {func(l *jwt.JetStreamLimits) { l.Streams = 1 }, "&stream=OTHER", "one more stream", 0},
		"no cluster":                {func(*jwt.JetStreamLimits) {}, "&replicas=3", "leave replicas=N out", 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var trusted server.Options
			file := credentials(t, &trusted, tt.limit)
			s := natstest.Serve(t, func(o *server.Options) {
				o.TrustedOperators, o.AccountResolver, o.SystemAccount = trusted.TrustedOperators, trusted.AccountResolver, trusted.SystemAccount
			})
			js := s.JetStream(nats.UserCredentials(file))
			if name == "no more streams" {
				if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "FIRST"}); err != nil {
					t.Fatal(err)
				}
			}
			n, _ := newNATS(t, s.URL()+"?credentials="+file+tt.parameter)
			err := n.Connect(t.Context(), func() {})
			if tt.refused != "" {
				if !errors.Is(err, bus.ErrRefused) || !strings.Contains(err.Error(), tt.refused) {
					t.Errorf("Connect says %v, want %q", err, tt.refused)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			deliver(t, n, event)
			if got := stream(t, js, "KWAI"); got.Config.MaxBytes != tt.maxBytes || got.State.Msgs != 1 {
				t.Errorf("the stream takes %d bytes, want %d, and has %d messages", got.Config.MaxBytes, tt.maxBytes, got.State.Msgs)
			}
		})
	}
}
