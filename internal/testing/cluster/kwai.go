package cluster

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// Build builds kwai as it is released, into the folder, and returns the
// program's path. Flags are more of the go command's, such as -race. It must run
// within the module.
func Build(ctx context.Context, folder string, flags ...string) (program string, err error) {
	program = filepath.Join(folder, "kwai")
	args := append([]string{"build", "-buildvcs=false", "-trimpath", "-ldflags=-s -w", "-o", program}, flags...)
	cmd := exec.CommandContext(ctx, "go", append(args, "kwai/cmd/kwai")...) //nolint:gosec // a folder of its own
	cgo := "CGO_ENABLED=0"
	if slices.Contains(flags, "-race") {
		cgo = "CGO_ENABLED=1" // the race detector needs it
	}
	cmd.Env = append(os.Environ(), cgo)
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build (run this within the module): %w\n%s", err, out)
	}
	return program, nil
}

// Kwai is an installation of kwai: a program and its data.
type Kwai struct {
	Program  string // as Build returns it
	Folder   string // of its data; made at the first start
	Database string // postgres://…, an empty one at first; "": SQLite in Folder
	Bus      string // nats://…; "": local
}

// DatabaseURL is the database's URL on either engine.
func (k Kwai) DatabaseURL() string {
	if k.Database != "" {
		return k.Database
	}
	return "sqlite://" + filepath.Join(k.Folder, "kwai.db")
}

// Start starts a server, as [StartServer] does. Its settings are the defaults,
// without throttles and with only warnings in its log; the flags may change that.
// Tokens stay valid when it is started again, also on another address. On PostgreSQL
// more than one may run.
func (k Kwai) Start(ctx context.Context, flags ...string) (*Server, error) {
	return k.start(ctx, nil, flags...)
}

func (k Kwai) start(ctx context.Context, log io.Writer, flags ...string) (*Server, error) {
	command, err := k.Serve(ctx, flags...)
	if err != nil {
		return nil, err
	}
	command.Log = log
	s, err := StartServer(ctx, command)
	if err != nil {
		return nil, fmt.Errorf("kwai serve: %w", err)
	}
	return s, nil
}

// Serve is the command that Start runs by [StartServer], on a free address. Use it to get
// the log, for example, or to run it under another program.
func (k Kwai) Serve(ctx context.Context, flags ...string) (Command, error) {
	key, err := k.MasterKey(ctx)
	if err != nil {
		return Command{}, err
	}
	address, err := FreeAddress(ctx)
	if err != nil {
		return Command{}, err
	}
	return Command{
		Program: k.Program,
		Args: append([]string{
			"serve", "--listen=" + address, "--master-key-file=" + key,
			"--public-url=http://127.0.0.1:8080", // tokens name it
			"--log-level=warn", "--limits=off",
		}, flags...),
		Env:     k.env(),
		Address: address,
		Ready:   "/readyz",
	}, nil
}

// Command runs another of kwai's commands on the same data, as
//
//	k.Command(ctx, "user", "revoke", "ann1@example.org")
//
// and returns what it prints. It may run beside the server.
func (k Kwai) Command(ctx context.Context, args ...string) (out string, err error) {
	return k.command(ctx, "", args...)
}

// CreateUser makes an account and returns its id. The database must be there:
// a server has been started once.
func (k Kwai) CreateUser(ctx context.Context, email, first, last, password string) (id string, err error) {
	out, err := k.command(ctx, password, "user", "create", email, "--first-name="+first, "--last-name="+last, "--password-stdin")
	return strings.TrimSpace(out), err
}

// Cmd is what Command runs, for callers that need more than its output.
func (k Kwai) Cmd(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, k.Program, args...) //nolint:gosec // kwai as just built
	cmd.Env = k.env()
	return cmd
}

func (k Kwai) command(ctx context.Context, stdin string, args ...string) (out string, err error) {
	cmd := k.Cmd(ctx, args...)
	cmd.Stdin = strings.NewReader(stdin)
	var log bytes.Buffer
	cmd.Stderr = &log
	text, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("kwai %s: %w\n%s", strings.Join(args, " "), err, log.Bytes())
	}
	return string(text), nil
}

// env is the environment, without the user's settings for another kwai. It has the URLs,
// since they hold passwords, which a command line would show to everyone.
func (k Kwai) env() []string {
	env := slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "KWAI_") })
	env = append(env, "KWAI_DATA="+k.Folder, "KWAI_DATABASE="+k.DatabaseURL())
	if k.Bus != "" {
		env = append(env, "KWAI_BUS="+k.Bus)
	}
	return env
}

// MasterKey is the path of the key that seals the server's keys. The first call makes it.
// On PostgreSQL kwai requires one; on SQLite it is given one, too.
func (k Kwai) MasterKey(ctx context.Context) (path string, err error) {
	path = filepath.Join(k.Folder, "master.key")
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	if err := os.MkdirAll(k.Folder, 0o700); err != nil {
		return "", err
	}
	key, err := k.Command(ctx, "key", "new")
	if err != nil {
		return "", err
	}
	return path, os.WriteFile(path, []byte(key), 0o600)
}
