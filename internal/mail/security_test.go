package mail_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"strings"
	"testing"
	"time"

	"kwai/internal/mail"
	"kwai/internal/testing/mailtest"
)

const (
	smtpUser = "smtp%40user"
	password = "pa%3Ass%2Fword"
)

// certificate returns a self-made one for host, and the pool that trusts it.
func certificate(t *testing.T, host string) (*tls.Config, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{host}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}, pool
}

// Which mails go out over which connections, and where the password is shown.
func TestSecurity(t *testing.T) {
	t.Parallel()
	good, pool := certificate(t, "mail.example.org")
	other, otherPool := certificate(t, "other.example.org")
	pool = pool.Clone()
	nobody := x509.NewCertPool()
	login := mailtest.Login("smtp@user", "pa:ss/word")
	const auth = smtpUser + ":" + password + "@"
	for _, tc := range []struct {
		name, url string
		server    []mailtest.Option
		roots     *x509.CertPool
		tls       bool
		logins    int
		err       string // empty: the mail arrives
	}{
		{"STARTTLS", "smtp://mail.example.org", []mailtest.Option{mailtest.StartTLS(good)}, pool, true, 0, ""},
		{"STARTTLS and login", "smtp://" + auth + "mail.example.org", []mailtest.Option{mailtest.StartTLS(good), login}, pool, true, 1, ""},
		{"no STARTTLS", "smtp://mail.example.org", nil, pool, false, 0, "offers no STARTTLS"},
		{"no STARTTLS, with login", "smtp://" + auth + "mail.example.org", []mailtest.Option{login}, pool, false, 0, "offers no STARTTLS"},
		{"unknown authority", "smtp://" + auth + "mail.example.org", []mailtest.Option{mailtest.StartTLS(good), login}, nobody, false, 0, "certificate is not valid for mail.example.org"},
		{"other host's certificate", "smtp://mail.example.org", []mailtest.Option{mailtest.StartTLS(other)}, otherPool, false, 0, "certificate is not valid for mail.example.org"},
		{"a private address is not loopback", "smtp://10.0.0.1", nil, pool, false, 0, "offers no STARTTLS"},
		{"implicit TLS", "smtps://" + auth + "mail.example.org", []mailtest.Option{mailtest.ImplicitTLS(good), login}, pool, true, 1, ""},
		{"implicit TLS, and there is none", "smtps://" + auth + "mail.example.org", []mailtest.Option{mailtest.StartTLS(good), login}, pool, false, 0, "no TLS comes first there: write smtp://"},
		{"implicit TLS, unknown authority", "smtps://mail.example.org", []mailtest.Option{mailtest.ImplicitTLS(good)}, nobody, false, 0, "certificate is not valid for mail.example.org"},
		{"implicit TLS on loopback, too", "smtps://localhost", []mailtest.Option{mailtest.ImplicitTLS(good)}, nobody, false, 0, "certificate is not valid for localhost"},
		{"insecure", "smtp+insecure://" + auth + "mail.example.org", []mailtest.Option{login}, pool, false, 1, ""},
		{"insecure takes TLS if offered", "smtp+insecure://mail.example.org", []mailtest.Option{mailtest.StartTLS(other)}, nobody, true, 0, ""},
		{"loopback", "smtp://" + auth + "[::1]", []mailtest.Option{login}, pool, false, 1, ""},
		{"loopback takes TLS if offered", "smtp://localhost", []mailtest.Option{mailtest.StartTLS(other)}, nobody, true, 0, ""},
		{"wrong password", "smtp://" + smtpUser + ":nonsense@localhost", []mailtest.Option{login}, pool, false, 0, "the login: refused with 535 5.7.8"},
		{"no login offered", "smtp://" + auth + "localhost", nil, pool, false, 0, "offers no login"},
		{"login needed", "smtp://localhost", []mailtest.Option{login}, pool, false, 0, "MAIL FROM: refused with 530 5.7.0 log in first"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			server := mailtest.Serve(t, tc.server...)
			s := newSMTP(t, tc.url)
			s.Reroute(server.Addr(), tc.roots)
			err := s.Send(t.Context(), recovery(t, user))
			if got := server.Logins(); got != tc.logins {
				t.Errorf("%d logins, want %d", got, tc.logins)
			}
			if tc.err == "" {
				if err != nil {
					t.Fatal(err)
				}
				if got := one(t, server); got.TLS != tc.tls {
					t.Errorf("TLS is %t", got.TLS)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tc.err) || mail.Permanent(err) {
				t.Errorf("error is %v, want one that says %q", err, tc.err)
			}
			if err != nil && (strings.Contains(err.Error(), "nonsense") || strings.Contains(err.Error(), "ss/word")) {
				t.Errorf("the error tells the password: %v", err)
			}
			if n := len(server.Mails()); n != 0 {
				t.Errorf("%d mails arrived", n)
			}
		})
	}
}

func TestNewSMTP(t *testing.T) {
	t.Parallel()
	for url, want := range map[string]string{ // a URL's host and port, or what the error says
		"smtp://mail.example.org":            "mail.example.org:25",
		"smtp://u:p@mail.example.org/":       "mail.example.org:587",
		"smtps://mail.example.org":           "mail.example.org:465",
		"smtp+insecure://u:p@[fe80::1]:2525": "[fe80::1]:2525",
		"smtp://bücher.example:26":           "xn--bcher-kva.example:26",
		"":                                   "must begin with smtp://",
		"mail.example.org:25":                "must begin with smtp://",
		"http://hunter2@mail.example.org":    "must begin with smtp://",
		"smtp:mail.example.org":              "names no host",
		"smtp://":                            "names no host",
		"smtp://u:hunter2@:25":               "names no host",
		"smtp://u:hunter2@h:port":            "can't be read",
		"smtp://u:hunter2/x@h":               "can't be read",
		"smtp://u:hunter2%@h":                "can't be read",
		"smtp://u:12#hunter2@h":              "nothing may follow",
		"smtp://u:hunter2@h?tls=no":          "nothing may follow",
		"smtp://u:hunter2@h/hunter2":         "nothing may follow",
		"smtp://u:hunter2@h:70000":           "port is not a number",
		"smtp://u:hunter2@h:0":               "port is not a number",
		"smtp://hunter2@h":                   "user and password go together",
		"smtp://:hunter2@h":                  "user and password go together",
		"smtp://u:hunter2@h h":               "can't be read",
		"smtp://u:hunter2@h%2Fh":             "can't be read",
		"smtp://u:hunter2@h$h":               "neither a domain name",
	} {
		s, err := mail.NewSMTP(url, options)
		var got string
		if err != nil {
			got = err.Error()
		} else {
			got = s.String()
		}
		if !strings.Contains(got, want) || strings.Contains(got, "hunter2") {
			t.Errorf("%s gives %q, want %q and no password", url, got, want)
		}
	}
}

func TestOptions(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ from, domain, header, id string }{ // empty header: an error
		{"noreply@example.org", "", "<noreply@example.org>", "<a@example.org>"},
		{"kwai <noreply@bücher.example>", "", `"kwai" <noreply@xn--bcher-kva.example>`, "<a@xn--bcher-kva.example>"},
		{"noreply@localhost", "127.0.0.1", "<noreply@localhost>", "<a@[127.0.0.1]>"},
		{"noreply@localhost", "[::1]", "<noreply@localhost>", "<a@[IPv6:::1]>"},
		{"\"a\u202e\" <noreply@localhost>", "x", `"a" <noreply@localhost>`, "<a@x>"},
		{"", "x", "", ""},
		{"jürgen@example.org", "x", "", ""},
		{"a@example.org", "x\r\nBcc: y", "", ""},
		{"a@example.org, b@example.org", "x", "", ""},
	} {
		server := mailtest.Serve(t)
		s, err := mail.NewSMTP(server.URL(), mail.Options{From: tc.from, Domain: tc.domain})
		if tc.header == "" {
			if err == nil {
				t.Errorf("%+q are taken", tc)
			}
			continue
		}
		if err == nil {
			err = s.Send(t.Context(), mail.Message{ID: "a", To: user.Email, Text: "t"})
		}
		if err != nil {
			t.Errorf("%+q: %v", tc, err)
			continue
		}
		got := one(t, server)
		if raw := string(got.Raw); !strings.Contains(raw, "\r\nFrom: "+tc.header+"\r\n") || !strings.Contains(raw, "\r\nMessage-ID: "+tc.id+"\r\n") {
			t.Errorf("%+q give\n%s", tc, raw)
		}
		if "<a@"+got.Helo+">" != tc.id {
			t.Errorf("EHLO is %q", got.Helo)
		}
	}
}
