package web_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"kwai/internal/auth"
	"kwai/internal/password"
)

// rawConn is a connection of a client that keeps to no rules, to a site that
// listens.
type rawConn struct {
	net.Conn
	site *site
}

func (s *site) dial() *rawConn {
	s.tb.Helper()
	c, err := (&net.Dialer{}).DialContext(s.tb.Context(), "tcp", strings.TrimPrefix(s.URL, "http://"))
	s.ok(err)
	s.tb.Cleanup(func() { c.Close() }) // before the server ends, which would wait for it
	return &rawConn{c, s}
}

// answer reads the answer to a request of that method.
func (c *rawConn) answer(method string) answer {
	c.site.tb.Helper()
	res, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: method})
	c.site.ok(err)
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	c.site.ok(err)
	return answer{res.StatusCode, res.Header, body}
}

// TestLogHoldsNoSecrets does all there is to do, well and badly, and then looks
// for what was sent and answered in the log and in the answers of refusals.
func TestLogHoldsNoSecrets(t *testing.T) {
	withMail(t, func(t *testing.T, s *site) {
		s = s.listen()
		s.user("ann@example.org", good)
		secret := map[string]string{
			"the password": good, "a wrong password": "Wrong-Secret-1", "the next password": "Chosen-Secret-2", "a refused password": "bad\x01Secret-3",
			"an unknown address": "unknown-person@example.net", "a malformed address": "malformed-person", "an address in the query": "query-person",
			"a client's secret": "client-Secret-4", "an unknown field": "other-Secret-5", "a forged token": "forged-Secret-6", "an unknown id": "id-Secret-7",
			"a header": "header-Secret-8", "a path": "path-Secret-9",
		}
		refused := func(a answer) {
			t.Helper()
			if a.Status < 400 {
				t.Errorf("%v, want a refusal", a)
			}
			for what, text := range secret {
				if strings.Contains(string(a.Body), text) {
					t.Errorf("a refusal has %s: %v", what, a)
				}
			}
		}
		const query = "?email=query-person&uuid=query-person&access_token=query-person"
		in := s.post("login", "", "username", "ann@example.org", "password", good, "client_secret", secret["a client's secret"], "other", secret["an unknown field"])
		next := s.post("access_token", "", "refresh_token", in.field("refresh_token"))
		id := s.recovery("ann@example.org")
		for what, text := range map[string]string{
			"an access token": in.field("access_token"), "a renewed access token": next.field("access_token"),
			"a refresh token": in.field("refresh_token"), "a renewed refresh token": next.field("refresh_token"), "a recovery's id": id,
		} {
			if secret[what] = text; text == "" {
				t.Fatal("there is no " + what)
			}
		}
		refused(s.post("login", "", "username", "ann@example.org", "password", secret["a wrong password"]))
		refused(s.post("login", "", "username", secret["an unknown address"], "password", good))
		refused(s.post("login", "", "username", secret["a malformed address"], "password", good))
		refused(s.post("login", "", "username", secret["an unknown address"], "password", good, "grant_type", secret["an unknown field"]))
		refused(s.post("login", "", secret["an unknown field"], "x"))
		refused(s.send("POST", "/api/v1/auth/login"+query, "", urlencoded, "password="+secret["a wrong password"]+"%"))
		refused(s.send("POST", "/api/v1/auth/login"+query, "", "text/"+secret["an unknown field"], "x"))
		refused(s.send("GET", "/"+secret["a path"]+query, "", "", ""))
		refused(s.send("GET", "/api/v1/auth/login"+query, "", "", ""))
		refused(s.post("access_token", "", "refresh_token", secret["a forged token"]))
		refused(s.post("logout", secret["a forged token"], "refresh_token", next.field("refresh_token")))
		refused(s.post("logout", next.field("access_token"), "refresh_token", secret["a forged token"]))
		refused(s.get(userPath+query, secret["a forged token"]))
		refused(s.from("https://"+secret["a header"], "POST", "/recover"+query, urlencoded, "email="+secret["an unknown address"]))
		refused(s.post("reset", "", "uuid", secret["an unknown id"], "password", secret["the next password"]))
		refused(s.post("reset", "", "uuid", id, "password", secret["a refused password"]))
		s.post("recover", "", "email", secret["an unknown address"])
		s.post("recover", "", "email", secret["a malformed address"])
		s.send("POST", "/recover", "", urlencoded, encodeURL("email", secret["an unknown address"]))
		s.get("/reset?uuid="+id, "")
		s.get(userPath+query, next.field("access_token"))
		conn := s.dial()
		if _, err := conn.Write([]byte("GET /" + secret["a path"] + " HTTP/1.1\r\nHost: \x01" + secret["a header"] + "\r\n\r\n")); err != nil {
			t.Fatal(err)
		}
		conn.answer("GET")
		s.post("logout", next.field("access_token"), "refresh_token", next.field("refresh_token"))
		if a := s.post("reset", "", "uuid", id, "password", secret["the next password"]); a.Status != 200 {
			t.Fatal(a)
		}
		s.sent(2) // the link and the notice
		s.log.wait(t, 1, `"route":"/api/v1/auth/reset","status":200`)
		log := s.log.String()
		for what, text := range secret {
			if strings.Contains(log, text) {
				t.Errorf("the log has %s, %q:\n%s", what, text, log)
			}
		}
		if !strings.Contains(log, `"route":"/api/v1/auth/reset"`) {
			t.Errorf("the log lacks the requests:\n%s", log)
		}
	}, debugLog)
}

// TestClientThatHangsUpDuringALogin is not logged in, and is no error.
func TestClientThatHangsUpDuringALogin(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		s = s.listen()
		// One is being hashed, two wait. Where a hash has ended before its client
		// was seen to have hung up, it is tried again with one that takes longer.
		for passes := uint32(1); ; passes *= 2 {
			email := fmt.Sprintf("ann%d@example.org", passes)
			s.create(auth.NewUser{Email: email, Hash: hash(t, password.Params{MemoryKiB: 4 << 10, Time: passes, Threads: 1})})
			body := encodeURL("username", email, "password", good)
			begun := s.log.String()
			for range 3 {
				conn := s.dial()
				fmt.Fprintf(conn, "POST /api/v1/auth/login HTTP/1.1\r\nHost: kwai\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s", urlencoded, len(body), body)
				conn.Close()
			}
			const route = `"route":"/api/v1/auth/login"`
			s.log.wait(t, strings.Count(begun, route)+3, route)
			log := strings.TrimPrefix(s.log.String(), begun)
			if strings.Contains(log, `"level":"ERROR"`) || strings.Contains(log, `"error"`) {
				t.Errorf("the log has an error:\n%s", log)
			}
			given := strings.Count(log, route+`,"status":503`)
			if user, err := s.command.User(t.Context(), email); err != nil || given == 3 && !user.LastLoginAt.IsZero() {
				t.Errorf("the user was logged in: %+v, %v", user, err)
			}
			s.login(email)
			if given == 3 {
				return
			}
			t.Logf("with %d passes %d of 3 were given up:\n%s", passes, given, log)
		}
	})
}

// hash is one of good with other parameters than the site's.
func hash(tb testing.TB, params password.Params) string {
	tb.Helper()
	pool := password.NewPool(password.Options{Params: params, Workers: 1})
	defer pool.Close()
	text, _, err := pool.Hash(tb.Context(), good)
	if err != nil {
		tb.Fatal(err)
	}
	return text
}
