// Command kwai is a self-hosted authentication server. See the README for its
// first five minutes and docs/operating.md for the years after.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/alecthomas/kong"
)

// cli is the command line: the settings, which every command takes, and the
// commands, each in a file of its name.
type cli struct {
	Settings

	Serve   serveCmd   `cmd:"" help:"Serve requests."`
	User    userCmd    `cmd:"" help:"Make, show and change accounts."`
	Mail    mailCmd    `cmd:"" help:"Show mail that wasn't delivered, and send it again."`
	Key     keyCmd     `cmd:"" help:"Make keys."`
	Version versionCmd `cmd:"" help:"Print the version."`
}

// console is what a command reads and writes.
type console struct {
	in       io.Reader
	out, err io.Writer
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// A second signal ends the program at once.
	context.AfterFunc(ctx, stop)
	os.Exit(run(ctx, os.Args[1:], console{os.Stdin, os.Stdout, os.Stderr}))
}

// Exit codes: 2 where the command line, a setting or what it names is wrong, 1
// where something failed.
const (
	exitFailed = 1
	exitUsage  = 2
)

// usageError is an error that the person who started the program mends by
// starting it in another way.
type usageError struct {
	setting string // its flag or what else names it
	err     error
}

func (e *usageError) Error() string { return e.setting + ": " + e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

func run(ctx context.Context, args []string, c console) int {
	var k cli
	exited := -1
	parser, err := kong.New(&k,
		kong.Name("kwai"),
		kong.Description("A self-hosted authentication server: login, renewal, logout, password recovery."),
		kong.Writers(c.out, c.err),
		kong.Exit(func(code int) { exited = code }), // --help
		kong.ConfigureHelp(kong.HelpOptions{Compact: true}),
		settingDefaults(),
		kong.Resolvers(&fileResolver{path: configPath(args)}),
	)
	if err != nil {
		panic(err) // the struct above is wrong
	}
	command, err := parser.Parse(args)
	if exited >= 0 {
		return exited
	}
	if err == nil {
		err = k.finish()
		if err == nil {
			command.BindTo(ctx, (*context.Context)(nil))
			err = command.Run(&k.Settings, c)
		}
	} else {
		err = &usageError{"usage", err}
	}
	if err == nil {
		return 0
	}
	fmt.Fprintln(c.err, "kwai:", oneLine(err))
	if _, ok := errors.AsType[*usageError](err); ok {
		return exitUsage
	}
	return exitFailed
}
