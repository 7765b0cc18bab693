package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"kwai/internal/auth"
	"kwai/internal/store"
)

// A server that has ended leaves nothing behind: no goroutine, and no lock on its
// database, so that another starts on it.
func TestAServerStartsAndEndsInOrder(t *testing.T) { //nolint:paralleltest // the goroutines of other tests would be among its own
	data := t.TempDir()
	others := goleak.IgnoreCurrent()
	for range 2 {
		settings, err := finished(t, append([]string{"--listen=127.0.0.1:0", "--data=" + data}, quick...)...)
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		s, err := openServer(ctx, settings, console{strings.NewReader(""), io.Discard, io.Discard}, false)
		if err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- s.run(ctx) }()
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
		res, err := client.Get(s.publicURL.String() + "/readyz")
		if err != nil {
			t.Fatal(err)
		}
		if err := res.Body.Close(); err != nil || res.StatusCode != http.StatusOK {
			t.Errorf("/readyz: %d, %v", res.StatusCode, err)
		}
		stop()
		if err := errors.Join(<-ended, s.close()); err != nil {
			t.Error(err)
		}
		if res, err := client.Get(s.publicURL.String()); err == nil {
			res.Body.Close()
			t.Error("it answers after its end")
		}
	}
	for err := goleak.Find(others); err != nil; err = goleak.Find(others) {
		t.Log("waiting for goroutines to end: ", err)
	}
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

// A server whose public URL has another host than before says that passkeys can't be
// used; and starts.
func TestAServerTellsOfPasskeysForAnotherHost(t *testing.T) {
	t.Parallel()
	data := t.TempDir()
	open := func(public string, use func(s *kwaiServer)) (log string) {
		t.Helper()
		settings, err := finished(t, append([]string{"--listen=127.0.0.1:0", "--data=" + data, "--public-url=" + public}, quick...)...)
		if err != nil {
			t.Fatal(err)
		}
		var output bytes.Buffer
		s, err := openServer(t.Context(), settings, console{strings.NewReader(""), &output, &output}, false)
		if err != nil {
			t.Fatal(err)
		}
		use(s)
		if err := s.close(); err != nil {
			t.Fatal(err)
		}
		return output.String()
	}
	const told = "passkeys for another host"
	open("https://auth.example.org", func(s *kwaiServer) {
		id, err := s.rules.CreateUser(t.Context(), auth.NewUser{Email: "ann@example.org", Password: good})
		if err == nil {
			err = s.db.InTx(t.Context(), func(tx *store.Tx) error {
				_, err := tx.InsertPasskey(store.Passkey{ID: "x", UserID: id, RPID: "auth.example.org", Name: "x", Credential: "{}"})
				return err
			})
		}
		if err != nil {
			t.Fatal(err)
		}
	})
	for public, want := range map[string]bool{"https://auth.example.org:8443/x": false, "https://login.example.org": true, "http://127.0.0.1:8080": true} {
		if log := open(public, func(*kwaiServer) {}); strings.Contains(log, told) != want {
			t.Errorf("at %s the log says %s", public, log)
		}
	}
}
