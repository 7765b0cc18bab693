package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode"

	"kwai/internal/auth"
)

func readDoc(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// parsed are the files of a package, by their names: its tests, or the rest.
func parsed(t *testing.T, dir string, tests bool) map[string]*ast.File {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join("..", "..", dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	files := make(map[string]*ast.File)
	for _, path := range paths {
		if strings.HasSuffix(path, "_test.go") != tests {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		files[path] = file
	}
	return files
}

// literal is the value of a string literal.
func literal(e ast.Expr) (value string, ok bool) {
	l, ok := e.(*ast.BasicLit)
	if !ok || l.Kind != token.STRING {
		return "", false
	}
	value, err := strconv.Unquote(l.Value)
	return value, err == nil
}

// constants are the values of a package's constants whose names begin so.
func constants(t *testing.T, dir string, prefixes ...string) map[string]string {
	t.Helper()
	values := make(map[string]string)
	for _, file := range parsed(t, dir, false) {
		for _, d := range file.Decls {
			d, ok := d.(*ast.GenDecl)
			if !ok || d.Tok != token.CONST {
				continue
			}
			for _, spec := range d.Specs {
				spec := spec.(*ast.ValueSpec)
				for i, name := range spec.Names {
					rest, ok := "", false
					for _, prefix := range prefixes {
						if rest, ok = strings.CutPrefix(name.Name, prefix); ok {
							break
						}
					}
					if !ok || rest == "" || !unicode.IsUpper(rune(rest[0])) {
						continue
					}
					value, ok := literal(spec.Values[i])
					if !ok {
						t.Errorf("%s: %s isn't written out: what it says can't be looked for", dir, name.Name)
					}
					values[name.Name] = value
				}
			}
		}
	}
	return values
}

// promised finds the tests that a document names and the packages behind them in
// brackets, as in `TestX`, `TestY` (internal/auth).
var promised = regexp.MustCompile("`(Test\\w+)`|\\(([a-z][a-z/]*)\\)")

// Each test that docs/promises.md names is there, in the package that it says.
func TestPromisesNameTheirTests(t *testing.T) {
	t.Parallel()
	tests := make(map[string][]string) // by package
	in := func(dir string) []string {
		if tests[dir] == nil {
			tests[dir] = []string{} // none, for a word in brackets
			for _, file := range parsed(t, dir, true) {
				for _, d := range file.Decls {
					if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil && strings.HasPrefix(f.Name.Name, "Test") {
						tests[dir] = append(tests[dir], f.Name.Name)
					}
				}
			}
		}
		return tests[dir]
	}
	named := 0
	for line := range strings.Lines(readDoc(t, "docs/promises.md")) {
		var waiting []string // for their package
		for _, m := range promised.FindAllStringSubmatch(line, -1) {
			if m[1] != "" {
				waiting = append(waiting, m[1])
				named++
				continue
			}
			if len(in(m[2])) == 0 {
				continue
			}
			for _, test := range waiting {
				if !slices.Contains(in(m[2]), test) {
					t.Errorf("docs/promises.md names %s (%s), which isn't there", test, m[2])
				}
			}
			waiting = nil
		}
		if len(waiting) > 0 {
			t.Errorf("docs/promises.md doesn't say in which package are %q", waiting)
		}
	}
	if named < 100 {
		t.Fatalf("only %d tests are named", named)
	}
}

// Each setting has its line in docs/operating.md.
func TestEverySettingIsDocumented(t *testing.T) {
	t.Parallel()
	doc := readDoc(t, "docs/operating.md")
	for flag := range settingFlags() {
		if !strings.Contains(doc, "`--"+flag+"`") {
			t.Errorf("docs/operating.md says nothing of --%s", flag)
		}
	}
}

// ownPackages are the folders of the program's packages: its own and all that it
// imports of internal.
func ownPackages(t *testing.T) []string {
	t.Helper()
	dirs := []string{"cmd/kwai"}
	for i := 0; i < len(dirs); i++ {
		for _, file := range parsed(t, dirs[i], false) {
			for _, spec := range file.Imports {
				path, _ := literal(spec.Path)
				dir, ours := strings.CutPrefix(path, "kwai/")
				if ours && strings.HasPrefix(dir, "internal/") && !slices.Contains(dirs, dir) {
					dirs = append(dirs, dir)
				}
			}
		}
	}
	return dirs
}

// messageAt is where the methods of slog.Logger that an operator reads of have
// their message.
var messageAt = map[string]int{"Info": 0, "Warn": 0, "Error": 0, "Log": 2, "LogAttrs": 2}

// logLines are the messages that a file logs. Types aren't known here: each method
// of these names is a logger's, but for err.Error and functions of packages.
func logLines(t *testing.T, path string, file *ast.File) (lines []string) {
	t.Helper()
	imported := make(map[string]bool)
	for _, spec := range file.Imports {
		name, _ := literal(spec.Path)
		name = name[strings.LastIndexByte(name, '/')+1:]
		if spec.Name != nil {
			name = spec.Name.Name
		}
		imported[name] = true
	}
	ast.Inspect(file, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok {
			return true
		}
		method, ok := call.Fun.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		at, ok := messageAt[method.Sel.Name]
		if of, is := method.X.(*ast.Ident); !ok || len(call.Args) <= at || is && imported[of.Name] {
			return true
		}
		line, ok := literal(call.Args[at])
		if !ok {
			t.Errorf("%s: a call of %s has a message that isn't written out: whether it is documented can't be seen", path, method.Sel.Name)
		}
		lines = append(lines, line)
		return true
	})
	return lines
}

// Each line that the program can log is explained in docs/operating.md.
func TestEveryLogLineIsDocumented(t *testing.T) {
	t.Parallel()
	doc := readDoc(t, "docs/operating.md")
	var logged []string
	dirs := ownPackages(t)
	for _, dir := range dirs {
		for path, file := range parsed(t, dir, false) {
			logged = append(logged, logLines(t, path, file)...)
		}
	}
	if len(dirs) < 8 || len(logged) < 60 {
		t.Fatalf("only %d lines found in %q", len(logged), dirs)
	}
	for _, line := range slices.Compact(slices.Sorted(slices.Values(logged))) {
		if !strings.Contains(doc, line) {
			t.Errorf("docs/operating.md says nothing of %q", line)
		}
	}
	_, table, _ := strings.Cut(doc, "## What the log says")
	table, _, _ = strings.Cut(table, "\n## ")
	explained := 0
	for _, row := range regexp.MustCompile("(?m)^\\| (`.*?`) \\|").FindAllStringSubmatch(table, -1) {
		for _, line := range strings.Split(strings.Trim(row[1], "`"), "`, `") {
			if explained++; !slices.Contains(logged, line) {
				t.Errorf("docs/operating.md explains %q, which is never logged", line)
			}
		}
	}
	if explained < 40 {
		t.Errorf("only %d lines are explained", explained)
	}
}

// Each kind of entry that the audit log can have, and each reason, is explained in
// docs/operating.md.
func TestTheAuditLogIsDocumented(t *testing.T) {
	t.Parallel()
	_, doc, _ := strings.Cut(readDoc(t, "docs/operating.md"), "## The audit log")
	doc, _, _ = strings.Cut(doc, "\n## ")
	kinds := constants(t, "internal/auth", "Event", "Audit", "reason", "By")
	if len(kinds) < 25 {
		t.Fatalf("only %d kinds and reasons found", len(kinds))
	}
	for name, kind := range kinds {
		if strings.Contains(kind, ".") && !slices.Contains(auth.AuditKinds, kind) {
			t.Errorf("kwai log --kind=%s is refused", kind)
		}
		if !strings.Contains(doc, "`"+kind+"`") {
			t.Errorf("docs/operating.md doesn't explain %q in the audit log (%s)", kind, name)
		}
	}
}
