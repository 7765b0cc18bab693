package web_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
)

// Whoever sends all of a request before it reads gets the whole answer, also
// where the answer didn't need the body, and the connection is closed then, as
// nginx asks by default. Closed with a body unread, it would be reset.
func TestAnswersToBodiesThatNobodyReads(t *testing.T) {
	t.Parallel()
	s := bare(t).listen()
	const form = "Content-Type: application/x-www-form-urlencoded\r\n"
	for name, c := range map[string]struct {
		request string // its line and headers
		size    int
		status  int
	}{
		"nothing is there":         {"POST /nothing HTTP/1.0\r\n", 50 << 10, 404},
		"a path that is not clean": {"POST //nothing HTTP/1.0\r\n", 50 << 10, 404},
		"no such method":           {"POST /healthz HTTP/1.0\r\n", 50 << 10, 405},
		"a GET with a body":        {"GET /healthz HTTP/1.0\r\n", 50 << 10, 200},
		"a large answer":           {"GET /openapi.yaml HTTP/1.0\r\n", 50 << 10, 200},
		"no form":                  {"POST /api/v1/auth/login HTTP/1.0\r\nContent-Type: application/json\r\n", 50 << 10, 415},
		"another site's":           {"POST /api/v1/auth/login HTTP/1.0\r\nOrigin: https://evil.example\r\n" + form, 50 << 10, 403},
		"too large":                {"POST /api/v1/auth/login HTTP/1.0\r\n" + form, 200 << 10, 413},
		"too large, in HTTP/1.1":   {"POST /api/v1/auth/login HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" + form, 200 << 10, 413},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", strings.TrimPrefix(s.URL, "http://"))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if _, err := fmt.Fprintf(conn, "%sContent-Length: %d\r\n\r\n%s", c.request, c.size, strings.Repeat("x", c.size)); err != nil {
				t.Fatal(err)
			}
			res, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			if res.StatusCode != c.status {
				t.Errorf("answered %d, want %d", res.StatusCode, c.status)
			}
			if _, err := io.Copy(io.Discard, res.Body); err != nil {
				t.Error(err)
			}
			if _, err := io.Copy(io.Discard, conn); err != nil { // the end, and no reset
				t.Error(err)
			}
		})
	}
}
