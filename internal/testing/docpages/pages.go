// Package docpages compares what a running kwai says with what its pages say.
// The harnesses of cmd/kwai and test call [Log] for every server that they ran:
//
//	tb.Cleanup(func() { docpages.Log(tb, log.String()) })
package docpages

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
)

// folder is the test's own, before any test changes it.
var folder, _ = os.Getwd()

// Read is the text of a file of the repository, such as "docs/events.md".
func Read(tb testing.TB, name string) string {
	tb.Helper()
	text, err := read(name)
	if err != nil {
		tb.Fatal(err)
	}
	return text
}

func read(name string) (string, error) {
	root := folder
	for {
		if _, err := os.Stat(filepath.Join(root, "go.mod")); err == nil || root == filepath.Dir(root) {
			break
		}
		root = filepath.Dir(root)
	}
	text, err := os.ReadFile(filepath.Join(root, name))
	return string(text), err
}

// Section is what stands on a page under a heading.
func Section(page, heading string) string {
	_, section, _ := strings.Cut(page, "\n## "+heading+"\n")
	section, _, _ = strings.Cut(section, "\n## ")
	return section
}

// levels has the level of each message that docs/operating.md explains.
var levels = sync.OnceValues(func() (map[string]string, error) {
	page, err := read("docs/operating.md")
	messages := make(map[string]string)
	for _, row := range regexp.MustCompile("(?m)^\\| `(.*?)` \\| (\\w+) \\|").FindAllStringSubmatch(Section(page, "What the log says"), -1) {
		for _, message := range strings.Split(row[1], "`, `") {
			messages[message] = row[2]
		}
	}
	return messages, err
})

// Messages has the level of each message of the log that docs/operating.md explains.
func Messages(tb testing.TB) map[string]string {
	tb.Helper()
	messages, err := levels()
	if err != nil || len(messages) < 40 {
		tb.Fatalf("docs/operating.md explains %d messages: %v", len(messages), err)
	}
	return messages
}

// Log fails the test for each line of a server's log, written as JSON, that
// docs/operating.md doesn't explain or has under another level. Debug lines and
// those of requests, which the page describes otherwise, are free.
func Log(tb testing.TB, log string) {
	tb.Helper()
	messages, seen := Messages(tb), make(map[string]bool)
	for text := range strings.Lines(log) {
		var line struct{ Msg, Level string }
		if json.Unmarshal([]byte(text), &line) != nil || line.Msg == "" || line.Level == "DEBUG" || line.Msg == "request" || seen[line.Msg] {
			continue
		}
		seen[line.Msg] = true
		if level := messages[line.Msg]; !strings.EqualFold(level, line.Level) {
			tb.Errorf("docs/operating.md has the level %q for a line of the log: %s", level, text)
		}
	}
}
