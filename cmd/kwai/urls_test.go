package main

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"kwai/internal/testing/mailtest"
	"kwai/internal/testing/storetest"

	"github.com/alecthomas/kong"
)

// finished are the settings as a command would have them.
func finished(t *testing.T, flags ...string) (*Settings, error) {
	t.Helper()
	var k cli
	parser, err := kong.New(&k, helpVars())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := parser.Parse(append([]string{"version"}, flags...)); err != nil {
		t.Fatal(err)
	}
	return &k.Settings, k.finish()
}

// Browsers write an Origin in lower case, in punycode and without the default
// port; ours must be equal to it.
func TestPublicURLIsWrittenAsBrowsersWriteOrigins(t *testing.T) {
	t.Parallel()
	for given, want := range map[string]string{
		"https://Auth.Example.ORG/":       "https://auth.example.org",
		"https://auth.example.org:443":    "https://auth.example.org",
		"http://auth.example.org:80/Kwai": "http://auth.example.org/Kwai",
		"https://auth.example.org:80":     "https://auth.example.org:80",
		"http://[::1]:80":                 "http://[::1]",

		"https://auth.example.org:":             "https://auth.example.org",
		"https://auth.example.org:0443":         "https://auth.example.org",
		"https://bücher.example":                "https://xn--bcher-kva.example",
		"https://BÜCHER.example/Küche":          "https://xn--bcher-kva.example/K%C3%BCche",
		"https://bu\u0308cher.example":          "https://xn--bcher-kva.example", // NFD
		"https://b%C3%BCcher.example":           "https://xn--bcher-kva.example",
		"https://XN--Bcher-KVA.example":         "https://xn--bcher-kva.example",
		"https://bücher。example:8443":           "https://xn--bcher-kva.example:8443",
		"https://straße.example":                "https://xn--strae-oqa.example",
		"https://柔道.example":                    "https://xn--1uv841g.example",
		"https://a_b.example":                   "https://a_b.example",
		"https://r3---sn-x.example":             "https://r3---sn-x.example",
		"http://kwai:8080":                      "http://kwai:8080",
		"https://[2001:DB8:0:0::1]:8443/":       "https://[2001:db8::1]:8443",
		"https://[::ffff:192.0.2.1]":            "https://[::ffff:c000:201]",
		"https://192.0.2.1":                     "https://192.0.2.1",
		"https://\uff11\uff19\uff12.0.2.1:8443": "https://192.0.2.1:8443",
	} {
		u, err := publicURLOf(given)
		if err != nil || u.String() != want {
			t.Errorf("%s is %s, want %s; %v", given, u, want, err)
		}
	}
	for _, given := range []string{
		"https://*.example.org", "https://a..example", "https://\u202eauth.example", "https://-ü.example",
		"https://127.1", "https://0x7f.0.0.1", "https://2130706433", "https://192.168.001.005", "https://a.example:0", "https://a.example:65536", "https://[fe80::1%25eth0]",
		"https://a'b.example", "https://a,b.example", "https://.", "ftp://auth.example.org", "https://user@auth.example.org", "https:auth.example.org", "auth.example.org",
		"https://" + strings.Repeat("a", 64) + ".example",
	} {
		if u, err := publicURLOf(given); err == nil || !strings.HasPrefix(err.Error(), "--public-url: ") {
			t.Errorf("%s is %s, %v", given, u, err)
		}
	}
	s, err := finished(t, "--public-url=https://Bücher.example:443", "--site-url=https://Bücher.example:443/Küche?a#b", "--cors-origins=https://Bücher.example:443, app://-")
	if err != nil || s.publicURL.String() != "https://xn--bcher-kva.example" || s.SiteURL != "https://xn--bcher-kva.example/K%C3%BCche?a#b" ||
		!slices.Equal(s.CORSOrigins, []string{"https://xn--bcher-kva.example", "app://-"}) {
		t.Errorf("the settings are %s, %s, %q; %v", s.publicURL, s.SiteURL, s.CORSOrigins, err)
	}
}

// What is plainly meant becomes what browsers send.
func TestOriginsAreWrittenAsBrowsersSendThem(t *testing.T) {
	t.Parallel()
	for given, want := range map[string]string{
		"https://club.example.org":                                    "https://club.example.org",
		"https://a.example, http://b.example ,https://c.example,":     "https://a.example http://b.example https://c.example",
		" https://a.example\thttps://b.example":                       "https://a.example https://b.example",
		"":                                                            "",
		"https://x:443,http://x:80":                                   "https://x http://x",
		"https://x:80,http://x:443":                                   "https://x:80 http://x:443",
		"http://localhost:03000":                                      "http://localhost:3000",
		"HTTPS://Club.Example.ORG/":                                   "https://club.example.org",
		"https://club.example.org:":                                   "https://club.example.org",
		"https://club.example.org:/#":                                 "https://club.example.org",
		"https://bücher.example":                                      "https://xn--bcher-kva.example",
		"https://BÜCHER.example:443/":                                 "https://xn--bcher-kva.example",
		"http://[0:0:0:0:0:0:0:1]:80":                                 "http://[::1]",
		"http://[::ffff:192.0.2.1]":                                   "http://[::ffff:c000:201]",
		"https://club.example.org.":                                   "https://club.example.org.", // another origin to browsers
		"http://tauri.localhost":                                      "http://tauri.localhost",
		"capacitor://localhost":                                       "capacitor://localhost",
		"Capacitor://LOCALHOST/":                                      "capacitor://localhost",
		"ionic://localhost:8100":                                      "ionic://localhost:8100",
		"tauri://localhost":                                           "tauri://localhost",
		"app://localhost,app://obsidian.md":                           "app://localhost app://obsidian.md",
		"app://-,app://.":                                             "app://- app://.",
		"com.example.app://localhost":                                 "com.example.app://localhost",
		"vscode-webview://0abc":                                       "vscode-webview://0abc",
		"chrome-extension://abcdefghijklmnopabcdefghijklmnop/":        "chrome-extension://abcdefghijklmnopabcdefghijklmnop",
		"moz-extension://6f1c1f0e-5b0a-4f9e-8f0e-3a2b1c0d9e8f":        "moz-extension://6f1c1f0e-5b0a-4f9e-8f0e-3a2b1c0d9e8f",
		"safari-web-extension://6F1C1F0E-5B0A-4F9E-8F0E-3A2B1C0D9E8F": "safari-web-extension://6F1C1F0E-5B0A-4F9E-8F0E-3A2B1C0D9E8F",
	} {
		origins, err := originsOf(strings.Split(given, ","))
		if got := strings.Join(origins, " "); err != nil || got != want {
			t.Errorf("%q is %q, want %q; %v", given, got, want, err)
		}
	}
	for given, want := range map[string]string{ // or what is to be written
		"*":                               "wildcard",
		"https://*.example.org":           "wildcard",
		"https://*":                       "wildcard",
		"chrome-extension://*":            "wildcard",
		"https://x:*":                     "wildcard",
		"null":                            "any page",
		"club.example.org":                "write https://club.example.org",
		"club.example.org:8443":           "write https://club.example.org:8443",
		"localhost:3000":                  "write http://localhost:3000",
		"localhost":                       "write http://localhost",
		"https://club.example.org/login":  "write https://club.example.org",
		"https://Club.example.org:443/a/": "write https://club.example.org",
		"https://club.example.org?a":      "write https://club.example.org",
		"https://club.example.org/?":      "write https://club.example.org",
		"https://club.example.org/#a":     "write https://club.example.org",
		"https://me@club.example.org":     "write https://club.example.org",
		"capacitor://localhost/index":     "write capacitor://localhost",
		"ws://club.example.org":           "write https://club.example.org",
		"wss://club.example.org:443":      "write https://club.example.org",
		"htps://club.example.org":         "write https://club.example.org",
		"htttp://localhost:3000":          "write http://localhost:3000",
		"file://localhost":                "no origin of their own",
		"file:///home/ann/page.html":      "a host",
		"capacitor://":                    "a host",
		"https://":                        "a host",
		"//club.example.org":              "must be a scheme",
		"https:club.example.org":          "must be a scheme",
		"https://a..example":              "no domain name",
		"https://x:0":                     "its port",
		"https://x:65536":                 "its port",
		"http://127.1":                    "IPv4",
		"http://[fe80::1%25eth0]":         "zone",
		"app://bücher":                    "its host",
		"app://a'b":                       "its host",
	} {
		_, err := originsOf([]string{"https://a.example", given})
		if err == nil || !strings.HasPrefix(err.Error(), "--cors-origins: \""+given+"\" is not an origin") || !strings.Contains(err.Error()+"\n", want) {
			t.Errorf("%q: %v, want %q", given, err, want)
			continue
		}
		if _, right, ok := strings.Cut(err.Error(), "write "); ok && right != strings.TrimPrefix(want, "write ") {
			t.Errorf("%q: %v, want %q", given, err, want)
		} else if ok {
			if again, err := originsOf([]string{right}); err != nil || !slices.Equal(again, []string{right}) {
				t.Errorf("%q: what it says to write is taken as %q, %v", given, again, err)
			}
		}
	}
}

// A host in any script is in punycode everywhere, however it was typed: in tokens,
// the key set, links, mails and events.
func TestTheIssuerIsInPunycode(t *testing.T) {
	t.Parallel()
	const want = "https://xn--bcher-kva.example"
	for _, typed := range []string{"https://Bücher.example:443/", want} {
		mails := mailtest.Serve(t)
		s := start(t, storetest.SQLite(t), "--public-url="+typed, "--smtp="+mails.URL())
		s.user("ann@example.org", good)
		_, claims := partsOf(t, s.login("ann@example.org").field("access_token"))
		if claims["iss"] != want {
			t.Errorf("%s: iss is %v", typed, claims["iss"])
		}
		if got := s.get("/.well-known/jwks.json", "").field("issuer"); got != want {
			t.Errorf("%s: the key set's issuer is %s", typed, got)
		}
		if text := string(s.get("/openapi.yaml", "").Body); !strings.Contains(text, "'"+want+"'") {
			t.Errorf("%s: openapi.yaml doesn't name %s", typed, want)
		}
		s.recovery(mails, "ann@example.org")
		mail := mails.Mails()[0]
		if !strings.Contains(mail.Text, want+"/reset?uuid=") || mail.From != "noreply@xn--bcher-kva.example" || strings.Contains(string(mail.Raw), "ü") || strings.Contains(string(mail.Raw), "%C3") {
			t.Errorf("%s: the mail is %s", typed, mail.Raw)
		}
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL+"/recover", strings.NewReader("email=nobody%40example.org"))
		if err != nil {
			t.Fatal(err)
		}
		r.Header = http.Header{"Origin": {want}, "Content-Type": {urlencoded}} // though the Host is another one
		if a := s.do(r); a.Status != http.StatusSeeOther {
			t.Errorf("%s: the form: %v", typed, a)
		}
	}
}
