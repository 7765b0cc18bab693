package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	netmail "net/mail"
	"strings"
	"testing"
	"time"

	"kwai/internal/testing/mailtest"
	"kwai/internal/testing/need"
	"kwai/internal/testing/storetest"
)

// What the log says of a mail.
const (
	triedAgain = "it is tried again"
	overtaken  = "its cause was overtaken"
	givenUp    = "could not be delivered before it expired"
)

// outages are some ways in which a mail server takes no mail; each returns what
// ends it. Package mail's tests have more.
var outages = []struct {
	name  string
	begin func(t *testing.T, m *mailtest.Server) (end func())
}{
	{"refuses in its greeting", greeting("554 no service here\r\n")},
	{"refuses the recipient", refusing(mailtest.RcptTo, 550)},
	{"hangs up in the middle of the message", refusing(mailtest.Content, mailtest.HangUp)},
}

func refusing(step mailtest.Step, code int) func(*testing.T, *mailtest.Server) func() {
	return func(_ *testing.T, m *mailtest.Server) func() {
		m.RefuseAt(step, code, "refused by the test")
		return func() { m.RefuseAt(step, 0, "") }
	}
}

func greeting(line string) func(*testing.T, *mailtest.Server) func() {
	return func(t *testing.T, m *mailtest.Server) func() {
		_, stop := impostor(t, m, line)
		return func() { stop(); m.Restart() }
	}
}

// impostor stands in for the mail server m, which it stops: it says one thing, or
// nothing, and then waits. connected gets a value for each connection.
func impostor(t *testing.T, m *mailtest.Server, says string) (connected <-chan struct{}, stop func()) {
	t.Helper()
	m.Stop()
	l := mailtest.Listen(t, m.Addr())
	t.Cleanup(func() { l.Close() })
	all := make(chan struct{}, 100)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			defer c.Close() // in the end
			fmt.Fprint(c, says)
			all <- struct{}{}
		}
	}()
	return all, func() { l.Close(); <-done }
}

func TestMailWaitsForTheEndOfAnOutage(t *testing.T) {
	t.Parallel()
	for _, outage := range outages {
		t.Run(outage.name, func(t *testing.T) {
			withMail(t, func(t *testing.T, s *site, m *mailtest.Server) {
				s.user("ann@example.org", good)
				end := outage.begin(t, m)
				s.recover("ann@example.org")
				s.log.wait(t, 1, triedAgain)
				end()
				waitMails(t, m, 1)
				s.endsWithNothingLeft()
				if n := len(m.Mails()); n != 1 {
					t.Errorf("%d mails came, want 1", n)
				}
			})
		})
	}
}

// Each account has its newest link in the end, and no other.
func TestEachAcceptedRecoveryIsMailedOnceAfterAnOutage(t *testing.T) {
	withMail(t, func(t *testing.T, s *site, m *mailtest.Server) {
		users := []string{"ann@example.org", "bob@example.org", "cid@example.org"}
		for _, email := range users {
			s.user(email, good)
		}
		asked := 0
		for i, begin := range []func(){
			func() { m.RefuseAt(mailtest.MailFrom, 451, "later") },
			func() { m.RefuseAt(mailtest.MailFrom, 554, "go away") },
			m.Stop,
		} {
			begin()
			for _, email := range users[i:] { // the last one asks most often
				s.recover(email)
				asked++
			}
			s.log.wait(t, asked, `"attempts":1,`)
		}
		m.RefuseAt(mailtest.MailFrom, 0, "")
		m.Restart()

		for _, mail := range waitMails(t, m, len(users)) {
			if a := s.post("reset", "", "uuid", mail.RecoveryID(), "password", "a tatami by the sea"); a.Status != http.StatusOK {
				t.Errorf("the link to %s: %v", mail.To, a)
			}
		}
		s.log.wait(t, asked-len(users), overtaken)
		s.endsWithNothingLeft()
		got := map[string]int{}
		for _, mail := range m.Mails() {
			if mail.RecoveryID() != "" {
				got[mail.To]++
			}
		}
		for _, email := range users {
			if got[email] != 1 {
				t.Errorf("%d mails with a link came to %s, want 1", got[email], email)
			}
		}
	}, "--limit-mail-pause=0s")
}

// What nobody can know is answered by a second mail, which a mail program knows
// for the same.
func TestMailWhoseAnswerIsLostComesTwiceAlike(t *testing.T) {
	withMail(t, func(t *testing.T, s *site, m *mailtest.Server) {
		s.user("ann@example.org", good)
		m.RefuseAt(mailtest.Taken, mailtest.HangUp, "")
		s.recover("ann@example.org")
		waitMails(t, m, 1)
		s.log.wait(t, 1, triedAgain)
		m.RefuseAt(mailtest.Taken, 0, "")
		mails := waitMails(t, m, 2)
		s.endsWithNothingLeft()
		if n := len(m.Mails()); n != 2 {
			t.Errorf("%d mails came, want 2", n)
		}
		if a, b := headersOf(t, mails[0]).Get("Message-ID"), headersOf(t, mails[1]).Get("Message-ID"); a == "" || a != b {
			t.Errorf("Message-IDs %q and %q are not the same", a, b)
		}
		if a, b := mails[0].RecoveryID(), mails[1].RecoveryID(); a == "" || a != b {
			t.Error("the unique ids are not the same")
		}
	})
}

func TestDeadMailIsListedAndResentWithAWorkingLink(t *testing.T) {
	withMail(t, func(t *testing.T, s *site, m *mailtest.Server) {
		s.user("ann@example.org", good)
		m.Stop()
		s.recover("ann@example.org")
		s.log.wait(t, 1, triedAgain)
		s.expireMail()
		s.log.wait(t, 1, givenUp)
		dead := s.undelivered("--dead")
		if len(dead) != 1 {
			t.Fatalf("kwai mail list --dead: %+v", dead)
		}
		for what, ok := range map[string]bool{
			"state": dead[0].State == "dead", "address": dead[0].Email == "ann@example.org", "next try": dead[0].DueAt == nil,
			"attempts": dead[0].Attempts > 0, "error": strings.Contains(dead[0].LastError, "connect"),
		} {
			if !ok {
				t.Errorf("the %s of a dead mail: %+v", what, dead[0])
			}
		}
		m.Restart()
		s.mustCommand("", "mail", "resend", "--dead")
		mail := waitMails(t, m, 1)[0]
		if a := s.post("reset", "", "uuid", mail.RecoveryID(), "password", "a tatami by the sea"); a.Status != http.StatusOK {
			t.Fatalf("the link that was resent: %v", a)
		}
		waitMails(t, m, 2) // the notice
		s.endsWithNothingLeft()
	})
}

func TestMailThatWaitsIsSentAtShutdown(t *testing.T) {
	withMail(t, func(t *testing.T, s *site, m *mailtest.Server) {
		s.user("ann@example.org", good)
		s.recover("ann@example.org")
		s.endsWithNothingLeft()
		if n := len(m.Mails()); n != 1 {
			t.Errorf("%d mails came, want 1", n)
		}
	})
}

func TestMailThatWaitsIsSentByTheNextStart(t *testing.T) {
	withMail(t, func(t *testing.T, s *site, m *mailtest.Server) {
		s.user("ann@example.org", good)
		m.Stop()
		s.recover("ann@example.org")
		s.log.wait(t, 1, triedAgain)
		s.ends()
		s = start(t, s.Database, "--public-url="+publicURL, "--smtp="+m.URL())
		m.Restart()
		waitMails(t, m, 1)
		s.endsWithNothingLeft()
		if n := len(m.Mails()); n != 1 {
			t.Errorf("%d mails came, want 1", n)
		}
	})
}

// A mail that has begun is finished before the end. That of a server that says
// nothing ends by its own time-out, in 20 s: as long as a slow one needs that has
// the message already.
func TestShutdownEndsAlthoughTheMailServerIsSilent(t *testing.T) {
	need.Time(t)
	testShutdownWithMailUnderWay(t, func(func()) {}, "the greeting: no answer in time")
}

func TestShutdownWaitsForTheMailUnderWay(t *testing.T) {
	testShutdownWithMailUnderWay(t, func(hangUp func()) { hangUp() }, "the greeting: it hung up")
}

// testShutdownWithMailUnderWay ends a server while its mail server says nothing;
// then comes what happens, for which the log has a reason. The mail is sent by the
// next start, once.
func testShutdownWithMailUnderWay(t *testing.T, then func(hangUp func()), reason string) {
	t.Helper()
	storetest.Each(t, func(t *testing.T, database string) {
		m := mailtest.Serve(t)
		flags := []string{"--public-url=" + publicURL, "--smtp=" + m.URL()}
		connected, stop := impostor(t, m, "")
		s := start(t, database, flags...)
		s.user("ann@example.org", good)
		s.recover("ann@example.org")
		<-connected
		s.stop()
		s.log.wait(t, 1, "stopping")
		if text := s.log.String(); strings.Contains(text, triedAgain) || strings.Contains(text, `"msg":"stopped"`) {
			t.Errorf("it doesn't wait for the mail:\n%s", text)
		}
		then(stop)
		s.ends()
		if text := s.log.String(); !strings.Contains(text, triedAgain) || !strings.Contains(text, reason) {
			t.Errorf("the log doesn't tell %q:\n%s", reason, text)
		}
		stop()
		m.Restart()
		s = start(t, database, flags...)
		waitMails(t, m, 1)
		s.endsWithNothingLeft()
		if n := len(m.Mails()); n != 1 {
			t.Errorf("%d mails came, want 1", n)
		}
	})
}

// recover asks for a recovery, which must be accepted.
func (s *site) recover(email string) {
	s.tb.Helper()
	if a := s.post("recover", "", "email", email); a.Status != http.StatusOK {
		s.tb.Fatalf("recover: %v", a)
	}
}

// undelivered is what `kwai mail list` prints.
func (s *site) undelivered(flags ...string) (mails []mailView) {
	s.tb.Helper()
	text := s.mustCommand("", append([]string{"mail", "list", "--json"}, flags...)...)
	if err := json.Unmarshal([]byte(text), &mails); err != nil {
		s.tb.Fatalf("kwai mail list --json: %v\n%s", err, text)
	}
	return mails
}

// ends shuts the server down, which must go well.
func (s *site) ends() {
	s.tb.Helper()
	if code := s.close(); code != 0 {
		s.tb.Errorf("kwai serve ended with %d:\n%s", code, s.log)
	}
}

func (s *site) endsWithNothingLeft() {
	s.tb.Helper()
	s.ends()
	if left := s.undelivered(); len(left) != 0 {
		s.tb.Errorf("undelivered: %+v", left)
	}
}

// waitMails returns the mails when there are n.
func waitMails(tb testing.TB, m *mailtest.Server, n int) []mailtest.Mail {
	tb.Helper()
	mails, err := m.Wait(tb.Context(), n)
	if err != nil {
		tb.Fatal(err)
	}
	return mails
}

// waitMailTo returns the first mail to an address. Others may come before it: a try that
// was under way when its mail was sent again may succeed, too.
func waitMailTo(tb testing.TB, m *mailtest.Server, to string) mailtest.Mail {
	tb.Helper()
	for n := 1; ; n++ {
		if mail := waitMails(tb, m, n)[n-1]; mail.To == to {
			return mail
		}
	}
}

// settle waits until no mail waits. What the mail server has is not yet recorded as sent;
// a deletion would mail the address again, rather than not at all.
func (s *site) settle() {
	s.tb.Helper()
	for len(s.undelivered()) > 0 {
		time.Sleep(10 * time.Millisecond) // the list tells nobody when it is empty
	}
}

func headersOf(tb testing.TB, m mailtest.Mail) netmail.Header {
	tb.Helper()
	parsed, err := netmail.ReadMessage(strings.NewReader(string(m.Raw)))
	if err != nil {
		tb.Fatal(err)
	}
	return parsed.Header
}
