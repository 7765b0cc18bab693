package password

import (
	"iter"
	"math"
	"os"
	"path"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
)

// memoryShare is the part of the available memory that hashing may take, as a
// divisor. It is a quarter: without processes of their own, a finished hash's memory
// is garbage, and the collector lets as much garbage grow as there is memory in use.
const memoryShare = 4

// WorkersFor is how many workers a pool has by default.
func WorkersFor(p Params) int {
	return defaultWorkers(runtime.GOMAXPROCS(0), availableMemory(), p)
}

// defaultWorkers is one per core, fewer if that many hashes at a time would take
// more than their share of memory (in bytes), and never none.
func defaultWorkers(cores int, memory uint64, p Params) int {
	fit := memory / memoryShare / (uint64(p.MemoryKiB) * 1024)
	return max(1, int(min(uint64(cores), fit)))
}

// availableMemory is the least of Go's own limit (GOMEMLIMIT), the control
// group's limit and what the machine has available, in bytes. A limit that can't be
// read, as outside Linux, doesn't count.
func availableMemory() uint64 {
	least := uint64(math.MaxUint64)
	if limit := debug.SetMemoryLimit(-1); limit > 0 {
		least = uint64(limit)
	}
	for dir, version := range controlGroups("memory") {
		file := "memory.max" // "max" is none
		if version == 1 {
			file = "memory.limit_in_bytes"
		}
		if n, err := strconv.ParseUint(read(dir, file), 10, 64); err == nil {
			least = min(least, n)
		}
	}
	_, rest, _ := strings.Cut(read("/proc", "meminfo"), "MemAvailable:")
	if fields := strings.Fields(rest); len(fields) > 0 {
		if kib, err := strconv.ParseUint(fields[0], 10, 64); err == nil {
			least = min(least, kib*1024)
		}
	}
	return least
}

// cpuQuota is the processor time that the control group may use, in cores;
// infinite if there is no such limit.
func cpuQuota() float64 {
	least := math.Inf(1)
	for dir, version := range controlGroups("cpu") {
		quota, period, _ := strings.Cut(read(dir, "cpu.max"), " ") // "max 100000" is none
		if version == 1 {
			quota, period = read(dir, "cpu.cfs_quota_us"), read(dir, "cpu.cfs_period_us") // -1 is none
		}
		q, err1 := strconv.ParseFloat(quota, 64)
		p, err2 := strconv.ParseFloat(period, 64)
		if err1 == nil && err2 == nil && q > 0 && p > 0 {
			least = min(least, q/p)
		}
	}
	return least
}

// hashingShare is how much of its time each worker may hash. Under a quota,
// which priorities know nothing of, hashing takes half: using up the quota would stop
// everything.
func hashingShare(quota float64, cores, workers int) float64 {
	if quota >= float64(cores) {
		return 1
	}
	return min(1, quota/2/float64(workers))
}

// controlGroups lists the folders of the control groups that this process is in,
// innermost first, which may each set a limit, and the version of their files.
func controlGroups(controller string) iter.Seq2[string, int] {
	return func(yield func(string, int) bool) {
		for line := range strings.Lines(read("/proc/self", "cgroup")) {
			// Version 2: 0::/path. Version 1: 4:cpu,cpuacct:/path.
			fields := strings.SplitN(strings.TrimSpace(line), ":", 3)
			if len(fields) < 3 {
				continue
			}
			root, version := "/sys/fs/cgroup", 2
			if fields[1] != "" {
				root, version = path.Join(root, controller), 1
			}
			if version == 1 && !strings.Contains(","+fields[1]+",", ","+controller+",") {
				continue
			}
			for dir := path.Clean("/" + fields[2]); ; dir = path.Dir(dir) {
				if !yield(path.Join(root, dir), version) {
					return
				}
				if dir == "/" {
					break
				}
			}
		}
	}
}

// read is the text of one of the system's files, "" if it isn't there.
func read(dir, name string) string {
	b, _ := os.ReadFile(path.Join(dir, name))
	return strings.TrimSpace(string(b))
}
