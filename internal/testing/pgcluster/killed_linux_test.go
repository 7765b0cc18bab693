package pgcluster_test

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	osexec "os/exec"
	"testing"

	"golang.org/x/sys/unix"

	"kwai/internal/testing/pgcluster"
)

func init() {
	if os.Getenv("PGCLUSTER_VICTIM") != "" {
		os.Exit(victim())
	}
}

// victim is the test process that TestKilledProcessLeavesNoServer kills. It
// prints what it started, and waits.
func victim() int {
	c, err := pgcluster.Start(pgcluster.Options{})
	if err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println(c.Process().Pid, c.URL("postgres"))
	select {}
}

func TestKilledProcessLeavesNoServer(t *testing.T) {
	t.Parallel()
	requirePostgres(t)
	dir, err := os.MkdirTemp("", "kwai-pg-victim-") // t.TempDir is closed to the server's user
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	cmd := osexec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), "PGCLUSTER_VICTIM=1", "TMPDIR="+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	var pid int
	var url string
	if _, err := fmt.Sscan(line, &pid, &url); err != nil {
		t.Fatalf("%v: %s", err, line)
	}
	// A descriptor of the process, for its number may be used again.
	server, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(server)
	conn := connect(t, url)

	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()                                      // "signal: killed"
	for err = unix.EINTR; errors.Is(err, unix.EINTR); { // until the server has ended
		_, err = unix.Poll([]unix.PollFd{{Fd: int32(server), Events: unix.POLLIN}}, -1)
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.Ping(t.Context()); err == nil {
		t.Error("a process of the server still answers")
	}
}
