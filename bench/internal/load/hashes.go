package load

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
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

// hashCommand and signCommand are the hidden commands by which a program runs itself as
// the bare hash and the bare signature.
const (
	hashCommand = "hash-bare"
	signCommand = "sign-bare"
)

// HashRate is how many passwords all cores hash in a second, at default cost,
// when they do nothing else: more logins than that no server can answer. Each
// core has a process of its own, since a heap that holds anything makes each hash
// dearer: its 19 MiB have the collector go through all.
func HashRate(ctx context.Context, duration time.Duration) (perSecond float64, err error) {
	return bareRate(ctx, hashCommand, duration)
}

// SignRate is how many ID tokens all cores sign in a second, with RS256 and a key of 2048
// bits, when they do nothing else.
func SignRate(ctx context.Context, duration time.Duration) (perSecond float64, err error) {
	return bareRate(ctx, signCommand, duration)
}

func bareRate(ctx context.Context, command string, duration time.Duration) (perSecond float64, err error) {
	program, err := os.Executable()
	if err != nil {
		return 0, err
	}
	rates := make([]float64, runtime.GOMAXPROCS(0))
	err = InParallel(ctx, len(rates), func(i int) (err error) {
		out, err := exec.CommandContext(ctx, program, command, duration.String()).Output() //nolint:gosec // itself
		if err == nil {
			rates[i], err = strconv.ParseFloat(strings.TrimSpace(string(out)), 64)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", command, err)
		}
		return nil
	})
	for _, rate := range rates {
		perSecond += rate
	}
	return perSecond, err
}

// atRate works for that long on one core and prints how often a second; prepare gives the
// work.
func atRate(durationText string, prepare func() (work func() error, err error)) error {
	duration, err := time.ParseDuration(durationText)
	if err != nil {
		return err
	}
	runtime.GOMAXPROCS(1)
	work, err := prepare()
	if err != nil {
		return err
	}
	begin, n := time.Now(), 0
	for time.Since(begin) < duration {
		if err := work(); err != nil {
			return err
		}
		n++
	}
	_, err = fmt.Println(float64(n) / time.Since(begin).Seconds())
	return err
}

func hash() (func() error, error) {
	debug.SetGCPercent(-1)
	p := password.Default
	return func() error {
		argon2.IDKey([]byte(Password), make([]byte, 16), p.Time, p.MemoryKiB, p.Threads, 32)
		runtime.GC() // the next one gets the same memory
		return nil
	}, nil
}

func sign() (func() error, error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	sum := sha256.Sum256([]byte(Password))
	return func() error {
		_, err := rsa.SignPKCS1v15(nil, key, crypto.SHA256, sum[:])
		return err
	}, err
}
