// Command kwai is a self-hosted authentication server. See the README for its
// first five minutes and docs/operating.md for the years after.
//
// main.go reads the command line and runs a command. Commands have a file each:
//
//	serve.go       the server: it opens, runs and ends, with all background tasks
//	dev.go         serve --dev
//	status.go      what the database holds
//	config.go      the settings, and where they come from
//	user.go        accounts; import.go is user import
//	session.go     sessions
//	log.go         the audit log
//	mail.go        undelivered mail, and a mail to try
//	key.go         the server's keys; masterkey.go is all about the master key
//	backup.go      restore.go, move.go: the database's files
//	version.go     completion.go, help.go: the program itself
//
// What they share:
//
//	settings.go     all settings, their defaults and checks
//	settingsfile.go where settings come from: the TOML file, and how texts are read
//	urls.go         settings that are URLs or addresses
//	secretfile.go   files of secrets, who may read them, and what a folder can't do
//	output.go       all ways to print: tables, JSON, times, URLs without passwords
//
// Parts of the server that no package owns:
//
//	tls.go         the certificate
//	connections.go how many clients are connected
//	metrics.go     the server of the metrics
//	logwriter.go   the log, which waits for no reader
//
// To add a command:
//
//  1. Write its struct, with its flags and a Run method, in a file of its name. Run
//     takes any of context.Context, *Settings, console and *kong.Context. Commands on
//     the database call withRules, commands that make keys withKeys.
//  2. Name it in cli, below, or in the struct of the command it belongs to.
//  3. Print by output.go; return a usageError for what another command line mends.
//  4. Write a script in testdata/script, and describe the command in docs/operating.md.
//
// To add a setting:
//
//  1. Add its field to Settings. The tags are its group in the help, its environment
//     variable and its default. It is a secret if it may hold a password.
//  2. Check it in a step of finish.
//  3. Pass it on: to the rules by Settings.rules, or to a part of the server in serve.go.
//  4. Add its row to docs/operating.md. Tests fail until there is one.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"reflect"
	"strings"
	"syscall"
	"time"

	"github.com/alecthomas/kong"

	"kwai/internal/auth"
	"kwai/internal/database"
	"kwai/internal/password"
	"kwai/internal/store"
)

// cli is the command line: the settings, which every command takes, and the
// commands, each in a file of its name.
type cli struct {
	Settings `embed:""`

	Serve      serveCmd      `cmd:"" group:"server" help:"Serve requests."`
	Status     statusCmd     `cmd:"" group:"server" help:"Show what the database holds, and what waits."`
	Config     configCmd     `cmd:"" group:"server" help:"Show the settings, and where they come from."`
	User       userCmd       `cmd:"" group:"accounts" help:"Make, show and change accounts."`
	App        appCmd        `cmd:"" group:"accounts" help:"Make, show and change apps that let people in by kwai."`
	Group      groupCmd      `cmd:"" group:"accounts" help:"Make groups of users: who may use apps, and who must log in by two steps."`
	Session    sessionCmd    `cmd:"" group:"accounts" help:"Show and end sessions."`
	Log        logCmd        `cmd:"" group:"accounts" help:"Show what happened: logins, failures and changes."`
	Mail       mailCmd       `cmd:"" group:"accounts" help:"Show mail that was not delivered, and send it again."`
	Key        keyCmd        `cmd:"" group:"data" help:"Make, show and change keys."`
	Backup     backupCmd     `cmd:"" group:"data" help:"Copy the SQLite database to a file."`
	Restore    restoreCmd    `cmd:"" group:"data" help:"Put a backup in the place of the SQLite database."`
	Move       moveCmd       `cmd:"" group:"data" help:"Move an SQLite database to PostgreSQL."`
	Version    versionCmd    `cmd:"" group:"program" help:"Print the version and the commit."`
	Completion completionCmd `cmd:"" group:"program" help:"Print what has bash, zsh or fish complete commands."`
}

func main() {
	password.RunWorker()
	ends := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) { // as nohup has it
		ends = append(ends, syscall.SIGHUP) // the terminal is closed
	}
	ctx, stop := signal.NotifyContext(context.Background(), ends...)
	// A second signal ends the program at once.
	context.AfterFunc(ctx, stop)
	os.Exit(run(ctx, os.Args[1:], console{os.Stdin, os.Stdout, os.Stderr}))
}

// Exit codes: 2 where the command line, a setting or what was given with them is
// wrong, 3 where an account that is to be made is there already or an address is taken,
// 1 where something else failed.
const (
	exitFailed = 1
	exitUsage  = 2
	exitExists = 3
)

// exitCode is the one place that chooses an exit code.
func exitCode(err error) int {
	_, usage := errors.AsType[*usageError](err)
	switch {
	case errors.Is(err, auth.ErrUserExists):
		return exitExists
	case (usage || auth.CodeOf(err) == auth.Invalid) && !isTransient(err):
		return exitUsage
	}
	return exitFailed
}

// isTransient reports whether the same command line may succeed later.
func isTransient(err error) bool {
	for _, transient := range []error{database.ErrAway, syscall.EADDRINUSE, syscall.EADDRNOTAVAIL, syscall.ENOSPC, syscall.EDQUOT, syscall.EIO, syscall.EMFILE, syscall.ENFILE} {
		if errors.Is(err, transient) {
			return true
		}
	}
	return false
}

// usageError is an error of the command line or of a setting. Another start, with
// other arguments, mends it.
type usageError struct {
	setting string // its flag, or what else names it, or ""
	err     error
}

func (e *usageError) Error() string {
	if e.setting == "" {
		return e.err.Error()
	}
	return e.setting + ": " + e.err.Error()
}

func (e *usageError) Unwrap() error { return e.err }

// explainUsage makes a usage error of kong's own, with where to look next.
func explainUsage(err error) error {
	if _, ok := errors.AsType[*usageError](err); ok {
		return err
	}
	command := "kwai"
	if parse, ok := errors.AsType[*kong.ParseError](err); ok {
		if node := parse.Context.Selected(); node != nil {
			command = node.FullPath()
		}
	}
	what := strings.ReplaceAll(err.Error(), ` but got "EOL" (<EOL>)`, ", but there is none")
	return &usageError{"", fmt.Errorf("%s (see %s --help)", what, command)}
}

// run runs a command line and returns its exit code.
func run(ctx context.Context, args []string, c console) int {
	args = withoutLineBreaks(args)
	var k cli
	exited := -1
	parser := newParser(&k, c, func(code int) { exited = code })
	if len(args) > 0 && args[0] == completeWord {
		complete(c.out, parser.Model.Node, args[1:])
		return 0
	}
	for _, warning := range misspelt(parser.Model, os.Environ()) {
		fmt.Fprintln(c.err, "kwai:", warning)
	}
	command, err := parser.Parse(args)
	if exited >= 0 {
		return exited
	}
	if err != nil {
		err = explainUsage(err)
	} else if err = k.finish(); err == nil {
		if file, ok := c.err.(*os.File); ok && command.Command() == "serve" {
			signal.Ignore(syscall.SIGPIPE) // or a log without a reader ends the server
			log := newLogWriter(file, func(lines int) {
				k.logger(c).Warn("lines of this log were lost: standard error could not be written", "lines", lines)
			})
			defer log.close()
			c.err = log
		}
		command.BindTo(ctx, (*context.Context)(nil))
		err = command.Run(&k.Settings, c)
	}
	if err == nil {
		return 0
	}
	if errors.Is(err, context.Canceled) && ctx.Err() != nil {
		err = errors.New("interrupted")
	}
	fmt.Fprintln(c.err, "kwai:", oneLine(err))
	return exitCode(err)
}

// newParser reads command lines into k. exit is called after --help.
func newParser(k *cli, c console, exit func(code int)) *kong.Kong {
	parser, err := kong.New(k,
		kong.Name("kwai"),
		kong.Description("A self-hosted authentication server: login, renewal, logout, password recovery."),
		kong.Writers(c.out, c.err),
		kong.Exit(exit),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true}),
		kong.Help(printHelp),
		helpGroups(),
		helpVars(),
		kong.TypeMapper(reflect.TypeFor[time.Duration](), kong.MapperFunc(decodeDuration)),
	)
	if err != nil {
		panic(err) // the struct of the command line is wrong
	}
	return parser
}

// withRules runs a command on the database, beside a running server or without
// one. It has no keys: commands make and check no tokens.
func withRules(ctx context.Context, s *Settings, c console, do func(*auth.Service) error) (err error) {
	log := s.logger(c)
	db, err := store.Open(ctx, database.Options{URL: s.Database, Log: log})
	if err != nil {
		return &usageError{"--database", err}
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	passwords := password.NewPool(password.Options{Params: s.hashing(), Workers: 1})
	defer passwords.Close()
	rules := &auth.Service{Store: db, Passwords: passwords, Settings: s.rules(), Log: log}
	if err := rules.RefreshSubscribers(ctx); err != nil {
		return err
	}
	return do(rules)
}

func (s *Settings) logger(c console) *slog.Logger {
	var level slog.Level
	if err := level.UnmarshalText([]byte(s.LogLevel)); err != nil {
		panic(err) // kong has checked it
	}
	o := &slog.HandlerOptions{Level: level}
	if s.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(c.err, o))
	}
	return slog.New(slog.NewTextHandler(c.err, o))
}
