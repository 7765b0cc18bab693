package main

import (
	"testing"

	"github.com/alecthomas/kong"
)

// Browsers write an Origin in lower case and without the default port; ours
// must be equal to it.
func TestPublicURLIsWrittenAsBrowsersWriteOrigins(t *testing.T) {
	t.Parallel()
	for given, want := range map[string]string{
		"https://Auth.Example.ORG/":       "https://auth.example.org",
		"https://auth.example.org:443":    "https://auth.example.org",
		"http://auth.example.org:80/Kwai": "http://auth.example.org/Kwai",
		"https://auth.example.org:80":     "https://auth.example.org:80",
		"http://[::1]:80":                 "http://[::1]",
	} {
		var k cli
		parser, err := kong.New(&k, settingDefaults())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := parser.Parse([]string{"version", "--public-url=" + given}); err != nil {
			t.Fatal(err)
		}
		if err := k.finish(); err != nil {
			t.Fatal(err)
		}
		if got := k.publicURL.String(); got != want {
			t.Errorf("%s is %s, want %s", given, got, want)
		}
	}
}
