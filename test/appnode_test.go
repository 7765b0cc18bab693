package test

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	"kwai/internal/testing/cluster"
	"kwai/internal/testing/need"
)

// serve starts a program of Node's that serves at an address, and returns its log.
func (n *node) serve(address string, args ...string) *transcript {
	n.t.Helper()
	return run(n.t, cluster.Command{Program: need.Program(n.t, "node"), Args: args, Address: address, Ready: "/"})
}

// TestOpenIDClient5 has a web app over openid-client 5 do what the protocol knows.
func TestOpenIDClient5(t *testing.T) {
	t.Parallel()
	need.Time(t)
	n := newNode(t)
	browser := startBrowser(t)
	s := provider(t, install(t, ""))
	name, address := freePort(t)
	home := "http://" + name
	app := s.app("An app in Node", "--redirect-uri="+home+"/callback", "--post-logout-uri="+home+"/out")
	n.write("app.js", string(readFile(t, "testdata/app_openid_client_5.js")))
	n.serve(address, filepath.Join(n.Folder, "app.js"), home, s.URL, app.ID, app.Secret)

	b := openTab(t, browser, s.URL)
	b.open(200, home+"/login")
	b.logIn("ann@example.org")
	b.at(home + "/")
	b.shows("You are ann@example.org, in [].")
	for range 2 {
		b.open(200, home+"/renew")
		b.shows("You are ann@example.org, in [].")
	}
	b.open(200, home+"/logout")
	b.shows("out: /out?state=away")
	b.open(200, home+"/over")
	b.shows("it is over")
	b.open(200, home+"/login")
	b.logIn("ann@example.org")
	b.open(500, home+"/revoke") // and back to the page, which can't ask
	b.open(200, home+"/over")
	b.open(200, home+"/login") // the browser is still logged in
	b.shows("You are ann@example.org, in [].")
}

// TestNodeExample runs examples/app-node, which is made with openid-client 6.
func TestNodeExample(t *testing.T) {
	t.Parallel()
	need.Time(t)
	n := newNode(t)
	example(t, n, "app-node", "openid-client", "server.js", "settings.js")
	browser := startBrowser(t)
	s := provider(t, install(t, ""), "--access-life=3s")
	s.mustCommand("", "group", "create", "judo")
	s.mustCommand("", "group", "add", "judo", "ann@example.org")
	name, address := freePort(t)
	home := "http://" + name
	file, app := s.appOf(t, "app-node", "http://localhost:3000", home)
	log := n.serve(address, filepath.Join(n.Folder, "server.js"), file, s.URL, home)

	b := openTab(t, browser, s.URL)
	b.open(200, home+"/")
	b.shows("Nobody is logged in.")
	b.click(200, "a")
	b.logIn("ann@example.org")
	b.at(home + "/")
	b.shows(`You are ann@example.org, in ["judo"].`)
	for !strings.Contains(b.text(), "Renewed: 2.") {
		b.open(200, home+"/")
	}
	b.click(200, "a")
	b.at(home + "/")
	b.shows("Nobody is logged in.")
	b.click(200, "a")
	b.logIn("ann@example.org")
	b.shows(`You are ann@example.org, in ["judo"].`)

	// It finds out that the user has logged out at kwai.
	b.logOutAtKwai()
	b.open(200, home+"/")
	for !strings.Contains(b.text(), "Nobody is logged in.") {
		b.open(200, home+"/")
	}

	// It says what is the matter.
	b.open(500, home+"/callback?error=access_denied")
	b.shows("That did not work. Try again.")
	if !strings.Contains(log.String(), "no cookie of a login") {
		t.Errorf("the log doesn't say that the cookie is missing: %s", log)
	}
	b.isRefused(s, app, home)
	if !strings.Contains(log.String(), "access_denied") {
		t.Errorf("the log doesn't have the refusal: %s", log)
	}
}

// isRefused has an app say that kwai doesn't let its user in.
func (b *tab) isRefused(s *site, app appCredentials, home string) {
	b.t.Helper()
	s.mustCommand("", "group", "create", "board")
	s.mustCommand("", "app", "update", app.ID, "--groups=board")
	b.open(200, home+"/login")
	b.typeInto("username", "ann@example.org")
	b.typeInto("password", good)
	b.click(403, "button")
	b.click(400, "main a.button")
	b.shows("kwai refuses: access_denied")
	b.open(200, home+"/")
	b.shows("Nobody is logged in.")
}

// example puts the files of an example into Node's folder. They must be short, and its
// package be the one that is tested.
func example(t *testing.T, n *node, name, dependency string, files ...string) {
	t.Helper()
	folder := filepath.Join("../examples", name)
	for _, file := range files {
		text := string(readFile(t, filepath.Join(folder, file)))
		if lines := strings.Count(text, "\n"); lines >= 100 {
			t.Errorf("%s/%s has %d lines", folder, file, lines)
		}
		n.write(file, text)
	}
	var versions [2]string
	for i, path := range []string{filepath.Join(folder, "package.json"), "npm/package.json"} {
		var p struct{ Dependencies map[string]string }
		if err := json.Unmarshal(readFile(t, path), &p); err != nil {
			t.Fatal(err)
		}
		versions[i] = p.Dependencies[dependency]
	}
	if versions[0] == "" || versions[0] != versions[1] {
		t.Errorf("the example %s is written for %s %q, and tested with %q", name, dependency, versions[0], versions[1])
	}
}
