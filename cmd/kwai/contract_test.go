package main

import (
	"fmt"
	"net/http"
	"testing"
)

const good = "a long enough one" // a password

// login is a successful one, with good.
func (s *site) login(email string) answer {
	s.tb.Helper()
	a := s.post("login", "", "username", email, "password", good)
	if a.Status != http.StatusOK {
		s.tb.Fatalf("login: %v\n%s", a, s.log)
	}
	return a
}

func TestShutdownAnswersWhatIsUnderWay(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		s.user("ann@example.org", good)
		body := encodeURL("username", "ann@example.org", "password", good)
		conn := s.dial()
		fmt.Fprintf(conn, "POST /api/v1/auth/login HTTP/1.1\r\nHost: kwai\r\nContent-Type: %s\r\nContent-Length: %d\r\nExpect: 100-continue\r\n\r\n", urlencoded, len(body))
		if a := conn.answer("POST"); a.Status != 100 { // now the handler waits for the form
			t.Fatal(a)
		}
		s.stop()
		s.log.wait(t, 1, `"msg":"stopping`)
		fmt.Fprint(conn, body)
		if a := conn.answer("POST"); a.Status != 200 || a.field("access_token") == "" {
			t.Errorf("the login under way: %v", a)
		}
		if code := s.close(); code != 0 {
			t.Errorf("exit code %d", code)
		}
	})
}
