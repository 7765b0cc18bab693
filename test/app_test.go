package test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/google/go-cmp/cmp"

	"kwai/internal/testing/cluster"
	"kwai/internal/testing/need"
)

// The tests of apps have programs that others wrote log people in by kwai, as they are.
// kwai is at 127.0.0.1 and they are at localhost: for a browser two sites.

// provider starts a server whose public URL is where it listens, with a user.
func provider(t *testing.T, k cluster.Kwai, flags ...string) *site {
	t.Helper()
	command, err := k.Serve(t.Context(), append(append([]string{"--log-format=json"}, quick...), flags...)...)
	if err != nil {
		t.Fatal(err)
	}
	command.Args = append(command.Args, "--public-url=http://"+command.Address)
	s := startCommand(t, k, command)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("kwai serve: %s", s.log)
		}
	})
	s.waitForAppKeys()
	s.user("ann@example.org", good)
	return s
}

// appCredentials are what kwai app create prints.
type appCredentials struct {
	ID     string `json:"client_id"`
	Secret string `json:"client_secret"`
}

// app makes an app.
func (s *site) app(args ...string) (a appCredentials) {
	s.tb.Helper()
	if err := json.Unmarshal([]byte(s.mustCommand("", append([]string{"app", "create"}, args...)...)), &a); err != nil {
		s.tb.Fatal(err)
	}
	return a
}

// serveApp serves an app of the test's own at localhost.
func serveApp(t *testing.T, handler http.Handler) (url string) {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return strings.Replace(server.URL, loopbackName, "localhost", 1)
}

// freePort is a port of loopback, as "localhost:PORT" and as "127.0.0.1:PORT".
func freePort(t *testing.T) (name, address string) {
	t.Helper()
	address, err := cluster.FreeAddress(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	return "localhost:" + port, address
}

// run starts a program that serves until the end of the test, and returns its log.
func run(t *testing.T, command cluster.Command) *transcript {
	t.Helper()
	log := newTranscript()
	command.Log = log
	server, err := cluster.StartServer(context.WithoutCancel(t.Context()), command)
	if err != nil {
		t.Fatalf("%v\n%s", err, log)
	}
	t.Cleanup(func() {
		server.Kill()
		if t.Failed() {
			t.Logf("%s: %s", filepath.Base(command.Program), log)
		}
	})
	return log
}

// goInstall has Go build a program of a module's, as its makers wrote it.
func goInstall(t *testing.T, module string) (program string) {
	t.Helper()
	need.Program(t, "go")
	bin := t.TempDir()
	cmd := exec.CommandContext(t.Context(), "go", "install", module)
	cmd.Dir = bin // outside of this module
	cmd.Env = append(os.Environ(), "GOBIN="+bin, "GOFLAGS=-trimpath", "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		need.Missing(t, &exec.Error{Name: module, Err: errors.New(string(out))})
	}
	built, err := filepath.Glob(filepath.Join(bin, "*"))
	if err != nil || len(built) != 1 {
		t.Fatalf("go install %s made %q: %v", module, built, err)
	}
	return built[0]
}

// logIn fills in the login page, to which an app has led, and goes on to where it leads.
func (b *tab) logIn(email string) {
	b.t.Helper()
	if at := eval[string](b, "location.href"); !strings.HasPrefix(at, b.home+"/login?") {
		b.t.Fatalf("the browser is at %s, want the login", at)
	}
	b.typeInto("username", email)
	b.typeInto("password", good)
	b.click(200, "button")
}

// at says where the browser must be, without what comes behind a question mark.
func (b *tab) at(want string) {
	b.t.Helper()
	if got, _, _ := strings.Cut(eval[string](b, "location.href"), "?"); got != want {
		b.t.Fatalf("the browser is at %s, want %s:\n%s", got, want, eval[string](b, "document.body.innerText"))
	}
}

// text is what the page shows.
func (b *tab) text() string {
	b.t.Helper()
	return eval[string](b, "document.body.innerText")
}

// shows says that the page has that text.
func (b *tab) shows(want string) {
	b.t.Helper()
	if got := b.text(); !strings.Contains(got, want) {
		b.t.Errorf("%s shows %q, want %q", eval[string](b, "location.href"), got, want)
	}
}

// logOutAtKwai logs out by kwai's own page.
func (b *tab) logOutAtKwai() {
	b.t.Helper()
	b.open(200, b.home+"/logout")
	b.click(200, "button")
	b.at(b.home + "/out")
}

// landsAt waits until a script has led the browser there.
func (b *tab) landsAt(prefix string) {
	b.t.Helper()
	for {
		// A page that is just being left can't be asked.
		at, err := chromedp.Run(b.ctx, chromedp.Evaluate[string](`document.readyState == "complete" ? location.href : ""`))
		if err == nil && strings.HasPrefix(at, prefix) {
			return
		}
		if b.ctx.Err() != nil {
			b.t.Fatal(context.Cause(b.ctx))
		}
	}
}

// appOf makes the app of an example by the command that docs/apps.md has for it, at another
// address. It returns what the command prints, in a file.
func (s *site) appOf(t *testing.T, example, origin, home string) (file string, a appCredentials) {
	t.Helper()
	const makes = "    go run ./cmd/kwai app create "
	command := ""
	for _, block := range strings.Split(string(readFile(t, "../docs/apps.md")), "\n\n") {
		if strings.HasPrefix(block, makes) && strings.Contains(block, "examples/"+example) {
			command, _, _ = strings.Cut(strings.ReplaceAll(strings.TrimPrefix(block, makes), "\\\n", ""), "\n")
			command, _, _ = strings.Cut(command, " > ")
		}
	}
	if command == "" {
		t.Fatalf("docs/apps.md doesn't say how the app of examples/%s is made", example)
	}
	args := []string{"app", "create"}
	for _, arg := range regexp.MustCompile(`"[^"]*"|\S+`).FindAllString(command, -1) {
		if arg != "--data=kwai-dev" {
			args = append(args, strings.ReplaceAll(strings.Trim(arg, `"`), origin, home))
		}
	}
	text := s.mustCommand("", args...)
	file = filepath.Join(t.TempDir(), "app.json")
	if err := errors.Join(json.Unmarshal([]byte(text), &a), os.WriteFile(file, []byte(text), 0o600)); err != nil {
		t.Fatal(err)
	}
	return file, a
}

// appSettings are those that docs/apps.md has for a program, in a block of that kind, with
// real addresses.
func (s *site) appSettings(t *testing.T, kind, home, behind string, a appCredentials) string {
	t.Helper()
	block := regexp.MustCompile("(?s)\n```" + kind + "\n(.*?)```\n").FindStringSubmatch(string(readFile(t, "../docs/apps.md")))
	if block == nil {
		t.Fatalf("docs/apps.md has no settings of the kind %s", kind)
	}
	return strings.NewReplacer("https://auth.example.org", s.URL, "auth.example.org", strings.TrimPrefix(s.URL, "http://"),
		"https://app.example.org", home, "http://127.0.0.1:8000", behind, "THE-APPS-ID", a.ID, "THE-APPS-SECRET", a.Secret).Replace(block[1])
}

// The table of docs/apps.md has what the metadata says, all of it.
func TestMetadataIsDocumented(t *testing.T) {
	t.Parallel()
	s := start(t, install(t, ""), "--public-url=https://auth.example.org")
	var metadata map[string]any
	for _, path := range []string{"/.well-known/openid-configuration", "/.well-known/oauth-authorization-server"} {
		if err := json.Unmarshal(s.get(path, "").Body, &metadata); err != nil {
			t.Fatal(err)
		}
	}
	var want []string
	for _, name := range slices.Sorted(maps.Keys(metadata)) {
		value := metadata[name]
		values, is := value.([]any)
		if !is {
			values = []any{value}
		}
		row := "| `" + name + "` |"
		for _, v := range values {
			row += fmt.Sprintf(" `%v`", v)
		}
		want = append(want, row+" |")
	}
	_, table, _ := strings.Cut(string(readFile(t, "../docs/apps.md")), "\n| member | value |\n|---|---|\n")
	table, _, _ = strings.Cut(table, "\n\n")
	if diff := cmp.Diff(want, strings.Split(table, "\n")); diff != "" {
		t.Errorf("docs/apps.md (-metadata +page):\n%s", diff)
	}
}
