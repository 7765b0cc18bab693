package test

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"

	"kwai/internal/password"
	"kwai/internal/testing/cluster"
	"kwai/internal/testing/need"
	"kwai/internal/testing/pgcluster"
	"kwai/internal/testing/storetest"
)

func TestMain(m *testing.M) {
	password.RunWorker()
	// The race detector would have each command end a second later.
	os.Setenv("GORACE", os.Getenv("GORACE")+" atexit_sleep_ms=0")
	need.ShareCores()
	if need.All() { // with the race detector they compute more than they wait
		_ = flag.Set("test.parallel", strconv.Itoa(2*runtime.GOMAXPROCS(0)))
	}
	code := storetest.Main(m)
	for _, folder := range []string{built, installed} {
		if folder != "" {
			os.RemoveAll(folder)
		}
	}
	if missed := missed(); missed != "" {
		tell("kwai/test skipped: " + missed + "\n")
	}
	os.Exit(code)
}

// built is the folder of the program; "" for none.
var built string

// program is kwai, built once for all tests.
var program = sync.OnceValues(func() (path string, err error) {
	if built, err = os.MkdirTemp("", "kwai-test-"); err != nil {
		return "", err
	}
	return cluster.Build(context.Background(), built, buildFlags...)
})

// missed says what the tests of this package left out, and why.
func missed() string {
	if need.All() {
		return "" // what is missing failed
	}
	all := []string{"what takes long (KWAI_TEST=all runs it)"}
	if err := pgcluster.Available(); err != nil {
		all = append(all, "what runs on PostgreSQL (its programs aren't here; Debian: apt install postgresql)")
	}
	if _, err := exec.LookPath("strace"); err != nil {
		all = append(all, "what only system calls show (strace isn't here)")
	}
	if _, err := exec.LookPath("chromium"); err != nil {
		all = append(all, "Chromium (it isn't here)")
	}
	return strings.Join(all, "; ")
}

// tell writes to the standard error of the go command that runs this: it shows
// nothing of what a package writes that passes, if it was given several. Where it
// can't be reached, or is a file, whose end we don't know, it is our own.
func tell(line string) {
	out := os.Stderr
	path := fmt.Sprintf("/proc/%d/fd/2", os.Getppid())
	if info, err := os.Stat(path); err == nil && info.Mode()&(os.ModeCharDevice|os.ModeNamedPipe) != 0 {
		if f, err := os.OpenFile(path, os.O_WRONLY, 0); err == nil {
			defer f.Close()
			out = f
		}
	}
	fmt.Fprint(out, line)
}
