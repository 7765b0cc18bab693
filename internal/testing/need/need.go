// Package need declares what a test needs beyond Go: time, root's rights, a program.
// If that is missing, the test is skipped or fails.
//
//	func TestCrash(t *testing.T) {
//		need.Time(t)                       // not in the everyday run
//		need.Root(t, "to mount a small disk")
//		browser := need.Program(t, "chromium")
//
// There is one switch for all tests, the environment variable KWAI_TEST.
//
//   - Unset, "go test ./..." is the everyday run: one to two minutes on two cores, with
//     the most important tests of each package. A test is skipped if something is
//     missing.
//   - With KWAI_TEST=all every test runs, some of them longer. A test fails if something
//     is missing, but for root: without root it is always skipped, and .ci/run lists
//     these tests.
//
// No test has an upper bound on real time. It waits until what it waits for is there;
// go test's own -timeout ends what hangs, with all stacks.
package need

import (
	"flag"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"testing"
)

// All reports whether every test was asked for (KWAI_TEST=all).
func All() bool { return os.Getenv("KWAI_TEST") == "all" }

// Time skips a test that takes long, unless every test was asked for.
func Time(tb testing.TB) {
	tb.Helper()
	if !All() {
		tb.Skip("takes long: KWAI_TEST=all runs it")
	}
}

// Rounds is how often a test repeats what depends on chance: usual times in the
// everyday run, all times if every test was asked for.
func Rounds(usual, all int) int {
	if All() {
		return all
	}
	return usual
}

// Root skips a test that only root can run.
func Root(tb testing.TB, why string) {
	tb.Helper()
	if os.Geteuid() != 0 {
		tb.Skip("needs root: " + why)
	}
}

// Program returns the path of a program, or refuses the test as [Missing] does.
func Program(tb testing.TB, name string) (path string) {
	tb.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		Missing(tb, err)
	}
	return path
}

// Missing ends a test for which something is missing here: the test is skipped, or
// fails if every test was asked for.
func Missing(tb testing.TB, why error) {
	tb.Helper()
	if All() {
		tb.Fatalf("%v; KWAI_TEST=all runs no test without it", why)
	}
	tb.Skip(why)
}

// ShareCores lets a package's parallel tests run many at once. It is for
// packages whose tests wait more than they compute, and for TestMain: the flag
// -parallel of the command line still counts more.
func ShareCores() {
	if err := flag.Set("test.parallel", strconv.Itoa(8*runtime.GOMAXPROCS(0))); err != nil {
		panic(err) // the package testing has no such flag
	}
}
