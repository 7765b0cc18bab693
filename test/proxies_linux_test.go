package test

import (
	"cmp"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"kwai/internal/testing/cluster"
	"kwai/internal/testing/mailtest"
	"kwai/internal/testing/need"
)

// proxies stand before kwai at the path /auth, which they strip. Their settings
// are those of docs/operating.md, with a second address that speaks TLS.
var proxies = map[string]struct {
	program  string
	args     []string
	settings string
}{
	"nginx": {"nginx", []string{"-e", "stderr", "-p", "FOLDER", "-c", "settings"}, `
user root;
daemon off;
master_process off; # it would leave workers behind
pid FOLDER/pid;
error_log stderr;
events {}
http {
	access_log off;
	client_body_temp_path FOLDER/1;
	proxy_temp_path FOLDER/2;
	fastcgi_temp_path FOLDER/3;
	scgi_temp_path FOLDER/4;
	uwsgi_temp_path FOLDER/5;
	server {
		listen PLAIN;
		listen TLS ssl http2;
		ssl_certificate FOLDER/cert.pem;
		ssl_certificate_key FOLDER/key.pem;
		location /auth/ {
			proxy_pass http://KWAI/;
			proxy_set_header Host $host;
			proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
		}
	}
}`},
	"HAProxy": {"haproxy", []string{"-db", "-f", "FOLDER/settings"}, `
defaults
	mode http
	timeout connect 1s
	timeout client 60s
	timeout server 35s
frontend public
	bind PLAIN
	bind TLS ssl crt FOLDER/both.pem alpn h2,http/1.1
	http-request deny deny_status 404 unless { path_beg /auth/ }
	http-request set-header X-Forwarded-For %[src]
	use_backend kwai if { path_beg /auth/ }
backend kwai
	http-request replace-path /auth(/.*) \1
	server kwai KWAI
`},
	"Caddy": {"caddy", []string{"run", "--adapter=caddyfile", "--config=FOLDER/settings"}, `
{
	admin off
	auto_https off
	skip_install_trust
	servers {
		protocols h1 h2
	}
}
(kwai) {
	handle_path /auth/* {
		reverse_proxy KWAI
	}
	respond 404
}
http://PLAIN {
	import kwai
}
https://TLS {
	tls FOLDER/cert.pem FOLDER/key.pem
	import kwai
}`},
}

// TestBehindProxies has people and programs reach kwai through real proxies.
func TestBehindProxies(t *testing.T) {
	t.Parallel()
	need.Time(t)
	for name := range proxies {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			t.Run("people", func(t *testing.T) {
				t.Parallel()
				m := mailtest.Serve(t)
				b := newBehind(t, name, "http", "--smtp="+m.URL())
				b.user("ann@example.org", "the old password")
				recoverByMouse(t, openTab(t, startBrowser(t), b.public), b.site, m)
			})
			for _, scheme := range []string{"http", "https"} {
				t.Run("programs by "+scheme, func(t *testing.T) {
					t.Parallel()
					passesAll(t, scheme, newBehind(t, name, scheme, "--log-level=info", "--log-format=json",
						"--trusted-proxies=127.0.0.1", "--cors-origins=https://club.example.org"))
				})
			}
		})
	}
}

// behind is a site behind a proxy.
type behind struct {
	*site
	public string
	from   string          // the client's address
	client *http.Transport // of the proxy's
}

func newBehind(t *testing.T, name, scheme string, flags ...string) *behind {
	t.Helper()
	settings := proxies[name]
	need.Program(t, settings.program)
	folder := t.TempDir()
	roots := selfMade(t, folder, "127.0.0.1")
	k := install(t, "")
	command, err := k.Serve(t.Context(), append(quick, flags...)...)
	if err != nil {
		t.Fatal(err)
	}
	address := map[string]string{}
	for _, scheme := range []string{"http", "https"} {
		if address[scheme], err = cluster.FreeAddress(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	b := &behind{public: scheme + "://" + address[scheme] + "/auth", from: "127.0.0.7"}
	command.Args = append(command.Args, "--public-url="+b.public)
	b.site = startCommand(t, k, command)

	fill := strings.NewReplacer("FOLDER", folder, "PLAIN", address["http"], "TLS", address["https"], "KWAI", command.Address).Replace
	var args []string
	for _, a := range settings.args {
		args = append(args, fill(a))
	}
	if err := os.WriteFile(filepath.Join(folder, "settings"), []byte(fill(settings.settings)), 0o600); err != nil {
		t.Fatal(err)
	}
	startCommand(t, k, cluster.Command{
		Program: settings.program, Args: args, Address: address["http"], Ready: "/auth/readyz",
		Env: append(os.Environ(), "HOME="+folder, "XDG_DATA_HOME="+folder, "XDG_CONFIG_HOME="+folder),
	})

	b.client = newTransport(t)
	b.client.TLSClientConfig = &tls.Config{RootCAs: roots}
	b.client.ForceAttemptHTTP2 = true
	b.client.DialContext = (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(b.from)}}).DialContext
	return b
}

// selfMade puts a certificate for a host into cert.pem, its key into key.pem, and
// both into both.pem. It returns the pool that trusts it.
func selfMade(t *testing.T, folder, host string) *x509.CertPool {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if ip := net.ParseIP(host); ip != nil {
		template.IPAddresses = []net.IP{ip}
	} else {
		template.DNSNames = []string{host}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	keyPEM := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: sealed})
	for name, text := range map[string][]byte{"cert.pem": certPEM, "key.pem": keyPEM, "both.pem": append(certPEM, keyPEM...)} {
		if err := os.WriteFile(filepath.Join(folder, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(certPEM)
	return pool
}

// send sends a request through the proxy, with headers that lie. The path stands
// as it goes out.
func (b *behind) send(method, path, form string, header http.Header) answer {
	b.tb.Helper()
	u, err := url.Parse(b.public)
	if err != nil {
		b.tb.Fatal(err)
	}
	path, query, _ := strings.Cut(path, "?")
	u.RawQuery, u.RawPath = query, u.Path+path
	if u.Path, err = url.PathUnescape(u.RawPath); err != nil {
		b.tb.Fatal(err)
	}
	r, err := http.NewRequestWithContext(b.tb.Context(), method, "", strings.NewReader(form))
	if err != nil {
		b.tb.Fatal(err)
	}
	r.URL = u
	r.Header = http.Header{"X-Forwarded-For": {"198.51.100.1"}, "Forwarded": {"for=198.51.100.1"}}
	if u.Scheme == "http" { // HTTP/2 has no such header
		r.Header.Set("Connection", "X-Forwarded-For, Forwarded")
	}
	if form != "" {
		r.Header.Set("Content-Type", urlencoded)
	}
	for name, values := range header {
		r.Header[name] = values
	}
	res, err := b.client.RoundTrip(r)
	if err != nil {
		b.tb.Fatalf("%s %s: %v\n%s", method, path, err, b.log)
	}
	a, err := readAnswer(res)
	if err != nil {
		b.tb.Fatal(err)
	}
	if a.Header["Set-Cookie"] != nil {
		b.tb.Errorf("%s %s sets a cookie: %v", method, path, a.Header)
	}
	return a
}

func passesAll(t *testing.T, scheme string, b *behind) {
	b.user("ann@example.org", good)
	credentials := form("username", "ann@example.org", "password", good)

	// A program's session.
	tokens := b.send("POST", api+"login", credentials, nil).wants(t, 200, "login")
	bearer := func(a answer) http.Header { return http.Header{"Authorization": {"Bearer " + a.field("access_token")}} }
	b.send("GET", userPath, "", bearer(tokens)).wants(t, 200, "the current user")
	sessions := b.send("GET", api+"sessions", "", bearer(tokens)).wants(t, 200, "the sessions")
	if !strings.Contains(string(sessions.Body), b.from) {
		t.Errorf("the session is not from %s: %v", b.from, sessions)
	}
	renewed := b.send("POST", api+"access_token", form("refresh_token", tokens.field("refresh_token")), nil).wants(t, 200, "renewal")
	b.send("POST", api+"logout", form("refresh_token", renewed.field("refresh_token")), bearer(renewed)).wants(t, 200, "logout")
	b.send("GET", userPath, "", bearer(renewed)).wants(t, 401, "the current user after the logout")
	for _, path := range []string{api + "login", "/nothing", userPath} {
		want := map[string]int{"/nothing": 404, userPath: 405}
		b.send("POST", path, strings.Repeat("x", 200<<10), nil).wants(t, cmp.Or(want[path], 413), "a body that nobody reads for "+path)
	}
	b.send("OPTIONS", api+"login", "", http.Header{
		"Origin": {"https://club.example.org"}, "Access-Control-Request-Method": {"POST"}, "Access-Control-Request-Headers": {"traceparent"},
	}).wants(t, 204, "a preflight")

	// Pages lead on below the path at which people see them.
	origin := strings.TrimSuffix(b.public, "/auth")
	for _, own := range []http.Header{{"Origin": {origin}}, {"Origin": {origin}, "Sec-Fetch-Site": {"same-origin"}}} {
		a := b.send("POST", "/recover", form("email", "ann@example.org"), own).wants(t, 303, "the form of the page")
		b.leadsTo(a, "/recover", "/sent")
	}
	b.send("GET", "/sent", "", nil).wants(t, 200, "where it leads")
	b.send("GET", "/style.css?v=1", "", nil).wants(t, 200, "the style sheet")
	b.send("POST", "/recover", form("email", "ann@example.org"), http.Header{"Origin": {"https://evil.example"}}).wants(t, 403, "another site's form")
	if description := b.send("GET", "/openapi.yaml", "", nil); !strings.Contains(string(description.Body), "url: '"+b.public+"'") {
		t.Errorf("the description doesn't name %s", b.public)
	}

	// Paths that look odd get an answer to them, or none, and lead nowhere.
	for _, path := range []string{
		"/" + api + "login", "/api//v1/auth/login", "/x/.." + api + "login", "/." + api + "login", api + "login/", api + "login//", api + "./login",
		"/%2e%2e" + api + "login", "/x/%2E%2E" + api + "login", "/..;" + api + "login", "/%2f" + api + "login", api + "login/..", "//example.com/..",
		"/../auth" + api + "login", "/..%2fauth" + api + "login", "//", "/.", "/..", "/%5c..%5c", api + "sessions/%2e%2e", api + "sessions/..%2f..",
	} {
		a := b.send("POST", path, credentials, nil)
		switch a.Status {
		case 200: // the proxy tidied it up
			if a.field("access_token") == "" {
				t.Errorf("POST %s: %v", path, a)
			}
		case 400, 404, 405: // some proxies refuse it, and so does kwai
			if kind := a.Header.Get("Content-Type"); kind == "application/problem+json" {
				var problem struct{ Status int }
				if err := json.Unmarshal(a.Body, &problem); err != nil || problem.Status != a.Status {
					t.Errorf("POST %s: %v", path, a)
				}
			}
		default:
			t.Errorf("POST %s: %v %v", path, a, a.Header)
		}
	}
	b.stop()
	if log := b.log.String(); strings.Contains(log, "198.51.100.1") || !strings.Contains(log, `"client":"`+b.from+`"`) || strings.Contains(log, "trusted") {
		t.Errorf("clients are not known, or something is wrong:\n%s", log)
	}
}

// leadsTo says whether an answer leads from one page to another, as a browser
// reads it.
func (b *behind) leadsTo(a answer, from, to string) {
	b.tb.Helper()
	at, err := url.Parse(b.public + from)
	if err != nil {
		b.tb.Fatal(err)
	}
	location, err := at.Parse(a.Header.Get("Location"))
	if err != nil || location.String() != b.public+to {
		b.tb.Errorf("%s leads to %q (%v), want %s", at, a.Header.Get("Location"), err, b.public+to)
	}
}
