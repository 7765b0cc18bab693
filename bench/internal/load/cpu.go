package load

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// CPU is the processor time that this program has taken so far, and that all it
// has started has, what has ended since included. It comes from procfs; the error
// where there is none is fs.ErrNotExist.
func CPU() (own, started time.Duration, err error) {
	self := os.Getpid()
	all, err := tree(self)
	if err != nil {
		return 0, 0, err
	}
	for _, pid := range all {
		text, err := os.ReadFile(proc(pid, "stat"))
		if gone(err) {
			continue // since tree saw it
		}
		if err != nil {
			return 0, 0, err
		}
		used, ended, err := parseCPU(string(text))
		if err != nil {
			return 0, 0, err
		}
		if pid == self {
			own = used
		} else {
			started += used
		}
		started += ended
	}
	return own, started, nil
}

// parseCPU adds the 14th and the 15th field of stat, time in user mode and in
// the kernel, in ticks, and the next two, the same of children that have ended
// and were waited for: proc(5).
func parseCPU(stat string) (used, ended time.Duration, err error) {
	const tick = time.Second / 100 // USER_HZ, on all that Go runs on
	fields := afterName(stat)
	if len(fields) < 17-2 {
		return 0, 0, fmt.Errorf("stat has too few fields: %q", stat)
	}
	var times [4]time.Duration
	for i := range times {
		n, err := strconv.ParseInt(fields[14-3+i], 10, 64)
		if err != nil {
			return 0, 0, err
		}
		times[i] = time.Duration(n) * tick
	}
	return times[0] + times[1], times[2] + times[3], nil
}

// afterName are the fields of stat from the third on. The second is the program's
// name in brackets, which may itself hold spaces and brackets.
func afterName(stat string) []string {
	return strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
}
