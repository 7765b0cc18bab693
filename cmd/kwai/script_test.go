package main

import (
	"bufio"
	"bytes"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/alecthomas/kong"
	"github.com/rogpeppe/go-internal/testscript"

	"kwai/internal/testing/need"
	"kwai/internal/testing/storetest"
)

// TestScripts runs what needs no particular database. The commands that the
// scripts have beside testscript's own are below, in scriptCommands.
func TestScripts(t *testing.T) {
	t.Parallel()
	testscript.Run(t, scripts(testscript.Params{Dir: "testdata/script"}))
}

// TestScriptsOnEach runs each script on each kind of database.
func TestScriptsOnEach(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/script/each/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal("there are no scripts", err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".txtar")
		run := func(t *testing.T, database string) {
			masterKey, _ := newMasterKey(t)
			testscript.Run(t, scripts(testscript.Params{Files: []string{file}},
				"KWAI_DATABASE="+withLongTimeout(database),
				"KWAI_MASTER_KEY_FILE="+masterKey,
				"KWAI_PUBLIC_URL=http://127.0.0.1:8080",
				"KWAI_LOG_LEVEL=error")) // but for the server: the cluster has no fsync, of which commands warn
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			t.Run("sqlite", func(t *testing.T) {
				t.Parallel()
				run(t, storetest.SQLite(t))
			})
			t.Run("postgres", func(t *testing.T) {
				t.Parallel()
				if !slices.Contains(ofPostgres, name) {
					need.Time(t)
				}
				run(t, storetest.Postgres(t))
			})
		})
	}
}

// ofPostgres are the scripts of which PostgreSQL has most to do with. The other
// ones are about the commands themselves, and each command is a process.
var ofPostgres = []string{"newer", "status"}

// TestSettingsHaveOneName: a flag and its variable never differ but in form.
func TestSettingsHaveOneName(t *testing.T) {
	t.Parallel()
	names := settingFlags()
	if len(names) < 20 {
		t.Fatal("settings are missing:", names)
	}
	for flag, variable := range names {
		if want := "KWAI_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_")); variable != want {
			t.Errorf("the variable of --%s is %s, want %s", flag, variable, want)
		}
	}
}

// settingFlags has the environment variable of each setting's flag.
func settingFlags() map[string]string {
	parser, err := kong.New(&cli{}, helpVars())
	if err != nil {
		panic(err)
	}
	names := make(map[string]string)
	for _, flag := range parser.Model.Flags {
		if flag.Name != "help" {
			names[flag.Name] = strings.Join(flag.Envs, " ")
		}
	}
	return names
}

// scripts completes the parameters of a run.
func scripts(p testscript.Params, environment ...string) testscript.Params {
	p.RequireExplicitExec = true
	p.RequireUniqueNames = true
	p.Setup = func(env *testscript.Env) error {
		env.Vars = append(env.Vars, "KWAI_HASH_MEMORY=64", "KWAI_HASH_TIME=1", "KWAI_HASH_WAIT=1h", "NEWLINE=\n", "CR=\r", "RTL=\u202e",
			"GOGC=400",                 // a command that is over in 15 ms need not collect
			"GORACE=atexit_sleep_ms=0") // the race detector would have each command end a second later
		env.Vars = append(env.Vars, environment...)
		server := &scriptServer{}
		env.Values[serverKey] = server
		env.Defer(server.kill)
		return nil
	}
	p.Cmds = scriptCommands
	return p
}

var scriptCommands = map[string]func(ts *testscript.TestScript, neg bool, args []string){
	// refuse CODE TEXT PROGRAM ARG... wants the program to end with the code,
	// to print nothing, and to say why in one line that holds the text.
	"refuse": func(ts *testscript.TestScript, neg bool, args []string) {
		wants(ts, !neg && len(args) >= 3, "refuse CODE TEXT PROGRAM ARG...")
		code := 0
		err := ts.Exec(args[2], args[3:]...)
		if exit, ok := errors.AsType[*exec.ExitError](err); ok {
			code = exit.ExitCode()
		} else {
			ts.Check(err)
		}
		stdout, stderr := ts.ReadFile("stdout"), ts.ReadFile("stderr")
		if strconv.Itoa(code) != args[0] {
			ts.Fatalf("exit code %d", code)
		}
		if stdout != "" || !strings.HasPrefix(stderr, "kwai: ") || strings.Count(stderr, "\n") != 1 || !strings.Contains(stderr, args[1]) {
			ts.Fatalf("that is not one line with %q", args[1])
		}
	},

	// refuse-report CODE FILE PROGRAM ARG... wants the program to end with the
	// code, to print what the file has, and to say why it failed in one line.
	"refuse-report": func(ts *testscript.TestScript, neg bool, args []string) {
		wants(ts, !neg && len(args) >= 3, "refuse-report CODE FILE PROGRAM ARG...")
		exit, failed := errors.AsType[*exec.ExitError](ts.Exec(args[2], args[3:]...))
		if !failed || strconv.Itoa(exit.ExitCode()) != args[0] {
			ts.Fatalf("the exit code is not %s", args[0])
		}
		if stdout := ts.ReadFile("stdout"); stdout != ts.ReadFile(args[1]) {
			ts.Fatalf("that is not what %s has", args[1])
		}
		if stderr := ts.ReadFile("stderr"); !strings.HasPrefix(stderr, "kwai: ") || strings.Count(stderr, "\n") != 1 {
			ts.Fatalf("that is not one line")
		}
	},

	// serve FLAG... starts `kwai serve` on a free port, waits until it serves,
	// and sets $ADDRESS. Its standard output goes to the file out.
	"serve": func(ts *testscript.TestScript, neg bool, args []string) {
		wants(ts, !neg, "serve FLAG...")
		serverOf(ts).start(ts, args)
	},

	// end SIGNAL sends TERM, INT, HUP or KILL to the server, waits for its end and
	// wants the exit code 0 (unless after KILL).
	"end": func(ts *testscript.TestScript, neg bool, args []string) {
		wants(ts, !neg && len(args) == 1 && signals[args[0]] != 0, "end TERM|INT|HUP|KILL")
		s := serverOf(ts)
		ts.Check(s.cmd.Process.Signal(signals[args[0]]))
		s.ended(ts, args[0] != "KILL")
	},

	// signal SIGNAL sends it to the server, and waits for nothing.
	"signal": func(ts *testscript.TestScript, neg bool, args []string) {
		wants(ts, !neg && len(args) == 1 && signals[args[0]] != 0, "signal TERM|INT|HUP|KILL")
		ts.Check(serverOf(ts).cmd.Process.Signal(signals[args[0]]))
	},

	// logged REGEXP waits until the server's log has a match.
	"logged": func(ts *testscript.TestScript, neg bool, args []string) {
		wants(ts, !neg && len(args) == 1, "logged REGEXP")
		serverOf(ts).await(ts, args[0])
	},

	// http STATUS METHOD PATH [NAME=VALUE | NAME:VALUE]... sends a request with
	// form fields and headers to the server and wants the status; the body is
	// printed.
	"http": func(ts *testscript.TestScript, neg bool, args []string) {
		wants(ts, !neg && len(args) >= 3, "http STATUS METHOD PATH [NAME=VALUE | NAME:VALUE]...")
		form, header := url.Values{}, http.Header{}
		for _, arg := range args[3:] {
			at := strings.IndexAny(arg, "=:")
			wants(ts, at > 0, "NAME=VALUE or NAME:VALUE")
			if arg[at] == ':' {
				header.Add(arg[:at], arg[at+1:])
			} else {
				form.Add(arg[:at], arg[at+1:])
			}
		}
		r, err := http.NewRequest(args[1], "http://"+ts.Getenv("ADDRESS")+args[2], strings.NewReader(form.Encode()))
		ts.Check(err)
		r.Header = header
		r.Host = header.Get("Host")
		if len(form) > 0 {
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		}
		res, err := http.DefaultTransport.RoundTrip(r)
		ts.Check(err)
		answered(ts, res, args[0])
	},

	// under-way SIGNAL STATUS PATH NAME=VALUE... posts a form of which the
	// server gets the body only when it has begun to stop, wants the status and
	// the exit code 0.
	"under-way": func(ts *testscript.TestScript, neg bool, args []string) {
		wants(ts, !neg && len(args) > 3 && signals[args[0]] != 0, "under-way TERM|INT STATUS PATH NAME=VALUE...")
		form, err := url.ParseQuery(strings.Join(args[3:], "&"))
		ts.Check(err)
		conn, err := net.Dial("tcp", ts.Getenv("ADDRESS"))
		ts.Check(err)
		defer conn.Close()
		// The server asks for the body once the handler reads it.
		fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: kwai\r\nExpect: 100-continue\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: %d\r\n\r\n",
			args[2], len(form.Encode()))
		answers := bufio.NewReader(conn)
		if line, _ := answers.ReadString('\n'); !strings.Contains(line, " 100 ") {
			ts.Fatalf("the server doesn't ask for the body but says %s", line)
		}
		_, err = answers.ReadString('\n')
		ts.Check(err)

		s := serverOf(ts)
		ts.Check(s.cmd.Process.Signal(signals[args[0]]))
		s.await(ts, "stopping")
		fmt.Fprint(conn, form.Encode())
		res, err := http.ReadResponse(answers, nil)
		ts.Check(err)
		answered(ts, res, args[1])
		s.ended(ts, true)
	},

	// json FIELD VARIABLE sets a variable to a field of the JSON that was
	// printed last.
	"json": func(ts *testscript.TestScript, neg bool, args []string) {
		wants(ts, !neg && len(args) == 2, "json FIELD VARIABLE")
		var v map[string]any
		ts.Check(json.Unmarshal([]byte(ts.ReadFile("stdout")), &v))
		if v[args[0]] == nil {
			ts.Fatalf("there is no field %s", args[0])
		}
		ts.Setenv(args[1], fmt.Sprint(v[args[0]]))
	},

	// key-id PURPOSE STATE VARIABLE sets a variable to the id of a server key.
	"key-id": func(ts *testscript.TestScript, neg bool, args []string) {
		wants(ts, !neg && len(args) == 3, "key-id PURPOSE STATE VARIABLE")
		ts.Check(ts.Exec("kwai", "key", "list", "--json"))
		var keys []serverKeyView
		ts.Check(json.Unmarshal([]byte(ts.ReadFile("stdout")), &keys))
		for _, key := range keys {
			if key.Purpose == args[0] && key.State == args[1] {
				ts.Setenv(args[2], key.ID)
				return
			}
		}
		ts.Fatalf("there is no such key")
	},

	// sql STATEMENT changes the database of $KWAI_DATABASE.
	"sql": func(ts *testscript.TestScript, neg bool, args []string) {
		wants(ts, !neg && len(args) == 1, "sql STATEMENT")
		driver, name := "pgx", ts.Getenv("KWAI_DATABASE")
		if path, ok := strings.CutPrefix(name, "sqlite://"); ok {
			driver, name = "sqlite", "file:"+ts.MkAbs(path)+"?_pragma=busy_timeout(600000)" // beside the server
		}
		db, err := sql.Open(driver, name)
		ts.Check(err)
		defer db.Close()
		_, err = db.Exec(args[0])
		ts.Check(err)
	},
}

var signals = map[string]syscall.Signal{"TERM": syscall.SIGTERM, "INT": syscall.SIGINT, "HUP": syscall.SIGHUP, "KILL": syscall.SIGKILL}

func wants(ts *testscript.TestScript, ok bool, usage string) {
	if !ok {
		ts.Fatalf("usage: %s", usage)
	}
}

func answered(ts *testscript.TestScript, res *http.Response, status string) {
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	ts.Check(err)
	_, err = ts.Stdout().Write(body)
	ts.Check(err)
	if strconv.Itoa(res.StatusCode) != status {
		ts.Fatalf("the answer is %s", res.Status)
	}
}

type valueKey string

const serverKey valueKey = "server"

func serverOf(ts *testscript.TestScript) *scriptServer { return ts.Value(serverKey).(*scriptServer) }

// scriptServer is the `kwai serve` of a script, a process of its own.
type scriptServer struct {
	cmd  *exec.Cmd
	log  *transcript
	exit chan struct{} // closed when it has ended
	err  error         // of its end
}

func (s *scriptServer) start(ts *testscript.TestScript, flags []string) {
	wants(ts, s.cmd == nil, "end the server first")
	out, err := os.Create(ts.MkAbs("out"))
	ts.Check(err)
	defer out.Close()
	s.cmd = exec.Command("kwai", append([]string{"serve", "--listen=127.0.0.1:0", "--log-level=info"}, flags...)...)
	s.log, s.exit = &transcript{more: make(chan struct{})}, make(chan struct{})
	s.cmd.Dir, s.cmd.Stdout, s.cmd.Stderr = ts.MkAbs("."), out, s.log
	for _, name := range []string{"PATH", "HOME", "TMPDIR", "GOCOVERDIR", "GOGC", "GORACE"} {
		s.cmd.Env = append(s.cmd.Env, name+"="+ts.Getenv(name))
	}
	for _, name := range settingFlags() {
		if value := ts.Getenv(name); value != "" {
			s.cmd.Env = append(s.cmd.Env, name+"="+value)
		}
	}
	ts.Check(s.cmd.Start())
	go func() {
		s.err = s.cmd.Wait()
		close(s.exit)
	}()
	ts.Setenv("ADDRESS", s.await(ts, `msg=serving address=(\S+)`)[1])
}

// await waits for a line of the log.
func (s *scriptServer) await(ts *testscript.TestScript, pattern string) []string {
	wants(ts, s.cmd != nil, "serve first")
	for {
		text, more := s.log.read()
		if m := regexp.MustCompile(pattern).FindStringSubmatch(text); m != nil {
			return m
		}
		select {
		case <-more:
		case <-s.exit:
			if text, _ = s.log.read(); !regexp.MustCompile(pattern).MatchString(text) {
				ts.Fatalf("the server ended (%v) before it logged %s:\n%s", s.err, pattern, text)
			}
		}
	}
}

// ended waits for the server's end and prints its log.
func (s *scriptServer) ended(ts *testscript.TestScript, well bool) {
	<-s.exit
	text, _ := s.log.read()
	fmt.Fprint(ts.Stderr(), text)
	s.cmd = nil
	if well && s.err != nil {
		ts.Fatalf("the server ended badly: %v", s.err)
	}
}

func (s *scriptServer) kill() {
	if s.cmd != nil && s.cmd.Process != nil {
		_ = s.cmd.Process.Kill() // it may have ended
		<-s.exit
	}
}

// transcript keeps what is written to it.
type transcript struct {
	mu   sync.Mutex
	text bytes.Buffer
	more chan struct{} // closed at the next writing
}

func (l *transcript) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	close(l.more)
	l.more = make(chan struct{})
	return l.text.Write(b)
}

// read gives the text so far, and a channel that is closed when there is more.
func (l *transcript) read() (text string, more <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String(), l.more
}
