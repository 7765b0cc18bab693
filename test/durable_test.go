package test

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"kwai/internal/testing/mailtest"
	"kwai/internal/testing/need"
)

// What is answered was on the disk before: between the arrival of each request
// that changes something and the first byte of its answer the database's log is
// written and then synced, as the system calls of the true program show.
func TestAnswersAreDurable(t *testing.T) {
	t.Parallel()
	strace := requireStrace(t)
	smtp := mailtest.Serve(t)
	k := install(t, "")
	command, err := k.Serve(t.Context(), append(slices.Clone(quick), "--smtp="+smtp.URL())...)
	if err != nil {
		t.Fatal(err)
	}
	trace := filepath.Join(t.TempDir(), "trace")
	command.Args = slices.Concat([]string{
		"--follow-forks", "--decode-fds=path", "--string-limit=64", "--output=" + trace,
		"--trace=read,write,writev,sendto,sendmsg,pwrite64,fsync,fdatasync", command.Program,
	}, command.Args)
	command.Program = strace
	s := startCommand(t, k, command)
	t.Cleanup(func() { signalTraced(t, trace, os.Kill) })

	s.user("ann@example.org", "a long password")
	login := s.post("login", "", "username", "ann@example.org", "password", "a long password")
	access, refresh := login.field("access_token"), login.field("refresh_token")
	answers := map[string]answer{
		"login":        login,
		"user":         s.get("/api/v1/auth/user", access), // now, while nothing waits to be done in the background
		"access_token": s.post("access_token", "", "refresh_token", refresh),
		"logout":       s.post("logout", access, "refresh_token", refresh),
		"recover":      s.post("recover", "", "email", "ann@example.org"),
	}
	mails, err := smtp.Wait(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	answers["reset"] = s.post("reset", "", "uuid", mails[0].RecoveryID(), "password", "another long password")
	// With the program ends its tracer, which has written everything then.
	signalTraced(t, trace, os.Interrupt)
	<-s.server.Done()

	calls := readTrace(t, trace)
	for endpoint, a := range answers {
		if a.Status != http.StatusOK {
			t.Errorf("%s answered %v", endpoint, a)
			continue
		}
		synced, err := syncedBefore(calls, "/api/v1/auth/"+endpoint, filepath.Join(k.Folder, "kwai.db-wal"))
		if err != nil {
			t.Errorf("%s: %v", endpoint, err)
			continue
		}
		// That of a check shows that this test can tell the difference.
		if want := endpoint != "user"; synced != want {
			t.Errorf("%s: the database's log was written and synced before the answer: %v, want %v", endpoint, synced, want)
		}
	}
}

// requireStrace returns the path of strace. It skips the test where no program can
// be traced, or fails it if every test was asked for.
func requireStrace(t *testing.T) (path string) {
	t.Helper()
	path = need.Program(t, "strace")
	out, err := exec.Command("strace", "--output="+os.DevNull, "true").CombinedOutput()
	if err != nil {
		need.Missing(t, fmt.Errorf("strace can't be used here (is ptrace allowed?): %w %s", err, bytes.TrimSpace(out)))
	}
	return path
}

// signalTraced signals the traced program, unless it has ended: to kill its
// tracer would let it go on.
func signalTraced(t *testing.T, trace string, signal os.Signal) {
	t.Helper()
	text, err := os.ReadFile(trace)
	if err != nil {
		t.Fatal(err)
	}
	pid, _, _ := strings.Cut(string(text), " ")
	if regexp.MustCompile(`(?m)^` + pid + ` +\+\+\+ (exited|killed) `).Match(text) {
		return
	}
	number, err := strconv.Atoi(pid)
	if err != nil {
		t.Fatal("the trace doesn't begin with a process id: ", err)
	}
	traced, err := os.FindProcess(number)
	if err != nil {
		t.Fatal(err)
	}
	if err := traced.Signal(signal); err != nil {
		t.Error(err)
	}
}

// systemCall is a call in a trace, whose lines are numbered.
type systemCall struct {
	name, file, args string
	result           int
	begun, ended     int // lines; ended is 0 if it never did
}

// "17  fsync(11</kwai.db-wal>) = 0", or in two parts, where the line of another
// thread came between them: "17  fsync(11</kwai.db-wal> <unfinished ...>" and
// "17  <... fsync resumed>) = 0".
var (
	callLine    = regexp.MustCompile(`^(\d+) +(\w+)\(\d+<(.*?)>(.*)$`)
	resumedLine = regexp.MustCompile(`^(\d+) +<\.\.\. \w+ resumed>(.*)$`)
	resultPart  = regexp.MustCompile(`^(.*)\) += (-?\d+)`)
)

// readTrace reads the calls on files and sockets, in the order in which they
// began.
func readTrace(t *testing.T, path string) []*systemCall {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var calls []*systemCall
	unfinished := map[string]*systemCall{} // by thread
	for i, line := range strings.Split(string(text), "\n") {
		var call *systemCall
		var rest string
		if m := callLine.FindStringSubmatch(line); m != nil {
			call, rest = &systemCall{name: m[2], file: m[3], begun: i + 1}, m[4]
			calls = append(calls, call)
			if args, cut := strings.CutSuffix(rest, " <unfinished ...>"); cut {
				call.args = args
				unfinished[m[1]] = call
				continue
			}
		} else if m := resumedLine.FindStringSubmatch(line); m != nil && unfinished[m[1]] != nil {
			call, rest = unfinished[m[1]], m[2]
			delete(unfinished, m[1])
		} else {
			continue
		}
		m := resultPart.FindStringSubmatch(rest)
		if m == nil {
			continue // it ended with the program
		}
		call.args += m[1]
		call.result, _ = strconv.Atoi(m[2])
		call.ended = i + 1
	}
	return calls
}

// syncedBefore says whether, between the arrival of the only request for a
// path and the first byte of its answer, the file was written and then synced.
func syncedBefore(calls []*systemCall, path, file string) (bool, error) {
	var arrival, written, synced *systemCall
	for _, call := range calls {
		switch {
		case arrival == nil:
			if call.name == "read" && strings.HasPrefix(call.file, "socket:") && strings.Contains(call.args, " "+path+" HTTP/1.1") {
				arrival = call
			}
		case call.begun < arrival.ended:
		case call.file == file && strings.HasPrefix(call.name, "pwrite"):
			written = call
		case call.file == file && (call.name == "fsync" || call.name == "fdatasync"):
			if written != nil && written.ended > 0 && written.ended < call.begun && call.result == 0 && synced == nil {
				synced = call
			}
		case call.file == arrival.file && strings.Contains(call.args, `"HTTP/1.1 200 OK`):
			return synced != nil && synced.ended > 0 && synced.ended < call.begun, nil
		}
	}
	if arrival == nil {
		return false, fmt.Errorf("the trace doesn't show its arrival")
	}
	return false, fmt.Errorf("the trace doesn't show its answer")
}
