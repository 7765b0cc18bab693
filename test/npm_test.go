package test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"kwai/internal/testing/need"
)

// installed is the folder of npm's packages; "" for none.
var installed string

// npmInstall installs the packages of npm/package-lock.json, once for all tests.
var npmInstall = sync.OnceValue(func() (err error) {
	if installed, err = os.MkdirTemp("", "kwai-npm-"); err != nil {
		return err
	}
	if err := os.CopyFS(installed, os.DirFS("npm")); err != nil {
		return err
	}
	cmd := exec.CommandContext(context.Background(), "npm", "ci", "--engine-strict", "--ignore-scripts", "--no-audit", "--no-fund")
	cmd.Dir = installed
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("npm ci: %w\n%s", err, out)
	}
	return nil
})

// node is a folder in which Node finds npm's packages, and the files of npm/.
type node struct {
	t      *testing.T
	Folder string
}

func newNode(t *testing.T) *node {
	t.Helper()
	need.Program(t, "node")
	need.Program(t, "npm")
	n := &node{t: t, Folder: t.TempDir()}
	err := npmInstall()
	if err == nil {
		err = errors.Join(
			os.CopyFS(n.Folder, os.DirFS("npm")),
			os.Symlink(filepath.Join(installed, "node_modules"), filepath.Join(n.Folder, "node_modules")),
		)
	}
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// write makes a file in the folder.
func (n *node) write(name, text string) {
	n.t.Helper()
	if err := os.WriteFile(filepath.Join(n.Folder, name), []byte(text), 0o600); err != nil {
		n.t.Fatal(err)
	}
}

// run runs Node, or a program of a package, and returns what it prints.
func (n *node) run(program string, args ...string) string {
	n.t.Helper()
	if program != "node" {
		program = filepath.Join(n.Folder, "node_modules/.bin", program)
	}
	cmd := exec.CommandContext(n.t.Context(), program, args...)
	cmd.Dir = n.Folder
	cmd.Env = append(os.Environ(), "CI=true", "NO_COLOR=1", "REDOCLY_TELEMETRY=off", "REDOCLY_SUPPRESS_UPDATE_NOTICE=true")
	out, err := cmd.CombinedOutput()
	if err != nil {
		n.t.Fatalf("%s %q: %v\n%s", program, args, err, out)
	}
	return string(out)
}
