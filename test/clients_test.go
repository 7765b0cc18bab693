package test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"kwai/internal/testing/need"
)

// TestGeneratedClients lints the description that the program serves, has
// clients made of it, and uses them.
func TestGeneratedClients(t *testing.T) {
	t.Parallel()
	need.Time(t)
	n := newNode(t)
	s := startPublic(t)
	n.write("openapi.yaml", string(s.get("/openapi.yaml", "").Body))

	report := n.run("redocly", "lint", "openapi.yaml", "--format=json")
	var lint struct {
		Totals struct{ Errors, Warnings *int }
	}
	_, text, _ := strings.Cut(report, "{\n")
	if err := json.NewDecoder(strings.NewReader("{" + text)).Decode(&lint); err != nil || lint.Totals.Errors == nil {
		t.Fatalf("%v: %s", err, report)
	}
	if *lint.Totals.Errors+*lint.Totals.Warnings > 0 {
		t.Errorf("redocly lint: %s", report)
	}
	for _, generate := range [][]string{
		{"openapi-typescript", "openapi.yaml", "-o", "schema.ts"},
		{"openapi-ts", "-i", "openapi.yaml", "-o", "hey", "--no-log-file"},
	} {
		if out := n.run(generate[0], generate[1:]...); strings.Contains(strings.ToLower(out), "warn") {
			t.Errorf("%s", out)
		}
	}
	n.run("tsc")
	for _, use := range []string{"out/use-hey.js", "out/use-fetch.js"} {
		if out := n.run("node", use, "ann@example.org", good, s.URL); out != "done\n" {
			t.Errorf("%s: %s", use, out)
		}
	}
}

// TestNodeSnippets runs the lines that docs/clients.md has for programs in Node.
func TestNodeSnippets(t *testing.T) {
	t.Parallel()
	need.Time(t)
	n := newNode(t)
	s := startPublic(t)
	page := string(readFile(t, "../docs/clients.md"))
	snippet := func(with string) string {
		for _, block := range regexp.MustCompile("(?s)```js\n(.*?)```").FindAllStringSubmatch(page, -1) {
			if strings.Contains(block[1], with) {
				return block[1]
			}
		}
		t.Fatalf("docs/clients.md has no lines with %q", with)
		return ""
	}
	const issuer = "'https://auth.example.org'"
	verify := snippet("from 'jose'")
	if strings.Count(verify, issuer) != 1 {
		t.Fatalf("docs/clients.md names no issuer:\n%s", verify)
	}
	n.write("snippets.js", strings.Replace(verify, issuer, fmt.Sprintf("%q", s.URL), 1)+
		"export async function live(token) {\n"+snippet("/api/v1/auth/user'")+"}\n")
	n.write("away.js", strings.Replace(verify, issuer, "'http://127.0.0.1:1'", 1)) // where nobody answers

	tokens := s.login("ann@example.org")
	access, refresh := tokens.field("access_token"), tokens.field("refresh_token")
	forged := access[:len(access)-4] + "AAAA"
	id := s.get(userPath, access).field("id")
	n.write("use.js", `
import assert from 'node:assert/strict'
import { userOf as away } from './away.js'
import { live, userOf } from './snippets.js'

const [access, forged, refresh, id, server] = process.argv.slice(2)
const asks = authorization => userOf({ headers: { authorization } })
assert.equal(await asks('Bearer ' + access), id)
assert.equal(await asks('bearer ' + access), id)
assert.equal(await asks(undefined), null)
assert.equal(await asks('Basic ' + access), null)
for (const wrong of ['Bearer', 'Bearer ' + forged, 'Bearer ' + refresh, 'Bearer rubbish']) assert.equal(await asks(wrong), null)
await assert.rejects(away({ headers: { authorization: 'Bearer ' + access } }))
assert.equal(await live(access), id)
assert.equal(await live(forged), null)
const out = await fetch(server + '/api/v1/auth/logout', {
  method: 'POST', headers: { authorization: 'Bearer ' + access }, body: new URLSearchParams({ refresh_token: refresh }),
})
assert(out.ok)
assert.equal(await asks('Bearer ' + access), id) // the signature alone doesn't tell
assert.equal(await live(access), null)
console.log('done')
`)
	if out := n.run("node", "use.js", access, forged, refresh, id, s.URL); out != "done\n" {
		t.Error(out)
	}
}

// TestGoSnippet builds README's program in a module of its own, as it says.
func TestGoSnippet(t *testing.T) {
	t.Parallel()
	need.Time(t)
	page := string(readFile(t, "../README.md"))
	snippet := regexp.MustCompile("(?s)```go\n(package main.*?)```").FindStringSubmatch(page)
	edit := regexp.MustCompile(`(?m)^    (go mod edit .*)$`).FindStringSubmatch(page)
	if snippet == nil || edit == nil {
		t.Fatal("README.md has no program in Go, or doesn't say how to find the module")
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "main.go"), []byte(snippet[1]), 0o600); err != nil {
		t.Fatal(err)
	}
	script := "go mod init example && " + strings.Replace(edit[1], "PATH/TO/kwai", must(filepath.Abs("..")), 1) + " && go vet ."
	runScript(t, dir, []string{"GOFLAGS=-mod=mod"}, script)
}

// startPublic starts a server whose public URL is where it listens, with a user.
func startPublic(t *testing.T) *site {
	t.Helper()
	k := install(t, "")
	command, err := k.Serve(t.Context(), quick...)
	if err != nil {
		t.Fatal(err)
	}
	command.Args = append(command.Args, "--public-url=http://"+command.Address)
	s := startCommand(t, k, command)
	s.user("ann@example.org", good)
	return s
}
