package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"kwai/internal/mail/mailtest"
	"kwai/internal/pgtest"
)

// moveTo moves a site's database, whose server has ended, and returns what it
// printed.
func (s *site) moveTo(to string) string {
	s.tb.Helper()
	return s.mustCommand("", "move", "--to="+to, "--master-key-file="+masterKeyOf(s.tb, s.Database), "--public-url="+publicURL)
}

// TestMoveKeepsEverythingGoing: whoever had to do with the server on SQLite can't
// tell that it runs on PostgreSQL now.
func TestMoveKeepsEverythingGoing(t *testing.T) {
	t.Parallel()
	pgtest.Require(t)
	mails := mailtest.Serve(t)
	down := freeAddress(t) // of a mail server that is away
	old := start(t, "sqlite://"+t.TempDir()+"/kwai.db", "--public-url="+publicURL, "--smtp="+mails.URL())
	for _, name := range []string{"ann", "bob", "revoked"} {
		old.user(name+"@example.org", good)
	}
	live, left, revoked := old.login("ann@example.org"), old.login("ann@example.org"), old.login("revoked@example.org")
	replaced := live
	live = old.post("access_token", "", "refresh_token", live.field("refresh_token"))
	if a := old.post("logout", left.field("access_token"), "refresh_token", left.field("refresh_token")); a.Status != 200 {
		t.Fatal(a)
	}
	old.mustCommand("", "user", "revoke", "revoked@example.org")
	recovery := old.recovery(mails, "bob@example.org")
	keys := old.get("/.well-known/jwks.json", "")
	old.close()
	// While the mail server is away, somebody is invited.
	old = start(t, old.Database, "--public-url="+publicURL, "--smtp=smtp://"+down)
	old.mustCommand("", "user", "create", "invited@example.org")
	old.log.wait(t, 2, "an event could not be delivered; it is tried again")
	waiting := old.mustCommand("", "mail", "list", "--json")
	old.close()

	to := pgtest.Database(t)
	secret := t.TempDir() + "/to"
	if err := os.WriteFile(secret, []byte(to+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	key := masterKeyOf(t, old.Database)
	printed := old.moveTo("@" + secret)
	for _, want := range []string{"users 4", "sessions 3", "recoveries 2", "events 1", "--database=@" + secret, "--master-key-file=" + key, "--public-url=" + publicURL, "delete"} {
		if !strings.Contains(printed, want) {
			t.Errorf("it doesn't print %q:\n%s", want, printed)
		}
	}
	if again := old.moveTo(to); !strings.Contains(again, "already") {
		t.Errorf("the second move prints:\n%s", again)
	}
	if _, stderr, code := old.command("", "user", "list"); code != exitUsage || !strings.Contains(stderr, "moved to PostgreSQL (127.0.0.1:") {
		t.Errorf("the old database: exit code %d: %s", code, stderr)
	}

	moved := &site{tb: t, Database: to, flags: append([]string{"--database=" + to}, quick...)}
	if now := moved.mustCommand("", "mail", "list", "--json"); now != waiting {
		t.Errorf("the mail that waits:\n%s\nwas\n%s", now, waiting)
	}
	masterKeys.Store(to, key)
	s := start(t, to, "--public-url="+publicURL, "--smtp="+mails.URL())
	if now := s.get("/.well-known/jwks.json", ""); !bytes.Equal(now.Body, keys.Body) {
		t.Errorf("the key set is %v, was %v", now, keys)
	}
	for what, tokens := range map[string]answer{"newest": live, "one before": replaced} {
		if a := s.get(userPath, tokens.field("access_token")); a.Status != 200 {
			t.Errorf("the %s access token: %v", what, a)
		}
	}
	if a := s.post("access_token", "", "refresh_token", replaced.field("refresh_token")); a.Status != 200 || a.field("refresh_token") != live.field("refresh_token") {
		t.Errorf("the refresh token replaced just before: %v, want the current one", a)
	}
	if a := s.post("access_token", "", "refresh_token", live.field("refresh_token")); a.Status != 200 {
		t.Errorf("the current refresh token: %v", a)
	}
	for what, tokens := range map[string]answer{"logged out": left, "revoked": revoked} {
		s.get(userPath, tokens.field("access_token")).notLoggedIn(t, what)
		s.post("access_token", "", "refresh_token", tokens.field("refresh_token")).problem(t, 401)
	}
	s.post("login", "", "username", "revoked@example.org", "password", good).problem(t, 401)
	s.login("ann@example.org")
	if a := s.post("reset", "", "uuid", recovery, "password", "a password of PostgreSQL"); a.Status != 200 {
		t.Errorf("the link mailed before: %v", a)
	}
	// bob's recovery before; the invitation that waited, and bob's notice.
	invitation := ""
	for _, m := range wait(t, mails, 3)[1:] {
		if m.To == "invited@example.org" {
			invitation = m.RecoveryID()
		}
	}
	if a := s.post("reset", "", "uuid", invitation, "password", good); a.Status != 200 {
		t.Errorf("the link whose mail waited: %v", a)
	}
}

// TestClientsRenewThroughAMove: who tries again while nothing listens loses
// nothing but the time that it takes.
func TestClientsRenewThroughAMove(t *testing.T) {
	t.Parallel()
	pgtest.Require(t)
	listen := freeAddress(t)
	old := start(t, "sqlite://"+t.TempDir()+"/kwai.db", "--listen="+listen, "--public-url="+publicURL)
	const clients = 4
	ctx, over := context.WithCancel(t.Context())
	defer over()
	var group sync.WaitGroup
	var renewed [clients]chan struct{}
	for i := range clients {
		email := fmt.Sprintf("client%d@example.org", i)
		old.user(email, good)
		tokens := old.login(email)
		renewed[i] = make(chan struct{}, 1000)
		group.Go(func() {
			refresh, err := tokens.field("refresh_token"), error(nil)
			for ctx.Err() == nil && err == nil {
				if refresh, err = renewWhenItListens(ctx, old.URL, refresh); err == nil && ctx.Err() == nil {
					select {
					case renewed[i] <- struct{}{}:
					default:
					}
				}
			}
			if err != nil {
				t.Errorf("%s: %v", email, err)
			}
		})
	}
	all := func() {
		t.Helper()
		for _, r := range renewed {
			for range 3 {
				select {
				case <-r:
				case <-time.After(time.Minute):
					t.Fatal("nobody renews")
				}
			}
		}
	}
	all()
	old.close()
	to := pgtest.Database(t)
	old.moveTo(to)
	for _, r := range renewed {
		for len(r) > 0 {
			<-r
		}
	}
	masterKeys.Store(to, masterKeyOf(t, old.Database))
	start(t, to, "--listen="+listen, "--public-url="+publicURL)
	all()
	over()
	group.Wait()
}

// renewWhenItListens renews; while it is refused a connection, or cut off, it
// tries again with the same token.
func renewWhenItListens(ctx context.Context, site, refresh string) (string, error) {
	for {
		r, err := http.NewRequestWithContext(ctx, http.MethodPost, site+"/api/v1/auth/access_token", strings.NewReader(url.Values{"refresh_token": {refresh}}.Encode()))
		if err != nil {
			return "", err
		}
		r.Header.Set("Content-Type", urlencoded)
		res, err := http.DefaultTransport.RoundTrip(r)
		if err != nil {
			select {
			case <-ctx.Done():
				return refresh, nil
			case <-time.After(10 * time.Millisecond):
				continue
			}
		}
		body, err := io.ReadAll(res.Body)
		if err = errors.Join(err, res.Body.Close()); err != nil {
			continue
		}
		a := answer{res.StatusCode, res.Header, body}
		if a.Status != http.StatusOK {
			return "", fmt.Errorf("a renewal was answered %v", a)
		}
		return a.field("refresh_token"), nil
	}
}
