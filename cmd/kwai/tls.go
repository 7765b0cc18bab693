package main

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// certificateEvery is how often the files of a certificate are looked at: a renewal
// needs no signal to the server. Tests have no time for it.
var certificateEvery = 2 * time.Second

const (
	// endsSoon is when it should have been renewed: an earlier warning would come
	// although it is renewed in time. One of a short life warns in its last third.
	endsSoon      = 14 * 24 * time.Hour
	warnOfEndEach = 24 * time.Hour
)

// certificate is what the server proves its name with, as the two files have it.
type certificate struct {
	certFile, keyFile string
	log               *slog.Logger
	current           atomic.Pointer[tls.Certificate]

	// Only reload uses these.
	seen     [2][sha256.Size]byte // digests of the files when they were last looked at
	warnedAt time.Time
}

// readCertificate reads the certificate of --tls-cert and --tls-key; nil where they
// aren't set.
func (s *Settings) readCertificate(log *slog.Logger) (*certificate, error) {
	if s.TLSCert == "" && s.TLSKey == "" {
		return nil, nil
	}
	if s.TLSCert == "" || s.TLSKey == "" {
		return nil, &usageError{"--tls-cert, --tls-key", errors.New("one is of no use without the other")}
	}
	if s.publicURL != nil && s.publicURL.Scheme != "https" {
		return nil, &usageError{"--public-url", errors.New("it must begin with https:// where TLS is served (--tls-cert)")}
	}
	c := &certificate{certFile: s.TLSCert, keyFile: s.TLSKey, log: log}
	c.seen = c.digests()
	pair, err := c.read()
	if err != nil {
		return nil, err
	}
	c.take(pair)
	return c, nil
}

func (c *certificate) digests() [2][sha256.Size]byte {
	return [...][sha256.Size]byte{digest(c.certFile), digest(c.keyFile)}
}

func (c *certificate) read() (*tls.Certificate, error) {
	cert, err := readRegular(c.certFile)
	if err != nil {
		return nil, &usageError{"--tls-cert", err}
	}
	key, err := readSecretFile(c.keyFile, c.log)
	if err != nil {
		return nil, &usageError{"--tls-key", err}
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, &usageError{"--tls-cert, --tls-key", fmt.Errorf("%s and %s: %w", c.certFile, c.keyFile, err)}
	}
	return &pair, nil
}

func (c *certificate) take(pair *tls.Certificate) {
	c.current.Store(pair)
	c.warnOfEnd()
}

// reload takes over what the files hold, if that has changed.
func (c *certificate) reload(context.Context) {
	seen := c.digests()
	if seen == c.seen {
		if time.Since(c.warnedAt) >= warnOfEndEach {
			c.warnOfEnd()
		}
		return
	}
	c.seen = seen
	pair, err := c.read()
	if err != nil { // perhaps one of the two files is still to be written
		c.log.Error("the new certificate can't be used: the old one stays (--tls-cert, --tls-key)", "error", err)
		return
	}
	c.take(pair)
	c.log.Info("took over a new certificate", "until", pair.Leaf.NotAfter)
}

// warnOfEnd warns of a certificate that clients refuse, or soon will. It is
// served all the same: some know it by its key, and one that has just been made
// may be ahead of a clock.
func (c *certificate) warnOfEnd() {
	now, leaf := time.Now(), c.current.Load().Leaf
	c.warnedAt = now
	switch left := leaf.NotAfter.Sub(now); {
	case left < 0:
		c.log.Warn("the certificate has expired: clients refuse it (--tls-cert)", "until", leaf.NotAfter)
	case now.Before(leaf.NotBefore):
		c.log.Warn("the certificate is not valid yet: clients refuse it (--tls-cert)", "from", leaf.NotBefore)
	case left < min(endsSoon, leaf.NotAfter.Sub(leaf.NotBefore)/3):
		c.log.Warn("the certificate expires soon, and nobody has renewed it (--tls-cert)", "until", leaf.NotAfter)
	}
}

// config is how TLS is served. Without HTTP/2 a connection is at one request at
// a time, so that --max-connections bounds what all clients take together.
func (c *certificate) config() *tls.Config {
	return &tls.Config{
		MinVersion:     tls.VersionTLS12,
		NextProtos:     []string{"http/1.1"},
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return c.current.Load(), nil },
	}
}

// Metrics are the collectors for the registry.
func (c *certificate) Metrics() []prometheus.Collector {
	return []prometheus.Collector{
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "kwai_tls_certificate_expiry_timestamp_seconds", Help: "When the certificate that is served expires, in Unix time."},
			func() float64 { return float64(c.current.Load().Leaf.NotAfter.Unix()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "kwai_tls_certificate_start_timestamp_seconds", Help: "Since when the certificate that is served is valid, in Unix time."},
			func() float64 { return float64(c.current.Load().Leaf.NotBefore.Unix()) }),
	}
}

// hsts has browsers keep to HTTPS for a month from their last visit (RFC 6797).
// Not longer: one must be able to give TLS up again. Not for subdomains or
// preload lists, which are not this server's to speak for.
func hsts(next http.Handler) http.Handler {
	value := []string{"max-age=2592000"}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header()["Strict-Transport-Security"] = value
		next.ServeHTTP(w, r)
	})
}
