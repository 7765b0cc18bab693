package store_test

import (
	"strings"
	"testing"

	"kwai/internal/store"
)

// TestNoPartOfAPasswordIsAHost: what a raw character leaves of a password is
// neither told nor asked for.
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
		"postgres://kwai:open@host:99999/unspoken",
	} {
		_, err := store.Open(t.Context(), store.Options{URL: url})
		if err == nil || !strings.HasPrefix(err.Error(), "it can't be read as postgres://USER:PASSWORD@HOST:PORT/DATABASE; percent-encode") ||
			strings.Contains(err.Error(), "spoken") || strings.Contains(err.Error(), "1234") {
			t.Errorf("%s: %v", url, err)
		}
	}
}

// TestURLsOfPostgreSQLAreRead: port 1 of loopback, where nobody listens, is told.
func TestURLsOfPostgreSQLAreRead(t *testing.T) {
	t.Parallel()
	for url, at := range map[string]string{
		"postgres://kwai:p%40ss%2Fw@127.0.0.1:1/kwai":                           "127.0.0.1:1",
		"postgres://kwai:a#b?c,d:e@127.0.0.1:1/kwai":                            "127.0.0.1:1",
		"postgres://127.0.0.1:1":                                                "127.0.0.1:1",
		"postgresql://kwai@127.0.0.1:1/kw%2Fai?sslmode=disable&search_path=a,b": "127.0.0.1:1",
		"postgres://kwai@[::1]:1/kwai?sslmode=disable":                          "[::1]:1",
		"postgres://kwai@127.0.0.1:1,127.0.0.2:1/kwai?sslmode=disable":          "127.0.0.1:1, 127.0.0.2:1",
		"postgres:///kwai?host=/nowhere&port=1":                                 "/nowhere",
		"postgres://kwai@%2Fnowhere/kwai":                                       "/nowhere",
	} {
		if _, err := store.Open(t.Context(), store.Options{URL: url}); err == nil || !strings.HasPrefix(err.Error(), "PostgreSQL at "+at+":") {
			t.Errorf("%s: %v, want that nobody answers at %s", url, err, at)
		}
	}
}
