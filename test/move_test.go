package test

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"kwai/internal/testing/mailtest"
	"kwai/internal/testing/pgtest"
)

// moveTo moves a site's database, whose server has ended, and returns what it
// printed.
func (s *site) moveTo(to string) string {
	s.tb.Helper()
	return s.mustCommand("", "move", "--to="+to, "--master-key-file="+s.masterKey(), "--public-url="+publicURL)
}

func (s *site) masterKey() string {
	s.tb.Helper()
	path, err := s.kwai.MasterKey(s.tb.Context())
	if err != nil {
		s.tb.Fatal(err)
	}
	return path
}

// TestMoveKeepsEverythingGoing: users of the server on SQLite don't notice that it runs
// on PostgreSQL now.
func TestMoveKeepsEverythingGoing(t *testing.T) {
	t.Parallel()
	pgtest.Require(t)
	mails := mailtest.Serve(t)
	k := install(t, "")
	// A slow machine must not make a replaced token come too late.
	flags := []string{"--public-url=" + publicURL, "--smtp=" + mails.URL(), "--reuse-window=10m"}
	old := start(t, k, flags...)
	for _, name := range []string{"ann", "bob", "revoked"} {
		old.user(name+"@example.org", good)
	}
	live, left, revoked := old.login("ann@example.org"), old.login("ann@example.org"), old.login("revoked@example.org")
	replaced := live
	live = old.post("access_token", "", "refresh_token", live.field("refresh_token"))
	old.post("logout", left.field("access_token"), "refresh_token", left.field("refresh_token")).wants(t, 200, "a logout")
	old.mustCommand("", "user", "revoke", "revoked@example.org")
	recovery := old.recovery(mails, "bob@example.org")
	keys := old.get("/.well-known/jwks.json", "")
	// While the mail server is away, somebody is invited.
	mails.Stop()
	old.mustCommand("", "user", "create", "invited@example.org")
	old.waitLog(1, "an event could not be delivered; it is tried again")
	old.stop()
	waiting := old.mustCommand("", "mail", "list", "--json")

	to := patient(pgtest.Database(t))
	secret := t.TempDir() + "/to"
	if err := os.WriteFile(secret, []byte(to+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	aside := strings.TrimSuffix(old.masterKey(), "master.key") + "kwai.db.replaced-2"
	if err := os.WriteFile(aside, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	printed := old.moveTo("@" + secret)
	for _, want := range []string{"users 4", "sessions 3", "recoveries 2", "events 1", "--database=@" + secret, "--master-key-file=" + old.masterKey(), "--public-url=" + publicURL, "delete", aside} {
		if !strings.Contains(printed, want) {
			t.Errorf("it doesn't print %q:\n%s", want, printed)
		}
	}
	if again := old.moveTo(to); !strings.Contains(again, "already") {
		t.Errorf("the second move prints:\n%s", again)
	}
	if _, stderr, code := old.command("", "user", "list"); code != 2 || !strings.Contains(stderr, "moved to PostgreSQL (127.0.0.1:") {
		t.Errorf("the old database: exit code %d: %s", code, stderr)
	}

	k.Database = to
	mails.Restart()
	moved := &site{tb: t, kwai: k}
	if now := moved.mustCommand("", "mail", "list", "--json"); now != waiting {
		t.Errorf("the mail that waits:\n%s\nwas\n%s", now, waiting)
	}
	s := start(t, k, flags...)
	if now := s.get("/.well-known/jwks.json", ""); !bytes.Equal(now.Body, keys.Body) {
		t.Errorf("the key set is %v, was %v", now, keys)
	}
	for what, tokens := range map[string]answer{"newest": live, "one before": replaced} {
		s.get(userPath, tokens.field("access_token")).wants(t, 200, "the "+what+" access token")
	}
	a := s.post("access_token", "", "refresh_token", replaced.field("refresh_token")).wants(t, 200, "the refresh token replaced just before")
	if a.field("refresh_token") != live.field("refresh_token") {
		t.Errorf("the refresh token replaced just before: %v, want the current one", a)
	}
	s.post("access_token", "", "refresh_token", live.field("refresh_token")).wants(t, 200, "the current refresh token")
	for what, tokens := range map[string]answer{"logged out": left, "revoked": revoked} {
		s.get(userPath, tokens.field("access_token")).wants(t, 401, "an access token: "+what)
		s.post("access_token", "", "refresh_token", tokens.field("refresh_token")).wants(t, 401, "a refresh token: "+what)
	}
	s.post("login", "", "username", "revoked@example.org", "password", good).wants(t, 401, "a revoked user")
	s.login("ann@example.org")
	s.post("reset", "", "uuid", recovery, "password", "a password of PostgreSQL").wants(t, 200, "the link mailed before")
	// bob's recovery before; the invitation that waited, and bob's notice.
	invitation := ""
	for _, m := range waitMails(t, mails, 3)[1:] {
		if m.To == "invited@example.org" {
			invitation = m.RecoveryID()
		}
	}
	s.post("reset", "", "uuid", invitation, "password", good).wants(t, 200, "the link whose mail waited")
}

// TestClientsRenewThroughAMove: who tries again while nothing listens loses
// nothing but the time that it takes.
func TestClientsRenewThroughAMove(t *testing.T) {
	t.Parallel()
	pgtest.Require(t)
	k := install(t, "")
	old := start(t, k, "--reuse-window=10m")
	const clients = 4
	ctx, over := context.WithCancel(t.Context())
	defer over()
	var group sync.WaitGroup
	var renewed [clients]atomic.Int64
	for i := range clients {
		email := fmt.Sprintf("client%d@example.org", i)
		old.user(email, good)
		tokens, via := old.login(email), newTransport(t)
		group.Go(func() {
			refresh, err := tokens.field("refresh_token"), error(nil)
			for ctx.Err() == nil && err == nil {
				if refresh, err = renewWhenItListens(ctx, via, old.URL, refresh); err == nil && ctx.Err() == nil {
					renewed[i].Add(1)
				}
			}
			if err != nil {
				t.Errorf("%s: %v", email, err)
			}
		})
	}
	all := func() {
		t.Helper()
		for i := range renewed {
			for n := renewed[i].Load(); renewed[i].Load() < n+3 && !t.Failed(); {
				pass(ctx, time.Millisecond)
			}
		}
	}
	all()
	old.stop()
	to := patient(pgtest.Database(t))
	old.moveTo(to)
	k.Database = to
	command, err := k.Serve(t.Context(), quick...)
	if err != nil {
		t.Fatal(err)
	}
	command.Address = strings.TrimPrefix(old.URL, "http://")
	command.Args = append(command.Args, "--reuse-window=10m", "--listen="+command.Address)
	startCommand(t, k, command)
	all()
	over()
	group.Wait()
}

// renewWhenItListens renews; while it is refused a connection, or cut off, it
// tries again with the same token.
func renewWhenItListens(ctx context.Context, via http.RoundTripper, site, refresh string) (string, error) {
	for {
		a, err := request(ctx, via, site+api+"access_token", "", form("refresh_token", refresh))
		switch {
		case ctx.Err() != nil:
			return refresh, nil //nolint:nilerr // the test is over
		case err != nil:
			pass(ctx, 10*time.Millisecond)
		case a.Status != http.StatusOK:
			return "", fmt.Errorf("a renewal was answered %v", a)
		default:
			return a.field("refresh_token"), nil
		}
	}
}
