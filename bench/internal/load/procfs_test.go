package load_test

import (
	"testing"
	"time"

	"kwai/bench/internal/load"
)

func TestPssIsReadInBytes(t *testing.T) {
	t.Parallel()
	const rollup = "5560-7fff ---p 00000000 00:00 0      [rollup]\nRss:     1740 kB\nPss:      558 kB\nPss_Dirty:   112 kB\n"
	if n, err := load.ParsePss([]byte(rollup)); err != nil || n != 558*1024 {
		t.Errorf("got %d, %v", n, err)
	}
	if n, err := load.ParsePss([]byte("Rss: 1740 kB\n")); err == nil {
		t.Errorf("got %d of a text without it", n)
	}
}

func TestStartTimeIsFoundBehindAnyName(t *testing.T) {
	t.Parallel()
	const rest = " R 9026 9026 5428 0 -1 4194304 100 0 0 0 0 0 0 0 20 0 1 0 1164867 3133440 350\n"
	for _, name := range []string{"cat", "a b", ") 1 (", "((x))"} {
		if n, err := load.ParseStartTime("9031 (" + name + ")" + rest); err != nil || n != 1164867 {
			t.Errorf("of a program named %q: %d, %v", name, n, err)
		}
	}
	if n, err := load.ParseStartTime("9031 (cat) R 1 2 3"); err == nil {
		t.Errorf("got %d of a line cut off", n)
	}
}

func TestCPUIsThatOfAProcessAndOfItsEndedChildren(t *testing.T) {
	t.Parallel()
	used, ended, err := load.ParseCPU("7 (a) b (c) R 1 7 7 0 -1 4194304 100 0 0 0 150 50 9 3 20 0 8 0 1 2 3")
	if err != nil || used != 2*time.Second || ended != 120*time.Millisecond {
		t.Errorf("got %v and %v, %v", used, ended, err)
	}
	for _, bad := range []string{"7 (a) R 1", "7 (a) R 1 7 7 0 -1 4194304 100 0 0 0 150 50 9", "7 (a) R 1 7 7 0 -1 4194304 100 0 0 0 150 x 9 3"} {
		if used, ended, err := load.ParseCPU(bad); err == nil {
			t.Errorf("got %v and %v of %q", used, ended, bad)
		}
	}
}
