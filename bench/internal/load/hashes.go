package load

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"golang.org/x/crypto/argon2"

	"kwai/internal/password"
)

// hashCommand is the hidden command by which a program runs itself as the bare
// hash.
const hashCommand = "hash-bare"

// HashRate is how many passwords all cores hash in a second, at default cost,
// when they do nothing else: more logins than that no server can answer. Each
// core has a process of its own, since a heap that holds anything makes each hash
// dearer: its 19 MiB have the collector go through all.
func HashRate(ctx context.Context, duration time.Duration) (perSecond float64, err error) {
	program, err := os.Executable()
	if err != nil {
		return 0, err
	}
	rates := make([]float64, runtime.GOMAXPROCS(0))
	err = InParallel(ctx, len(rates), func(i int) (err error) {
		out, err := exec.CommandContext(ctx, program, hashCommand, duration.String()).Output() //nolint:gosec // itself
		if err == nil {
			rates[i], err = strconv.ParseFloat(strings.TrimSpace(string(out)), 64)
		}
		if err != nil {
			return fmt.Errorf("the bare hash: %w", err)
		}
		return nil
	})
	for _, rate := range rates {
		perSecond += rate
	}
	return perSecond, err
}

// hash hashes for that long on one core and prints how often a second.
func hash(durationText string) error {
	duration, err := time.ParseDuration(durationText)
	if err != nil {
		return err
	}
	runtime.GOMAXPROCS(1)
	debug.SetGCPercent(-1)
	p := password.Default
	begin, n := time.Now(), 0
	for time.Since(begin) < duration {
		argon2.IDKey([]byte(Password), make([]byte, 16), p.Time, p.MemoryKiB, p.Threads, 32)
		runtime.GC() // the next one gets the same memory
		n++
	}
	_, err = fmt.Println(float64(n) / time.Since(begin).Seconds())
	return err
}
