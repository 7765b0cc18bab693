package password

import (
	"math"
	"os"
	"path"
	"runtime/debug"
	"strconv"
	"strings"
)

// memoryShare is the part of the available memory that hashing may take, as a
// divisor. A quarter, because a hash's memory becomes garbage when it is done,
// and the collector lets as much garbage grow as there is in use.
const memoryShare = 4

// defaultWorkers is one per core, fewer if that many hashes at a time would take
// more than their share of memory (in bytes), and never none.
func defaultWorkers(cores int, memory uint64, p Params) int {
	fit := memory / memoryShare / (uint64(p.MemoryKiB) * 1024)
	return max(1, int(min(uint64(cores), fit)))
}

// availableMemory is the least of Go's own limit (GOMEMLIMIT), the control
// group's limit and what the machine has to give, in bytes. What can't be found
// out, as outside Linux, doesn't count.
func availableMemory() uint64 {
	least := uint64(math.MaxUint64)
	if limit := debug.SetMemoryLimit(-1); limit > 0 {
		least = uint64(limit)
	}
	// Each level of the hierarchy (version 2) may set a limit; "max" is none.
	b, _ := os.ReadFile("/proc/self/cgroup")
	_, group, _ := strings.Cut(string(b), "0::")
	for dir := path.Clean("/" + strings.TrimSpace(group)); ; dir = path.Dir(dir) {
		if b, err := os.ReadFile(path.Join("/sys/fs/cgroup", dir, "memory.max")); err == nil {
			if n, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64); err == nil {
				least = min(least, n)
			}
		}
		if dir == "/" {
			break
		}
	}
	if b, err := os.ReadFile("/proc/meminfo"); err == nil {
		_, rest, _ := strings.Cut(string(b), "MemAvailable:")
		if fields := strings.Fields(rest); len(fields) > 0 {
			if kib, err := strconv.ParseUint(fields[0], 10, 64); err == nil {
				least = min(least, kib*1024)
			}
		}
	}
	return least
}
