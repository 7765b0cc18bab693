package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"kwai/internal/testing/docpages"
	"kwai/internal/testing/mailtest"
	"kwai/internal/testing/natstest"
	"kwai/internal/testing/need"
	"kwai/internal/testing/storetest"
)

// cloudEvent is an event as docs/events.md describes it; it has no other members.
type cloudEvent struct {
	SpecVersion, ID, Source, Type, Subject, Time, DataContentType string
	Data                                                          struct{ User, Session, App string }
}

func readEvent(t *testing.T, text []byte) (e cloudEvent) {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&e); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	at, err := time.Parse(time.RFC3339Nano, e.Time)
	if err != nil || !strings.HasSuffix(e.Time, "Z") || at.Year() < 2020 {
		t.Errorf("%s: the time is no RFC 3339 in UTC: %v", text, err)
	}
	for _, id := range []string{e.ID, e.Subject, e.Data.User} {
		if _, err := uuid.Parse(id); err != nil {
			t.Errorf("%s: %q is no UUID", text, id)
		}
	}
	if e.SpecVersion != "1.0" || e.DataContentType != "application/json" || e.Subject != e.Data.User {
		t.Errorf("%s is not as described", text)
	}
	return e
}

// documentedEvents has for each type that docs/events.md lists whether it is
// about a session.
func documentedEvents(t *testing.T) map[string]bool {
	t.Helper()
	types := make(map[string]bool)
	for _, row := range regexp.MustCompile("(?m)^\\| `kwai\\.([a-z.-]+)` \\|.*\\| (`user`(?:, `session`)?(?:, `app`)?) \\|$").FindAllStringSubmatch(docpages.Read(t, "docs/events.md"), -1) {
		types[row[1]] = strings.Contains(row[2], "session")
	}
	return types
}

// auditedOnly are the kinds of the audit log that are no events.
var auditedOnly = []string{
	"login.failed", "login.code-refused", "login.passkey-refused", "group.two-steps", "session.proved", "user.password-refused", "user.exported", "user.unlocked", "mail.resent", "mail.dropped", "app.created", "app.updated", "app.deleted", "group.created", "group.deleted", "group.joined", "group.left", "key.made", "key.revoked", "key.resealed",
}

// docs/events.md lists the event types, exactly, and has an example of each.
func TestEveryEventIsDocumented(t *testing.T) {
	t.Parallel()
	types := documentedEvents(t)
	declared := make(map[string]bool)
	for _, kind := range auditKinds(t) {
		if slices.Contains(auditedOnly, kind) {
			continue
		}
		declared[kind] = true
		if _, ok := types[kind]; !ok {
			t.Errorf("docs/events.md says nothing of %s", kind)
		}
	}
	if len(declared) < 28 || len(types) != len(declared) {
		t.Errorf("there are %d types, docs/events.md lists %d", len(declared), len(types))
	}
	examples := make(map[string]bool)
	for _, line := range regexp.MustCompile(`(?m)^ +(\{"specversion".*\})$`).FindAllStringSubmatch(docpages.Read(t, "docs/events.md"), -1) {
		e := readEvent(t, []byte(line[1]))
		kind := strings.TrimPrefix(e.Type, "kwai.")
		examples[kind] = true
		if (e.Data.Session != "") != types[kind] {
			t.Errorf("the example of %s is not as its row", kind)
		}
	}
	if diff := cmp.Diff(declared, examples); diff != "" {
		t.Errorf("the examples of docs/events.md are not of the types:\n%s", diff)
	}
}

// Every event reaches NATS as docs/events.md says, with nothing in it that tells
// who the user is to whom doesn't know, or that opens anything.
func TestEveryEventIsPublished(t *testing.T) {
	storetest.Each(t, func(t *testing.T, database string) {
		mails, queue := mailtest.Serve(t), natstest.Serve(t)
		s := start(t, database, "--public-url="+publicURL, "--smtp="+mails.URL(), "--bus="+queue.URL(), "--trusted-proxies=127.0.0.1")
		var secrets []string
		keep := func(a answer) answer {
			secrets = append(secrets, a.field("access_token"), a.field("refresh_token"))
			return a
		}
		want := []string{"created", "opened", "ended", "opened", "replayed", "created", "invited", "revoked", "reinstated", "recovery", "password-changed", "opened", "opened", "new-network", "opened", "email-requested", "updated", "email-changed", "deleted"}
		ann := s.user("ann@example.org", good)
		in := keep(s.login("ann@example.org"))
		if a := s.post("logout", in.field("access_token"), "refresh_token", in.field("refresh_token")); a.Status != http.StatusOK {
			t.Fatal(a)
		}
		in = keep(s.login("ann@example.org"))
		keep(s.post("access_token", "", "refresh_token", in.field("refresh_token")))
		s.forgetReplaced()
		s.post("access_token", "", "refresh_token", in.field("refresh_token")).problem(t, http.StatusUnauthorized)
		s.mustCommand("", "user", "create", "eve@example.org", "--first-name=Ann", "--last-name=Other")
		waitMails(t, mails, 2) // the notice and the invitation: the next one is the recovery
		s.mustCommand("", "user", "revoke", "eve@example.org")
		s.mustCommand("", "user", "enact", "eve@example.org")
		recovery := s.recovery(mails, "ann@example.org")
		if a := s.post("reset", "", "uuid", recovery, "password", "another good one"); a.Status != http.StatusOK {
			t.Fatal(a)
		}

		for _, from := range []string{"192.0.2.1", "198.51.100.1"} {
			keep(s.forClient(from, "POST", "/api/v1/auth/login", "", "username", "ann@example.org", "password", "another good one"))
		}

		waitMails(t, mails, 5) // of the password and the network
		s.requestEmail("ann@example.org", "another good one", "new@example.org")
		waitMails(t, mails, 7) // to the new address, and of it
		s.mustCommand("", "user", "update", "ann@example.org", "--first-name=Anna", "--email=anna@example.net", "--language=nl")
		waitMails(t, mails, 8)
		s.settle()
		s.mustCommand("", "user", "delete", "anna@example.net")
		for i, want := range []string{"ann@example.org", "anna@example.net"} {
			if m := waitMails(t, mails, 9)[7+i]; m.To != want {
				t.Errorf("mail %d went to %s, want %s", 7+i, m.To, want)
			}
		}

		js := queue.JetStream()
		messages := natstest.Messages(t, js, "KWAI", len(want))
		types, seen := documentedEvents(t), map[string]bool{}
		var sessions []string
		for i, m := range messages {
			e := readEvent(t, m.Data())
			kind := strings.TrimPrefix(e.Type, "kwai.")
			seen[kind] = true
			about, ok := types[kind]
			if _, word, _ := strings.Cut(kind, "."); word != want[i] {
				t.Errorf("event %d is %s, want %s", i, m.Data(), want[i])
			}
			if !ok || about != (e.Data.Session != "") {
				t.Errorf("%s: its type is documented (%v) as about a session: %v", m.Data(), ok, about)
			}
			if e.Source != publicURL {
				t.Errorf("%s: the source is %s, want %s", m.Data(), e.Source, publicURL)
			}
			if m.Subject() != e.Type || m.Headers().Get("Nats-Msg-Id") != e.ID || m.Headers().Get("Content-Type") != "application/cloudevents+json" {
				t.Errorf("%s: the subject is %s, the headers are %v", m.Data(), m.Subject(), m.Headers())
			}
			if own := i <= 4 || i >= 9; own != (e.Subject == ann) {
				t.Errorf("%s is of another user", m.Data())
			}
			sessions = append(sessions, e.Data.Session)
			message := fmt.Sprint(m.Subject(), m.Headers(), string(m.Data()))
			for _, secret := range append(secrets, "ann@", "anna@", "new@", "eve@", "Ann", "Other", good, recovery, "$argon2") {
				if strings.Contains(message, secret) {
					t.Errorf("%s tells %q", message, secret)
				}
			}
		}
		if sessions[1] != sessions[2] || sessions[3] != sessions[4] || sessions[1] == sessions[3] {
			t.Errorf("the sessions are %q", sessions)
		}
		for kind := range types { // those of apps and of factors have tests of their own
			if !seen[kind] && !ofFactorsOrApps.MatchString(kind) {
				t.Errorf("%s was not published", kind)
			}
		}
		s.log.wait(t, 1, `"msg":"publishing events","servers":"`+queue.URL()+`","stream":"KWAI"`)
	})
}

var ofFactorsOrApps = regexp.MustCompile(`^app\.|^user\.(authenticator|passkey|two-steps|recovery-code|codes|factors)`)

// requestEmail asks for another address on the page, as its user.
func (s *site) requestEmail(email, password, to string) {
	s.tb.Helper()
	cookie := ""
	visit := func(method, path string, fields ...string) answer {
		r, err := http.NewRequestWithContext(s.tb.Context(), method, s.URL+path, strings.NewReader(encodeURL(fields...)))
		if err != nil {
			s.tb.Fatal(err)
		}
		r.Header = http.Header{"Cookie": {cookie}}
		if len(fields) > 0 {
			r.Header.Set("Content-Type", urlencoded)
		}
		return s.do(r)
	}
	cookie, _, _ = strings.Cut(visit("POST", "/login", "username", email, "password", password).Header.Get("Set-Cookie"), ";")
	seal := regexp.MustCompile(`name="form" value="([^"]+)"`).FindSubmatch(visit("GET", "/account/email").Body)
	if seal == nil {
		s.tb.Fatal("there is no form")
	}
	if a := visit("POST", "/account/email", "form", string(seal[1]), "email", to); a.Status != http.StatusSeeOther {
		s.tb.Fatal(a)
	}
}

// operation is something that was done to a user, from its request to its answer.
type operation struct {
	user, word string
	from, to   time.Time
}

// Events are in the stream in the order of what they tell: what was answered
// before something else began comes before it, whichever servers did both.
func TestEventsAreInTheOrderOfWhatTheyTell(t *testing.T) {
	storetest.Each(t, func(t *testing.T, database string) {
		queue := natstest.Serve(t)
		sites := []*site{start(t, database, "--bus="+queue.URL(), "--limits=off")}
		if strings.HasPrefix(database, "postgres") {
			sites = append(sites, start(t, database, "--bus="+queue.URL(), "--limits=off"))
		}
		users, rounds := need.Rounds(3, 6), need.Rounds(4, 8)
		var mu sync.Mutex
		var done []operation
		note := func(user, word string, from time.Time) {
			mu.Lock()
			defer mu.Unlock()
			done = append(done, operation{user, word, from, time.Now()})
		}
		var working sync.WaitGroup
		for u := range users {
			email := fmt.Sprintf("user%d@example.org", u)
			from := time.Now()
			id := sites[0].user(email, good)
			note(id, "created", from)
			working.Go(func() {
				for r := range rounds {
					s := sites[(u+r)%len(sites)]
					from := time.Now()
					in := s.login(email)
					note(id, "opened", from)
					s = sites[(u+r/2)%len(sites)]
					from = time.Now()
					if a := s.post("logout", in.field("access_token"), "refresh_token", in.field("refresh_token")); a.Status != http.StatusOK {
						t.Error(a)
					}
					note(id, "ended", from)
				}
			})
		}
		if working.Wait(); t.Failed() {
			return // an operation failed: what it would have told never comes
		}

		// The n-th event of a user is that of its n-th operation.
		place := make(map[string][]int)
		messages := natstest.Messages(t, queue.JetStream(), "KWAI", users*(1+2*rounds))
		for i, m := range messages {
			e := readEvent(t, m.Data())
			place[e.Subject] = append(place[e.Subject], i)
		}
		at := make([]int, len(done))
		for i, o := range done {
			if len(place[o.user]) == 0 {
				t.Fatalf("events of %s are missing", o.user)
			}
			at[i], place[o.user] = place[o.user][0], place[o.user][1:]
			if e := readEvent(t, messages[at[i]].Data()); !strings.HasSuffix(e.Type, o.word) {
				t.Errorf("%s was told as %s", o.word, e.Type)
			}
		}
		for i, a := range done {
			for j, b := range done {
				if a.to.Before(b.from) && at[i] > at[j] {
					t.Errorf("%s of %s is behind %s of %s, which began later", a.word, a.user, b.word, b.user)
				}
			}
		}
	})
}

// NATS that can't be reached stops nobody's start and end; its events wait, also
// those of a command that knows nothing of NATS.
func TestServerStartsWithoutNATS(t *testing.T) {
	storetest.Each(t, func(t *testing.T, database string) {
		queue := natstest.New(t)
		s := start(t, database, "--bus="+queue.URL())
		s.log.wait(t, 1, "NATS can't be reached")
		s.user("ann@example.org", good)
		s.login("ann@example.org")
		if code := s.close(); code != 0 { // though NATS is still away
			t.Errorf("it ended with %d", code)
		}

		local := start(t, database)
		local.log.wait(t, 1, `"msg":"events are kept for a subscriber whom this server does not tell (--bus)","subscriber":"nats"`)
		local.mustCommand("", "user", "revoke", "ann@example.org")
		local.close()

		queue.Start()
		again := start(t, database, "--bus="+queue.URL())
		var types []string
		for _, m := range natstest.Messages(t, queue.JetStream(), "KWAI", 3) {
			types = append(types, m.Subject())
		}
		if want := []string{"kwai.user.created", "kwai.session.opened", "kwai.user.revoked"}; !slices.Equal(types, want) {
			t.Errorf("published %q, want %q", types, want)
		}
		if code := again.close(); code != 0 {
			t.Errorf("it ended with %d", code)
		}
	})
}

// Without --bus nothing is written for anybody outside.
func TestNoEventsAreKeptWithoutNATS(t *testing.T) {
	storetest.Each(t, func(t *testing.T, database string) {
		s := start(t, database)
		s.user("ann@example.org", good)
		s.close()
		waiting, err := storetest.Open(t, database, nil).Read(t.Context()).NextDeliveries("nats", 1)
		if err != nil || len(waiting) != 0 || strings.Contains(s.log.String(), "events are kept") {
			t.Errorf("%d events wait (%v): %s", len(waiting), err, s.log)
		}
	})
}

// What NATS refuses ends the start in one line that names the setting.
func TestServerDoesNotStartWhereNATSRefuses(t *testing.T) {
	storetest.Each(t, func(t *testing.T, database string) {
		closed := natstest.Serve(t, func(o *server.Options) { o.Username, o.Password = "kwai", "unspoken" })
		other := natstest.Serve(t)
		if _, err := other.JetStream().CreateStream(t.Context(), jetstream.StreamConfig{Name: "OTHER", Subjects: []string{"kwai.>"}}); err != nil {
			t.Fatal(err)
		}
		file := t.TempDir() + "/bus"
		if err := os.WriteFile(file, []byte("nats://kwai:unspoken2@"+closed.Address()+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		for flag, want := range map[string]string{"@" + file: "look at the user and password", other.URL(): "choose another name with stream=NAME"} {
			code, output := runRefused(t, append([]string{"--data=" + t.TempDir(), "--database=" + database,
				"--public-url=" + publicURL, "--master-key-file=" + masterKeyOf(t, database), "--log-level=error", "--bus=" + flag}, quick...)...)
			if code != exitUsage || !strings.HasPrefix(output, "kwai: --bus: ") || strings.Count(output, "\n") != 1 {
				t.Errorf("it ended with %d, want %d and one line about --bus: %s", code, exitUsage, output)
			}
			if !strings.Contains(output, want) {
				t.Errorf("it doesn't say %q: %s", want, output)
			}
			if strings.Contains(output, "unspoken") {
				t.Errorf("it tells the password: %s", output)
			}
		}
		s := start(t, database, "--bus=nats://kwai:unspoken@"+closed.Address()+"?stream=Club")
		s.user("ann@example.org", good)
		if m := natstest.Messages(t, closed.JetStream(nats.UserInfo("kwai", "unspoken")), "Club", 1)[0]; m.Subject() != "club.user.created" {
			t.Errorf("published to %s", m.Subject())
		}
		if strings.Contains(s.log.String(), "unspoken") {
			t.Errorf("the log tells the password: %s", s.log)
		}
	})
}
