package main

import (
	"bytes"
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/alecthomas/kong"

	"kwai/internal/testing/docpages"
	"kwai/internal/testing/mailtest"
	"kwai/internal/testing/storetest"
)

// testsOf are the names of a folder's tests.
func testsOf(t *testing.T, dir string) []string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join("..", "..", dir, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, path := range paths {
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range file.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil && strings.HasPrefix(f.Name.Name, "Test") {
				names = append(names, f.Name.Name)
			}
		}
	}
	return names
}

// Each test that docs/promises.md names is there.
func TestPromisesNameTheirTests(t *testing.T) {
	t.Parallel()
	if named := testsNamedBy(t, "docs/promises.md"); named < 100 {
		t.Fatalf("only %d tests are named", named)
	}
}

// Each row of docs/attacks.md names a hole, its year and the tests that keep it closed, or
// says that there is none; and the tests are there.
func TestAttacksNameTheirTests(t *testing.T) {
	t.Parallel()
	testsNamedBy(t, "docs/attacks.md")
	id := regexp.MustCompile(`^(CVE-(20\d\d)-\d{4,7}|GHSA(-[23456789cfghjmpqrvwx]{4}){3})$`)
	seen := make(map[string]bool)
	for line := range strings.Lines(docpages.Read(t, "docs/attacks.md")) {
		if !strings.HasPrefix(line, "|") || strings.HasPrefix(line, "|---") || strings.HasPrefix(line, "| id |") {
			continue
		}
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		m := id.FindStringSubmatch(cells[0])
		switch {
		case len(cells) != 6 || slices.Contains(cells, ""):
			t.Errorf("a row has %d cells, or an empty one: %s", len(cells), line)
		case m == nil || m[2] != "" && m[2] != cells[2]:
			t.Errorf("%s is no id of a hole, or of another year than %s", cells[0], cells[2])
		case seen[cells[0]]:
			t.Errorf("%s is there twice", cells[0])
		case cells[5] != "not tested yet" && !strings.HasPrefix(cells[5], "`Test"):
			t.Errorf("%s names no test: %s", cells[0], cells[5])
		}
		seen[cells[0]] = true
	}
	if len(seen) < 40 {
		t.Fatalf("only %d holes are named", len(seen))
	}
}

// testsNamedBy holds that the tests which a page names, as in `TestX`, `TestY`
// (internal/auth), are there, in the package behind them. It counts them.
func testsNamedBy(t *testing.T, page string) (named int) {
	t.Helper()
	tests := make(map[string][]string) // by folder
	for line := range strings.Lines(docpages.Read(t, page)) {
		var waiting []string // for their package
		for _, m := range regexp.MustCompile("`(Test\\w+)`|\\(([a-z][a-z0-9/]*)\\)").FindAllStringSubmatch(line, -1) {
			test, dir := m[1], m[2]
			if test != "" {
				waiting = append(waiting, test)
				named++
				continue
			}
			if tests[dir] == nil {
				tests[dir] = testsOf(t, dir)
			}
			if len(tests[dir]) == 0 {
				continue // a word in brackets
			}
			for _, test := range waiting {
				if !slices.Contains(tests[dir], test) {
					t.Errorf("%s names %s (%s), which isn't there", page, test, dir)
				}
			}
			waiting = nil
		}
		if len(waiting) > 0 {
			t.Errorf("%s doesn't say in which package are %q", page, waiting)
		}
	}
	return named
}

// docs/operating.md has a row for each setting, with its default, and for nothing
// else.
func TestEverySettingIsDocumented(t *testing.T) {
	t.Parallel()
	parser, err := kong.New(&cli{}, helpVars())
	if err != nil {
		t.Fatal(err)
	}
	defaults := make(map[string]string)
	for _, flag := range parser.Model.Flags {
		if flag.Name != "help" {
			defaults[flag.Name] = flag.Default
		}
	}
	defaults["hash-workers"] = "" // 0 stands for what the page describes
	rows := make(map[string]bool)
	section := docpages.Section(docpages.Read(t, "docs/operating.md"), "Settings")
	for _, row := range regexp.MustCompile("(?m)^\\| (`--.*?) \\| (.*?) \\|").FindAllStringSubmatch(section, -1) {
		for _, m := range regexp.MustCompile("`--([a-z-]+)`").FindAllStringSubmatch(row[1], -1) {
			value, ok := defaults[m[1]]
			if !ok || !strings.Contains(row[2], value) {
				t.Errorf("docs/operating.md has --%s with the default %s, want %q", m[1], row[2], value)
			}
			rows[m[1]] = true
		}
	}
	for flag := range defaults {
		if !rows[flag] {
			t.Errorf("docs/operating.md has no row for --%s", flag)
		}
	}
}

// docs/operating.md explains each message that the program can log, under its level,
// and no other. That also holds for messages that no test provokes, so the calls are
// read. The harness compares what servers log.
func TestEveryLogLineIsDocumented(t *testing.T) {
	t.Parallel()
	explained, logged := docpages.Messages(t), make(map[string]bool)
	for _, root := range []string{"../../cmd/kwai", "../../internal"} {
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() && d.Name() == "testing" {
				return fs.SkipDir
			}
			if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
			if err != nil {
				return err
			}
			for _, call := range logCalls(file) {
				logged[call.message] = true
				level := explained[call.message]
				if call.message != "request" && (level == "" || call.level != "" && call.level != level) { // the page describes requests apart
					t.Errorf("%s: docs/operating.md has the level %q for %s %q", path, level, call.level, call.message)
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for message := range explained {
		if !logged[message] {
			t.Errorf("docs/operating.md explains %q, which is never logged", message)
		}
	}
}

// logCall is a call of a logger; its level is "" where that isn't written out.
type logCall struct{ level, message string }

// logCalls are a file's calls of slog.Logger's methods. Types aren't known here: each
// method of these names with a text is a logger's.
func logCalls(file *ast.File) (calls []logCall) {
	imported := make(map[string]bool)
	for _, spec := range file.Imports {
		path, _ := strconv.Unquote(spec.Path.Value)
		imported[path[strings.LastIndexByte(path, '/')+1:]] = true
	}
	ast.Inspect(file, func(n ast.Node) bool {
		call, _ := n.(*ast.CallExpr)
		if call == nil {
			return true
		}
		method, _ := call.Fun.(*ast.SelectorExpr)
		if method == nil {
			return true
		}
		of, _ := method.X.(*ast.Ident)
		at, ok := map[string]int{"Info": 0, "Warn": 0, "Error": 0, "Log": 2, "LogAttrs": 2}[method.Sel.Name]
		if !ok || len(call.Args) <= at || of != nil && imported[of.Name] {
			return true
		}
		c := logCall{message: "a message that isn't written out"} // which no page explains
		if literal, _ := call.Args[at].(*ast.BasicLit); literal != nil {
			c.message, _ = strconv.Unquote(literal.Value)
		}
		if at == 0 {
			c.level = strings.ToLower(method.Sel.Name)
		}
		calls = append(calls, c)
		return true
	})
	return calls
}

// auditKinds are the kinds of entries that kwai log knows.
func auditKinds(t *testing.T) []string {
	t.Helper()
	var err bytes.Buffer
	code := run(t.Context(), []string{"log", "--kind=none"}, console{strings.NewReader(""), &err, &err})
	_, list, found := strings.Cut(strings.TrimSpace(err.String()), "there are ")
	if code != 2 || !found {
		t.Fatalf("kwai log --kind=none: exit code %d: %s", code, &err)
	}
	return strings.Split(list, ", ")
}

// docs/operating.md has a row for each kind of entry of the audit log, and for
// nothing else; and each reason, of whatever is done here.
func TestTheAuditLogIsDocumented(t *testing.T) {
	t.Parallel()
	section := docpages.Section(docpages.Read(t, "docs/operating.md"), "The audit log")
	var kinds []string
	reasons := make(map[string]string) // by kind, what stands in its row
	for _, row := range regexp.MustCompile("(?m)^\\| (`[a-z.`, -]+`) \\| .* \\|(.*)\\|$").FindAllStringSubmatch(section, -1) {
		for _, kind := range strings.Split(strings.Trim(row[1], "`"), "`, `") {
			kinds = append(kinds, kind)
			reasons[kind] = row[2]
		}
	}
	known := auditKinds(t)
	slices.Sort(known)
	if slices.Sort(kinds); !slices.Equal(kinds, known) {
		t.Errorf("docs/operating.md explains the kinds\n%q, there are\n%q", kinds, known)
	}
	seen := make(map[string]bool)
	for _, e := range auditedSite(t) {
		if strings.HasPrefix(e.Kind, "key.") {
			continue // their reason names the key
		}
		seen[e.Reason] = true
		if e.Reason != "" && !strings.Contains(reasons[e.Kind], "`"+e.Reason+"`") {
			t.Errorf("docs/operating.md doesn't explain the reason %q of %s", e.Reason, e.Kind)
		}
	}
	if len(seen) < 9 {
		t.Errorf("only these reasons were seen: %v", seen)
	}
}

// auditedSite is the audit log after logins that fail for every reason, and changes by
// users and commands.
func auditedSite(t *testing.T) (entries []entryView) {
	mails := mailtest.Serve(t)
	s := start(t, storetest.SQLite(t), "--public-url="+publicURL, "--smtp="+mails.URL())
	s.user("ann@example.org", good)
	s.user("bob@example.org", good)
	s.mustCommand("", "user", "create", "eve@example.org", "--first-name=Eve", "--last-name=Other")
	waitMails(t, mails, 1)
	s.mustCommand("", "user", "revoke", "bob@example.org")
	for _, user := range []string{"ann", "nobody", "eve", "bob"} {
		password := map[bool]string{true: "another one", false: good}[user == "ann"]
		s.post("login", "", "username", user+"@example.org", "password", password).problem(t, 401)
	}
	s.mustCommand("", "user", "enact", "bob@example.org")
	s.mustCommand("", "user", "unlock", "bob@example.org")
	one, two := s.login("ann@example.org"), s.login("ann@example.org")
	if a := s.send("DELETE", "/api/v1/auth/sessions", two.field("access_token"), "", ""); a.Status != 200 {
		t.Fatal(a, one)
	}
	if a := s.post("password", two.field("access_token"), "password", good, "new_password", "another good one"); a.Status != 200 {
		t.Fatal(a)
	}
	s.post("password", two.field("access_token"), "password", "a wrong one", "new_password", "another good one").problem(t, 422, "password")
	waitMails(t, mails, 2) // the notice: the next one is the recovery
	s.mustCommand("", "session", "end", "--user", "ann@example.org")
	if a := s.post("reset", "", "uuid", s.recovery(mails, "ann@example.org"), "password", good); a.Status != 200 {
		t.Fatal(a)
	}
	s.mustCommand("yet another good one", "user", "password", "ann@example.org", "--password-stdin")
	if err := json.Unmarshal([]byte(s.mustCommand("", "log", "--json")), &entries); err != nil {
		t.Fatal(err)
	}
	return entries
}

// CONTRIBUTING.md and the architecture name files that are there.
func TestPagesNameFilesThatAreThere(t *testing.T) {
	t.Parallel()
	for _, page := range []string{"CONTRIBUTING.md", "docs/architecture.md"} {
		named := regexp.MustCompile("`((?:cmd|internal|docs|test|bench|deploy|examples|verify)/[\\w./-]+\\.\\w+)`").FindAllStringSubmatch(docpages.Read(t, page), -1)
		if len(named) == 0 {
			t.Errorf("%s names no file", page)
		}
		for _, name := range named {
			if _, err := os.Stat(filepath.Join("../..", name[1])); err != nil {
				t.Errorf("%s names %s: %v", page, name[1], err)
			}
		}
	}
}
