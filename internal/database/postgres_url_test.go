package database_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"kwai/internal/database"
	"kwai/internal/store"
	"kwai/internal/testing/storetest"
)

// TestNoPartOfAPasswordIsAHost: what a raw character leaves of a password is
// neither in the error nor looked up.
func TestNoPartOfAPasswordIsAHost(t *testing.T) {
	t.Parallel()
	for _, url := range []string{
		"postgres://kwai:open@unspoken@host/kwai",
		"postgres://kwai:open@unspoken:5432@host/kwai",
		"postgres://kwai:open@unspoken/x@host/kwai",
		"postgresql://kwai:1234/unspoken@host/kwai",
		"postgres://kwai:1234/unspoken?a=b@host/kwai",
		"postgres://kwai:1234?unspoken=b/@host/kwai",
		"postgres://kwai:1234,unspoken/b@host/kwai",
		"postgres://kwai:unspoken/host/kwai",
		"postgres://kwai:1234#unspoken/kwai",
		"postgres://kwai:0/unspoken@host/kwai",
		"postgres://kwai:open@un#spoken/kwai",
		"postgres://kwai:open@[unspoken]/kwai",
		"postgres://kwai:open@un spoken/kwai",
		"postgres://kwai:open@host/kwai?password=un@spoken",
		"postgres://kwai:open@host/kwai#unspoken",
		"postgres://kwai:un%zzspoken@host/kwai",
		"postgres://kwai:unspoken/kwai",
		"postgres://kwai:unspoken%00@host/kwai",
	} {
		_, err := store.Open(t.Context(), database.Options{URL: url})
		if err == nil || !strings.HasPrefix(err.Error(), "it can't be read as postgres://USER:PASSWORD@HOST:PORT/DATABASE; percent-encode") ||
			strings.Contains(err.Error(), "spoken") || strings.Contains(err.Error(), "1234") {
			t.Errorf("%s: %v", url, err)
		}
	}
}

// TestURLsOfPostgreSQLAreRead: the error names port 1 of loopback, where nobody listens.
func TestURLsOfPostgreSQLAreRead(t *testing.T) {
	t.Parallel()
	for url, at := range map[string]string{
		"postgres://kwai:p%40ss%2Fw@127.0.0.1:1/kwai":                           "127.0.0.1:1",
		"postgres://kwai:a#b?c,d:e@127.0.0.1:1/kwai":                            "127.0.0.1:1",
		"postgres://kwai@127.0.0.1:1/kwai?":                                     "127.0.0.1:1",
		"postgres://127.0.0.1:1":                                                "127.0.0.1:1",
		"postgresql://kwai@127.0.0.1:1/kw%2Fai?sslmode=disable&search_path=a,b": "127.0.0.1:1",
		"postgres://kwai@[::1]:1/kwai?sslmode=disable":                          "[::1]:1",
		"postgres://kwai@127.0.0.1:1/kwai?client_encoding=utf8&connect_timeout=3&sslmode=&ssl=true&options=-c%20geqo%3Doff&": "127.0.0.1:1",
		"postgres://kwai@bücher.invalid:1/kwai":                        "xn--bcher-kva.invalid:1",
		"postgres://kwai@127.0.0.1:1,127.0.0.2:1/kwai?sslmode=disable": "127.0.0.1:1, 127.0.0.2:1",
		"postgres:///kwai?host=/nowhere&port=1":                        "/nowhere",
		"postgres://kwai@%2Fnowhere/kwai":                              "/nowhere",
	} {
		if _, err := store.Open(t.Context(), database.Options{URL: url}); err == nil || !strings.HasPrefix(err.Error(), "PostgreSQL at "+at+":") {
			t.Errorf("%s: %v, want that nobody answers at %s", url, err, at)
		}
	}
}

// TestWhatIsWrongWithAURLIsSaid, and nothing of its password.
func TestWhatIsWrongWithAURLIsSaid(t *testing.T) {
	t.Parallel()
	noCert := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(noCert, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for parameters, want := range map[string]string{
		"sslrootcert=/missing/ca.pem&sslmode=verify-full":   "sslrootcert: open /missing/ca.pem: no such file",
		"sslrootcert=" + noCert:                             "sslrootcert: " + noCert + " has no certificate in PEM",
		"sslcert=/missing/c.pem&sslkey=/missing/c.key":      "sslcert: open /missing/c.pem: no such file",
		"sslkey=/missing/c.key":                             "sslkey: open /missing/c.key: no such file",
		"sslmode=verify_full":                               "sslmode must be disable or allow or prefer or require or verify-ca or verify-full",
		"sslmode=no-verify":                                 "sslmode must be",
		"ssl=yes":                                           "ssl must be true",
		"sslnegotiation=fast":                               "sslnegotiation must be",
		"sslcertmode=never":                                 "sslcertmode must be",
		"channel_binding=on":                                "channel_binding must be",
		"target_session_attrs=master":                       "target_session_attrs must be",
		"min_protocol_version=2":                            "min_protocol_version must be",
		"client_encoding=latin1":                            "client_encoding must be UTF8",
		"connect_timeout=5s":                                "connect_timeout must be a number of seconds, without a unit",
		"connect_timeout=-1":                                "connect_timeout must be",
		"port=54x2":                                         "a port must be a number from 1 to 65535",
		"port=5432,0":                                       "a port must be",
		"host=a,b,c&port=1,2":                               "2 port numbers to 3 hosts",
		"service=nowhere&servicefile=/missing/service":      "/missing/service",
		"require_auth=password,!md5":                        "require_auth",
		"min_protocol_version=3.2&max_protocol_version=3.0": "min_protocol_version cannot be greater",
		"default_query_exec_mode=fast":                      "default_query_exec_mode",
		"hostaddr=192.0.2.1":                                "kwai doesn't take the parameter hostaddr: write the address as the host",
		"keepalives_idle=10":                                "the parameter keepalives_idle: leave it out",
		"gssencmode=disable":                                "the parameter gssencmode: leave it out",
		"sslcrl=x":                                          "the parameter sslcrl: ",
		"load_balance_hosts=random":                         "the parameter load_balance_hosts: ",
		"sslmode":                                           "its parameters must be NAME=VALUE",
		"search_path=a=b":                                   "its parameters must be NAME=VALUE",
		"sslmode=%zz":                                       "its parameters must be NAME=VALUE",
		"&sslmode=disable":                                  "its parameters must be NAME=VALUE",
	} {
		_, err := store.Open(t.Context(), database.Options{URL: "postgres://kwai:un%20spoken`: @127.0.0.1:1/kwai?" + parameters})
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "spoken") || strings.Contains(err.Error(), "percent-encode") || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v, want %q", parameters, err, want)
		}
	}
	for _, url := range []string{
		"postgres://kwai:unspoken@host:99999/kwai", "postgres://kwai:unspoken@host:0/kwai", "postgres://kwai:unspoken@host:54x2/kwai",
		"postgres://kwai:unspoken@a:1,b:70000/kwai", "postgres://host:99999/unspoken", "postgres://kwai:unspoken@%2Fnowhere:x/kwai",
	} {
		if _, err := store.Open(t.Context(), database.Options{URL: url}); err == nil || err.Error() != "a port must be a number from 1 to 65535" {
			t.Errorf("%s: %v", url, err)
		}
	}
}

// TestParametersThatPostgreSQLDoesNotKnow, which it says only once it is asked.
func TestParametersThatPostgreSQLDoesNotKnow(t *testing.T) {
	t.Parallel()
	_, err := store.Open(t.Context(), database.Options{URL: storetest.Postgres(t) + "&schema=public"})
	if err == nil || !strings.Contains(err.Error(), `a parameter that PostgreSQL doesn't know: leave it out (a schema is named by search_path=NAME) (`) ||
		!strings.Contains(err.Error(), `"schema"`) || strings.Contains(err.Error(), "\n") {
		t.Errorf("it says %v", err)
	}
	_, err = store.Open(t.Context(), database.Options{URL: storetest.Postgres(t) + "&sslpassword=open&unspoken=1"})
	if err == nil || !strings.Contains(err.Error(), "a parameter that PostgreSQL doesn't know") || strings.Contains(err.Error(), "spoken") {
		t.Errorf("it says %v", err)
	}
}

// The environment may have a part in it: psql's variables are read as well.
func TestWhatIsWrongWithTheEnvironmentIsSaid(t *testing.T) {
	for variable, value := range map[string]string{"PGSSLMODE": "verify_full", "PGCONNECT_TIMEOUT": "5s", "PGSSLROOTCERT": "/missing/ca.pem", "PGPORT": "x", "PGSERVICE": "nowhere"} {
		t.Run(variable, func(t *testing.T) {
			t.Setenv(variable, value)
			_, err := store.Open(t.Context(), database.Options{URL: "postgres://kwai:unspoken@host/kwai"})
			if err == nil || !strings.HasPrefix(err.Error(), "it can't be used with these parameters and PG… variables: ") || strings.Contains(err.Error(), "spoken") {
				t.Errorf("it says %v", err)
			}
		})
	}
}
