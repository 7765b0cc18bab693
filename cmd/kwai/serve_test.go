package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

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

// The holder of a lease is named as the server that it is names itself in its log.
func TestAServerIsNamedByItsLogAndItsLeases(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		s.mustCommand("", "user", "create", "ann@example.org")
		var v contentView
		for len(v.Leases) == 0 {
			if err := json.Unmarshal([]byte(s.mustCommand("", "status", "--json")), &v); err != nil {
				t.Fatal(err)
			}
		}
		if !strings.Contains(s.log.String(), `"server":"`+v.Leases[0].Owner+`"`) {
			t.Errorf("the log names no server %s: %s", v.Leases[0].Owner, s.log)
		}
	})
}
