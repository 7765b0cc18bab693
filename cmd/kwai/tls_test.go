package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"kwai/internal/testing/storetest"
)

// authority makes certificates for 127.0.0.1, and knows them.
type authority struct {
	tb     testing.TB
	roots  *x509.CertPool
	folder string
}

func newAuthority(tb testing.TB) *authority {
	tb.Helper()
	return &authority{tb, x509.NewCertPool(), tb.TempDir()}
}

func (a *authority) cert() string { return filepath.Join(a.folder, "cert.pem") }
func (a *authority) key() string  { return filepath.Join(a.folder, "key.pem") }

func (a *authority) flags() []string {
	return []string{"--tls-cert=" + a.cert(), "--tls-key=" + a.key()}
}

// make makes a certificate that is valid from one time to another.
func (a *authority) make(serial int64, from, until time.Time) (cert, key []byte) {
	a.tb.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.tb.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "kwai"}, NotBefore: from, NotAfter: until,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}, &x509.Certificate{SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "kwai"}}, &private.PublicKey, private)
	if err != nil {
		a.tb.Fatal(err)
	}
	cert = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	sealed, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		a.tb.Fatal(err)
	}
	a.roots.AppendCertsFromPEM(cert)
	return cert, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: sealed})
}

// write puts files in the place of those that are there.
func (a *authority) write(cert, key []byte) {
	a.tb.Helper()
	for path, text := range map[string][]byte{a.cert(): cert, a.key(): key} {
		if text == nil {
			continue
		}
		if err := os.WriteFile(path+".new", text, 0o600); err != nil {
			a.tb.Fatal(err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			a.tb.Fatal(err)
		}
	}
}

// issue makes and writes a certificate that is good for a year.
func (a *authority) issue(serial int64) (cert, key []byte) {
	a.tb.Helper()
	cert, key = a.make(serial, time.Now().Add(-time.Hour), time.Now().AddDate(1, 0, 0))
	a.write(cert, key)
	return cert, key
}

// client is one whose connections are kept; new ones are made by another.
func (a *authority) client() *http.Client {
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: a.roots}, ForceAttemptHTTP2: true}
	a.tb.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// getTLS asks for a path and returns the answer and the number of the certificate.
func (s *site) getTLS(client *http.Client, path string) (res *http.Response, body string, serial int64) {
	s.tb.Helper()
	r, err := http.NewRequestWithContext(s.tb.Context(), http.MethodGet, "https"+strings.TrimPrefix(s.URL, "http")+path, nil)
	if err != nil {
		s.tb.Fatal(err)
	}
	if res, err = client.Do(r); err != nil {
		s.tb.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		s.tb.Fatal(err)
	}
	return res, string(text), res.TLS.PeerCertificates[0].SerialNumber.Int64()
}

func TestHTTPS(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	cert, key := a.issue(1)
	s := start(t, storetest.SQLite(t), append(watched, append(a.flags(), "--public-url=https://auth.example.org")...)...)
	kept := a.client()
	res, body, serial := s.getTLS(kept, "/healthz")
	if res.StatusCode != http.StatusOK || body != "{\"status\":\"ok\"}\n" {
		t.Errorf("it is answered %s %q", res.Status, body)
	}
	if serial != 1 || res.ProtoMajor != 1 {
		t.Errorf("by %s and certificate %d, want HTTP/1 and 1", res.Proto, serial)
	}
	if got := res.Header.Get("Strict-Transport-Security"); got != "max-age=2592000" {
		t.Errorf("Strict-Transport-Security: %s", got)
	}
	plain := s.dial()
	fmt.Fprint(plain, "GET /healthz HTTP/1.1\r\nHost: kwai\r\n\r\n")
	if got := plain.answer(http.MethodGet); got.Status != 400 || got.Header.Get("Strict-Transport-Security") != "" {
		t.Errorf("plain HTTP is answered with %v", got)
	}
	old := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: a.roots, MaxVersion: tls.VersionTLS11, MinVersion: tls.VersionTLS10}}}
	if res, err := old.Get("https" + strings.TrimPrefix(s.URL, "http") + "/healthz"); err == nil {
		t.Error("TLS 1.1 is answered", res.Status)
	}
	leaf, _ := pem.Decode(cert)
	parsed, err := x509.ParseCertificate(leaf.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	s.wantSamples(map[string]float64{"kwai_tls_certificate_expiry_timestamp_seconds": float64(parsed.NotAfter.Unix())})

	// A key without its certificate changes nothing, nor does half of a file.
	nextCert, nextKey := a.make(2, time.Now().Add(-time.Hour), time.Now().AddDate(2, 0, 0))
	a.write(nil, nextKey)
	s.log.wait(t, 1, "the new certificate can't be used")
	if _, _, serial = s.getTLS(a.client(), "/healthz"); serial != 1 {
		t.Errorf("beside the wrong key certificate %d is served", serial)
	}
	a.write(nextCert[:len(nextCert)/2], nil)
	s.log.wait(t, 2, "the new certificate can't be used")
	if _, _, serial = s.getTLS(a.client(), "/healthz"); serial != 1 {
		t.Errorf("beside half a file certificate %d is served", serial)
	}
	a.write(nextCert, nil)
	s.log.wait(t, 1, "took over a new certificate")
	if _, _, serial = s.getTLS(a.client(), "/healthz"); serial != 2 {
		t.Errorf("then certificate %d is served", serial)
	}
	if _, _, serial = s.getTLS(kept, "/healthz"); serial != 1 {
		t.Errorf("the connection from before has certificate %d", serial)
	}
	if text := s.log.String(); strings.Count(text, "the new certificate can't be used") != 2 || strings.Contains(text, string(bytes.Split(key, []byte("\n"))[1])) {
		t.Errorf("the log is\n%s", text)
	}
}

// TestHTTPSIsTheDefaultOnLoopback: of the public URL. Browsers are not told to
// keep to it for all that runs on this machine.
func TestHTTPSIsTheDefaultOnLoopback(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	a.issue(1)
	s := start(t, storetest.SQLite(t), a.flags()...)
	s.log.wait(t, 1, `"public_url":"https://127.0.0.1:`)
	if res, _, _ := s.getTLS(a.client(), "/healthz"); res.Header.Get("Strict-Transport-Security") != "" {
		t.Error(res.Header)
	}
}

// TestConnectionsAreBoundedWithTLS: those that never finish their handshake make
// room, those that are at a request stay, and none is forgotten.
func TestConnectionsAreBoundedWithTLS(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	a.issue(1)
	s := start(t, storetest.SQLite(t), append(a.flags(), append(watched, "--max-connections=3")...)...)
	secure := func() *rawConn {
		c := s.dial()
		c.Conn = tls.Client(c.Conn, &tls.Config{RootCAs: a.roots, ServerName: "127.0.0.1"})
		c.in.Reset(c.Conn)
		return c
	}
	working := secure()
	working.halfAsk()
	var silent []*rawConn
	for range 20 {
		c := s.dial()
		fmt.Fprint(c, "\x16\x03\x01\x02\x00\x01") // of a ClientHello
		silent = append(silent, c)
	}
	for range 3 {
		secure().hello()
	}
	for i, c := range silent {
		// An end or a reset.
		if b, err := c.in.ReadByte(); err == nil {
			t.Errorf("the %d. that said half a hello is answered %q", i, b)
		}
	}
	fmt.Fprint(working, "=a@b")
	if got := working.answer(http.MethodPost); got.Status != http.StatusOK {
		t.Errorf("the one at work got %v", got)
	}
	all := samples(s.scrape())
	if n, gone := all["kwai_http_connections"], all["kwai_http_connections_displaced_total"]; n > 3 || gone < 20 {
		t.Errorf("%v connections, %v displaced", n, gone)
	}
}

// TestHandshakesAreCutOff: at the moment at which headers are, too.
func TestHandshakesAreCutOff(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	a.issue(1)
	for what, sent := range map[string]string{"nothing": "", "half a hello": "\x16\x03\x01\x02\x00\x01"} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				log := slog.New(slog.DiscardHandler)
				c, err := (&Settings{TLSCert: a.cert(), TLSKey: a.key()}).readCertificate(log)
				if err != nil {
					t.Fatal(err)
				}
				server := newServer(http.NotFoundHandler(), time.Minute, log)
				listener := pipes{make(chan net.Conn, 1)}
				client, conn := net.Pipe()
				listener.conns <- conn
				ended := make(chan error, 1)
				go func() { ended <- server.Serve(tls.NewListener(listener, c.config())) }()
				begun := time.Now()
				go func() { _, _ = io.WriteString(client, sent) }()
				_, err = io.Copy(io.Discard, client)
				if took := time.Since(begun); err != nil || took < readHeaders || took > readHeaders+time.Second {
					t.Errorf("cut off with %v after %v, want %v", err, took, readHeaders)
				}
				close(listener.conns)
				<-ended
				server.Close()
			})
		})
	}
}

// TestCertificatesThatExpireAreWarnedOf, at the start and each day, and served.
func TestCertificatesThatExpireAreWarnedOf(t *testing.T) {
	t.Parallel()
	const day = 24 * time.Hour
	for name, c := range map[string]struct {
		from, until time.Duration // from now on
		days        int           // that go by
		want        map[string]int
	}{
		"good":                  {-day, 90 * day, 3, nil},
		"expired":               {-90 * day, -day, 2, map[string]int{"has expired": 3}},
		"not yet":               {day + time.Hour, 90 * day, 3, map[string]int{"is not valid yet": 2}},
		"expires soon":          {-80 * day, 10*day - time.Hour, 12, map[string]int{"expires soon": 10, "has expired": 3}},
		"of a short life":       {-time.Hour, 6 * day, 3, nil},
		"of a short life, soon": {-5 * day, day + time.Hour, 0, map[string]int{"expires soon": 1}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				a := newAuthority(t)
				a.write(a.make(1, time.Now().Add(c.from), time.Now().Add(c.until)))
				var log bytes.Buffer
				cert, err := (&Settings{TLSCert: a.cert(), TLSKey: a.key()}).readCertificate(slog.New(slog.NewTextHandler(&log, nil)))
				if err != nil {
					t.Fatal(err)
				}
				// A look in ten minutes, to save time.
				for range c.days * 24 * 6 {
					time.Sleep(10 * time.Minute)
					cert.reload(t.Context())
				}
				for _, what := range []string{"has expired", "is not valid yet", "expires soon", "level=ERROR", "took over"} {
					if got := strings.Count(log.String(), what); got != c.want[what] {
						t.Errorf("%d times %q, want %d:\n%s", got, what, c.want[what], &log)
					}
				}
			})
		})
	}
}

// TestCertificatesAreFollowed: whatever happens to the files.
func TestCertificatesAreFollowed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newAuthority(t)
		firstCert, firstKey := a.issue(1)
		log := newLogBuffer(t)
		c, err := (&Settings{TLSCert: a.cert(), TLSKey: a.key()}).readCertificate(slog.New(slog.NewTextHandler(log, nil)))
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		defer synctest.Wait()
		defer stop()
		go task{every: certificateEvery, do: c.reload}.run(ctx, c.log)
		nextCert, nextKey := a.make(2, time.Now().Add(-time.Hour), time.Now().AddDate(1, 0, 0))
		for _, step := range []struct {
			what          string
			change        func()
			serial        int64
			failed, taken int // so far
		}{
			{"nothing", func() {}, 1, 0, 0},
			{"the key is gone", func() { os.Remove(a.key()) }, 1, 1, 0},
			{"it is still gone", func() {}, 1, 1, 0},
			{"it is back", func() { a.write(nil, firstKey) }, 1, 1, 1},
			{"both change", func() { a.write(nextCert, nextKey) }, 2, 1, 2},
			{"the certificate is another's", func() { a.write(firstCert, nil) }, 2, 2, 2},
			{"it is empty", func() { a.write([]byte{}, nil) }, 2, 3, 2},
			{"it is enormous", func() { a.write(bytes.Repeat([]byte("x"), 2<<20), nil) }, 2, 4, 2},
			{"the key fits", func() { a.write(firstCert, firstKey) }, 1, 4, 3},
			{"everyone may read the key", func() { os.Chmod(a.key(), 0o604) }, 1, 5, 3},
			{"a folder", func() { os.Remove(a.key()); os.Mkdir(a.key(), 0o700) }, 1, 6, 3},
			{"good again", func() { os.Remove(a.key()); a.write(nextCert, nextKey) }, 2, 6, 4},
		} {
			step.change()
			time.Sleep(3 * certificateEvery) // the bubble's time
			synctest.Wait()
			failed, taken := strings.Count(log.String(), "level=ERROR"), strings.Count(log.String(), "took over")
			if serial := c.current.Load().Leaf.SerialNumber.Int64(); serial != step.serial || failed != step.failed || taken != step.taken {
				t.Errorf("%s: certificate %d, %d failed, %d taken over, want %d, %d, %d", step.what, serial, failed, taken, step.serial, step.failed, step.taken)
			}
		}
	})
}

// TestWrongCertificatesAreRefused in one line that names the setting.
func TestWrongCertificatesAreRefused(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	a.issue(1)
	other := newAuthority(t)
	other.issue(2)
	empty, open := filepath.Join(a.folder, "empty"), filepath.Join(a.folder, "open")
	key, err := os.ReadFile(a.key())
	if err != nil {
		t.Fatal(err)
	}
	for path, text := range map[string][]byte{empty: nil, open: key} {
		if err := os.WriteFile(path, text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for flags, want := range map[string]string{
		"--tls-cert=" + a.cert():                                               "--tls-cert, --tls-key: one is of no use without the other",
		"--tls-key=" + a.key():                                                 "--tls-cert, --tls-key: one is of no use without the other",
		"--tls-cert=missing --tls-key=" + a.key():                              "--tls-cert: open missing: no such file or directory",
		"--tls-cert=" + a.cert() + " --tls-key=missing":                        "--tls-key: open missing: no such file or directory",
		"--tls-cert=" + a.folder + " --tls-key=" + a.key():                     "--tls-cert: " + a.folder + " is not a file",
		"--tls-cert=" + a.cert() + " --tls-key=" + open:                        "--tls-key: " + open + " can be read by everyone: chmod 600 " + open,
		"--tls-cert=" + a.cert() + " --tls-key=" + other.key():                 "--tls-cert, --tls-key: " + a.cert() + " and " + other.key() + ": tls: private key does not match public key",
		"--tls-cert=" + a.key() + " --tls-key=" + a.key():                      "--tls-cert, --tls-key: ",
		"--tls-cert=" + empty + " --tls-key=" + a.key():                        "--tls-cert, --tls-key: ",
		"--public-url=http://auth.example.org " + strings.Join(a.flags(), " "): "--public-url: it must begin with https:// where TLS is served (--tls-cert)",
		"--dev " + strings.Join(a.flags(), " "):                                "--dev: it brings its own folder, database, mail and URL: leave --tls-cert out, and KWAI_TLS_CERT",
	} {
		data := filepath.Join(t.TempDir(), "data")
		args := strings.Fields(flags)
		if !strings.HasPrefix(flags, "--dev") {
			args = append(args, "--data="+data)
		}
		code, output := runRefused(t, args...)
		if code != exitUsage || !strings.HasPrefix(output, "kwai: "+want) || strings.Count(output, "\n") != 1 {
			t.Errorf("%s: exit code %d, %s", flags, code, output)
		}
		if _, err := os.Stat(data); err == nil {
			t.Errorf("%s: a folder was made", flags)
		}
	}
}

// TestPlainHTTPIsWarnedOf where others can read it.
func TestPlainHTTPIsWarnedOf(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	a.issue(1)
	for flags, warned := range map[string]bool{
		"--listen=127.0.0.1:0": false,
		"--listen=0.0.0.0:0 --public-url=http://auth.example.org":                                  true,
		"--listen=0.0.0.0:0 --public-url=https://auth.example.org":                                 true,
		"--listen=0.0.0.0:0 --public-url=http://auth.example.org --trusted-proxies=10.0.0.2":       true,
		"--listen=0.0.0.0:0 --public-url=https://auth.example.org --trusted-proxies=10.0.0.2":      false,
		"--listen=0.0.0.0:0 --public-url=https://auth.example.org " + strings.Join(a.flags(), " "): false,
	} {
		s := start(t, storetest.SQLite(t), strings.Fields(flags)...)
		if got := strings.Count(s.log.String(), "serving without TLS on an address that is not loopback"); got > 1 || (got == 1) != warned {
			t.Errorf("with %s it warns %d times", flags, got)
		}
	}
}
