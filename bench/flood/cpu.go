package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// clientCores tells how many cores this program, the flood and the honest
// clients, takes from then until the result is called; 0 where that isn't known.
func clientCores() func() float64 {
	began, before := time.Now(), ownCPU()
	return func() float64 { return (ownCPU() - before).Seconds() / time.Since(began).Seconds() }
}

func ownCPU() time.Duration {
	text, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		return 0
	}
	d, _ := parseCPU(string(text)) // 0
	return d
}

// parseCPU adds the 14th and the 15th field of stat, time in user mode and in
// the kernel, in ticks: proc(5). The second field is the program's name in
// brackets, which may itself hold spaces and brackets.
func parseCPU(stat string) (time.Duration, error) {
	const tick = time.Second / 100 // USER_HZ, on all that Go runs on
	fields := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	if len(fields) < 15-2 {
		return 0, fmt.Errorf("stat has too few fields: %q", stat)
	}
	user, err := strconv.ParseInt(fields[14-3], 10, 64)
	if err != nil {
		return 0, err
	}
	system, err := strconv.ParseInt(fields[15-3], 10, 64)
	return time.Duration(user+system) * tick, err
}
