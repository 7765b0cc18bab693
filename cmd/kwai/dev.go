package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"kwai/internal/auth"
	"kwai/internal/folder"
)

const (
	devData  = "./kwai-dev"
	demoUser = "demo@example.org"
)

// applyDev sets what --dev stands for: nothing that the outside could reach, and
// nothing of the real server's.
func (s *Settings) applyDev() error {
	if !onLoopback(s.Listen) {
		return &usageError{"--dev", fmt.Errorf("it serves on a loopback address only, not on %s", s.Listen)}
	}
	defaults := [...]struct{ variable, value, unset string }{
		{"KWAI_DATA", s.Data, defaultData}, {"KWAI_DATABASE", s.Database, "sqlite://" + filepath.Join(s.Data, "kwai.db")},
		{"KWAI_MASTER_KEY_FILE", s.MasterKeyFile, ""}, {"KWAI_SMTP", s.SMTP, ""}, {"KWAI_PUBLIC_URL", s.PublicURL, ""},
		{"KWAI_TLS_CERT", s.TLSCert, ""}, {"KWAI_TLS_KEY", s.TLSKey, ""},
	}
	for _, d := range defaults {
		if d.value != d.unset {
			return &usageError{"--dev", fmt.Errorf("it brings its own folder, database, mail and URL: leave %s out, and %s", flagOf(d.variable), d.variable)}
		}
	}
	s.Data = devData
	s.Database = "sqlite://" + filepath.Join(devData, "kwai.db")
	s.LimitMailPause, s.LimitMailHour = 0, 1000 // a developer tries again and again
	return nil
}

// localhost is the address of the server as people write it: by a name, since no
// browser keeps a passkey for an address. Other addresses of 127.0.0.0/8 have no name.
func localhost(address net.Addr) string {
	host, port, err := net.SplitHostPort(address.String())
	if err != nil || otherLocalhost[host] == "" {
		return address.String()
	}
	return net.JoinHostPort("localhost", port)
}

// otherLocalhost has what browsers try, too, where localhost is asked for.
var otherLocalhost = map[string]string{"127.0.0.1": "::1", "::1": "127.0.0.1", "localhost": "::1"}

// checkLocalhost refuses a port that another program has at the other address of
// localhost: the demo account's password would be typed there.
func checkLocalhost(ctx context.Context, listen string) error {
	host, port, err := net.SplitHostPort(listen)
	if err != nil || otherLocalhost[host] == "" || port == "0" {
		return err
	}
	address := net.JoinHostPort(otherLocalhost[host], port)
	other, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if errors.Is(err, syscall.EADDRINUSE) {
		return &usageError{"--listen", fmt.Errorf("another program is at %s, to which http://localhost:%s can lead, too: choose another port, as by --listen=127.0.0.1:8081", address, port)}
	}
	if other == nil {
		return nil // the machine has no such address
	}
	return other.Close()
}

// flagOf is the flag of an environment variable.
func flagOf(variable string) string {
	return "--" + strings.ToLower(strings.ReplaceAll(strings.TrimPrefix(variable, "KWAI_"), "_", "-"))
}

// startDev makes the demo account and prints what to try with it.
func startDev(ctx context.Context, s *Settings, rules *auth.Service, c console) error {
	pw, mended, err := demoAccount(ctx, s, rules)
	if err == nil {
		err = endUnused(ctx, rules)
	}
	if err != nil {
		return err
	}
	if mended {
		if _, err := fmt.Fprintf(c.out, "\nThe demo account could no longer log in with its password, which was changed perhaps: it can again.\n"); err != nil {
			return err
		}
	}
	return printDev(ctx, s, rules, pw, c)
}

// demoAccount makes sure that the demo user logs in with the password of the
// folder's demo-password file, and returns it, and whether it had to be set back.
func demoAccount(ctx context.Context, s *Settings, rules *auth.Service) (pw string, mended bool, err error) {
	path := filepath.Join(s.Data, "demo-password")
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		text = []byte(strings.ToLower(rand.Text()[:16]))
		err = folder.Make(path, text)
	}
	if err != nil {
		return "", false, err
	}
	pw = strings.TrimSpace(string(text))
	_, err = rules.CreateUser(ctx, auth.NewUser{Email: demoUser, FirstName: "Demo", LastName: "User", Password: pw})
	if errors.Is(err, auth.ErrUserExists) {
		// It may have been changed by the last visit.
		if _, err := rules.Login(ctx, auth.Operator, demoUser, pw); err != nil {
			return pw, true, errors.Join(rules.Reinstate(ctx, demoUser), rules.SetPassword(ctx, demoUser, pw))
		}
		return pw, false, nil
	}
	return pw, false, err
}

// endUnused ends the sessions of lines that earlier starts printed and that were
// never pasted. Other sessions have an address, or have been renewed.
func endUnused(ctx context.Context, rules *auth.Service) error {
	sessions, err := rules.UserSessions(ctx, demoUser)
	if err != nil {
		return err
	}
	for _, session := range sessions {
		if session.Address != "" || !session.RenewedAt.Equal(session.CreatedAt) {
			continue
		}
		if err := rules.EndUserSession(ctx, session.ID); err != nil {
			return err
		}
	}
	return nil
}

// printDev prints where to log in, and five lines to paste. The tokens in them are real: of two
// sessions made for them, so that they work in any order.
func printDev(ctx context.Context, s *Settings, rules *auth.Service, pw string, c console) error {
	toRenew, err := rules.Login(ctx, auth.Operator, demoUser, pw)
	if err != nil {
		return err
	}
	toEnd, err := rules.Login(ctx, auth.Operator, demoUser, pw)
	if err != nil {
		return err
	}
	base := s.publicURL.String()
	api := base + "/api/v1/auth"
	_, err = fmt.Fprintf(c.out, `
Log in at %[1]s/login as %[3]s with the password %[4]s

Mail is shown at %[1]s/dev/mail, the form for a forgotten password is at %[1]s/recover.
Everything is kept in %[8]s; delete it to begin anew. Other commands find it by --data:
kwai user list --data %[8]s. Five lines for the API, one after the other; a token
and a mailed id are good once:

curl -d username=%[3]s -d password=%[4]s %[2]s/login
curl -d refresh_token=%[5]s %[2]s/access_token
curl -H 'Authorization: Bearer %[6]s' -d refresh_token=%[7]s %[2]s/logout
curl -d email=%[3]s %[2]s/recover
curl -d uuid="$(curl -s %[1]s/dev/uuid)" -d password=%[4]s %[2]s/reset

`, base, api, demoUser, pw, toRenew.Refresh, toEnd.Access, toEnd.Refresh, devData)
	return err
}
