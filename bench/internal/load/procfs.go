package load

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Usage is what a process and its descendants use.
type Usage struct {
	// Memory, in bytes, is the sum of their Pss: what two of them share counts
	// once.
	Memory      int64 `json:"memory_bytes"`
	Descriptors int   `json:"descriptors"`
	Processes   int   `json:"processes"`
}

// Measure reads the usage of the process with that number from procfs. Its error
// where there is no procfs, or no such process, is fs.ErrNotExist.
func Measure(pid int) (Usage, error) {
	u, _, err := measure(pid)
	return u, err
}

// Peak is the most that was seen of each at any time.
type Peak struct {
	Usage
	// Started is how many descendants were started meanwhile, as far as they
	// lived long enough to be seen.
	Started int `json:"processes_started"`
}

// Watch measures the process with that number again and again, so often, until
// stop is called, which gives the peak.
func Watch(ctx context.Context, pid int, every time.Duration) (stop func() (Peak, error)) {
	ctx, cancel := context.WithCancel(ctx)
	var peak Peak
	var failed error
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(every)
		defer tick.Stop()
		var seen map[process]bool
		for {
			now, processes, err := measure(pid)
			if err != nil {
				failed = err
				return
			}
			peak.Memory = max(peak.Memory, now.Memory)
			peak.Descriptors = max(peak.Descriptors, now.Descriptors)
			peak.Processes = max(peak.Processes, now.Processes)
			first := seen == nil
			if first {
				seen = make(map[process]bool)
			}
			for _, p := range processes {
				if !first && !seen[p] {
					peak.Started++
				}
				seen[p] = true
			}
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
		}
	})
	return func() (Peak, error) {
		cancel()
		wg.Wait()
		return peak, failed
	}
}

// process is one of the processes that ever had its number.
type process struct {
	pid     int
	started uint64 // since boot, in clock ticks
}

func measure(pid int) (u Usage, processes []process, err error) {
	all, err := tree(pid)
	if err != nil {
		return u, nil, err
	}
	for _, p := range all {
		memory, err1 := pss(p)
		descriptors, err2 := os.ReadDir(proc(p, "fd"))
		started, err3 := startTime(p)
		if err := errors.Join(err1, err2, err3); err != nil {
			if p != pid && gone(err) {
				continue // since tree saw it
			}
			return u, nil, err
		}
		u.Memory += memory
		u.Descriptors += len(descriptors)
		u.Processes++
		processes = append(processes, process{p, started})
	}
	return u, processes, nil
}

// proc is the path of a file of a process: proc(5).
func proc(pid int, name string) string {
	return filepath.Join("/proc", strconv.Itoa(pid), name)
}

// tree lists a process and its descendants.
func tree(pid int) ([]int, error) {
	all := []int{pid}
	threads, err := os.ReadDir(proc(pid, "task"))
	if err != nil {
		return nil, err
	}
	for _, thread := range threads {
		text, err := os.ReadFile(filepath.Join(proc(pid, "task"), thread.Name(), "children"))
		if gone(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		for _, field := range strings.Fields(string(text)) {
			child, err := strconv.Atoi(field)
			if err != nil {
				return nil, err
			}
			more, err := tree(child)
			if err != nil && !gone(err) {
				return nil, err
			}
			all = append(all, more...)
		}
	}
	return all, nil
}

// gone says that a process has ended, before its file was opened or after it.
func gone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH)
}

func pss(pid int) (int64, error) {
	text, err := os.ReadFile(proc(pid, "smaps_rollup"))
	if err != nil {
		return 0, err
	}
	return parsePss(text)
}

// parsePss reads the line "Pss:   1234 kB" of smaps_rollup; in bytes.
func parsePss(text []byte) (int64, error) {
	for line := range bytes.Lines(text) {
		fields := strings.Fields(string(line))
		if len(fields) == 3 && fields[0] == "Pss:" && fields[2] == "kB" {
			kB, err := strconv.ParseInt(fields[1], 10, 64)
			return kB << 10, err
		}
	}
	return 0, errors.New("smaps_rollup has no Pss")
}

func startTime(pid int) (uint64, error) {
	text, err := os.ReadFile(proc(pid, "stat"))
	if err != nil {
		return 0, err
	}
	return parseStartTime(string(text))
}

// parseStartTime reads the 22nd field of stat.
func parseStartTime(stat string) (uint64, error) {
	fields := afterName(stat)
	if len(fields) < 20 {
		return 0, fmt.Errorf("stat has too few fields: %q", stat)
	}
	return strconv.ParseUint(fields[22-3], 10, 64)
}
