package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

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

// Each test that docs/promises.md names is there.
func TestPromisesNameTheirTests(t *testing.T) {
	t.Parallel()
	tests := make(map[string]bool)
	declared := regexp.MustCompile(`(?m)^func (Test\w+)\(`)
	err := filepath.WalkDir("../..", func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		source, err := os.ReadFile(path)
		for _, m := range declared.FindAllStringSubmatch(string(source), -1) {
			tests[m[1]] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	named := regexp.MustCompile("`(Test\\w+)`").FindAllStringSubmatch(readDoc(t, "docs/promises.md"), -1)
	if len(named) < 20 {
		t.Fatalf("only %d tests are named", len(named))
	}
	for _, m := range named {
		if !tests[m[1]] {
			t.Errorf("docs/promises.md names %s, which isn't there", m[1])
		}
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

// Each line that the program can log is explained in docs/operating.md.
func TestEveryLogLineIsDocumented(t *testing.T) {
	t.Parallel()
	doc := readDoc(t, "docs/operating.md")
	call := regexp.MustCompile(`(?i)\blog(?:Of\(\w+\))?\.(?:Log\(ctx, level, |(?:Info|Warn|Error)\()"([^"]+)"`)
	var logged []string
	for _, dir := range []string{"cmd/kwai", "internal/auth", "internal/bus", "internal/mail", "internal/password", "internal/store", "internal/web"} {
		files, err := filepath.Glob(filepath.Join("..", "..", dir, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			source, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range call.FindAllStringSubmatch(string(source), -1) {
				logged = append(logged, m[1])
			}
		}
	}
	if len(logged) < 15 {
		t.Fatalf("only %d lines found: %v", len(logged), logged)
	}
	for _, line := range slices.Compact(slices.Sorted(slices.Values(logged))) {
		if !strings.Contains(doc, line) {
			t.Errorf("docs/operating.md says nothing of %q", line)
		}
	}
	_, table, _ := strings.Cut(doc, "## What the log says")
	table, _, _ = strings.Cut(table, "\n## ")
	for _, row := range regexp.MustCompile("(?m)^\\| (`.*?`) \\|").FindAllStringSubmatch(table, -1) {
		for _, line := range strings.Split(strings.Trim(row[1], "`"), "`, `") {
			if !slices.Contains(logged, line) {
				t.Errorf("docs/operating.md explains %q, which is never logged", line)
			}
		}
	}
}

// Each kind of entry that the trail can have, and each reason, is explained in
// docs/operating.md.
func TestTheTrailIsDocumented(t *testing.T) {
	t.Parallel()
	_, doc, _ := strings.Cut(readDoc(t, "docs/operating.md"), "## The trail")
	doc, _, _ = strings.Cut(doc, "\n## ")
	constant := regexp.MustCompile(`(?m)^(?:const)?\s+(?:Event|Trace|reason|By)\w+\s+= "([^"]+)"`)
	found := 0
	for _, file := range []string{"event.go", "trail.go"} {
		for _, m := range constant.FindAllStringSubmatch(readDoc(t, "internal/auth/"+file), -1) {
			if strings.Contains(m[1], ".") && !slices.Contains(auth.TrailKinds, m[1]) {
				t.Errorf("kwai log --kind=%s is refused", m[1])
			}
			if found++; !strings.Contains(doc, "`"+m[1]+"`") {
				t.Errorf("docs/operating.md doesn't explain %q in the trail", m[1])
			}
		}
	}
	if found < 20 {
		t.Fatalf("only %d kinds and reasons found", found)
	}
}
