// Package memory keeps the temporary files of tests in memory, if the machine has room
// for them. A database is then copied in a tenth of the time, and a commit waits for no
// disk. It is for TestMain:
//
//	defer memory.TempDir()()
package memory

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

const (
	shm    = "/dev/shm"
	prefix = "kwai-tests-"
	enough = 2 << 30 // bytes; containers have 64 MB often, and small machines need their memory
)

// TempDir points TMPDIR, of this process and those it starts, to a new folder in
// memory, and returns a function that removes it. If there is too little room, or TMPDIR
// is in memory already, it changes nothing. The folder of a killed process is removed
// when the next process starts.
func TempDir() (remove func()) {
	nothing := func() {}
	var free, now unix.Statfs_t
	if unix.Statfs(os.TempDir(), &now) == nil && now.Type == unix.TMPFS_MAGIC {
		return nothing
	}
	if unix.Statfs(shm, &free) != nil || free.Type != unix.TMPFS_MAGIC || free.Bavail*uint64(free.Bsize) < enough {
		return nothing
	}
	sweep(shm)
	dir, unlock, err := folder(shm)
	if err != nil {
		return nothing
	}
	before, set := os.LookupEnv("TMPDIR")
	_ = os.Setenv("TMPDIR", dir) // it fails on names and values that can't be
	return func() {
		if set {
			_ = os.Setenv("TMPDIR", before)
		} else {
			_ = os.Unsetenv("TMPDIR")
		}
		if err := os.RemoveAll(dir); err != nil {
			fmt.Fprintln(os.Stderr, "the tests' folder in memory stays:", err)
		}
		unlock()
	}
}

// folder makes a folder that is locked for as long as this process lives. It gets its
// name when it is locked, so that no sweep removes it before.
func folder(parent string) (dir string, unlock func(), err error) {
	made, err := os.MkdirTemp(parent, "."+prefix)
	if err != nil {
		return "", nil, err
	}
	unlock, err = lock(made)
	if err == nil {
		err = os.Chmod(made, 0o711) //nolint:gosec // as root, PostgreSQL runs as another user below it
	}
	dir = filepath.Join(parent, filepath.Base(made)[1:])
	if err == nil {
		err = os.Rename(made, dir)
	}
	if err != nil {
		_ = os.Remove(made)
	}
	return dir, unlock, err
}

// sweep removes the folders whose processes have ended, if it may.
func sweep(parent string) {
	dirs, _ := filepath.Glob(filepath.Join(parent, prefix+"*")) // errs on a bad pattern only
	for _, dir := range dirs {
		if unlock, err := lock(dir); err == nil {
			_ = os.RemoveAll(dir)
			unlock()
		}
	}
}

// lock takes the lock of a folder, which the system drops when the process ends.
func lock(dir string) (unlock func(), err error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.Close()
		return nil, err
	}
	return func() { _ = f.Close() }, nil
}
