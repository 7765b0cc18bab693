package database_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"kwai/internal/database"
	"kwai/internal/offline"
	"kwai/internal/store"
	"kwai/internal/testing/need"
	"kwai/internal/testing/storetest"
)

// disk is a small disk of its own.
func disk(t *testing.T, size string) (dir string) {
	t.Helper()
	need.Root(t, "to mount a small disk")
	dir = t.TempDir()
	err := syscall.Mount("kwai", dir, "tmpfs", 0, "size="+size)
	if errors.Is(err, syscall.EPERM) {
		need.Missing(t, fmt.Errorf("a small disk can't be mounted: %w", err)) // root in a container
	}
	check(t, err)
	t.Cleanup(func() {
		if err := whenFree(func() error { return syscall.Unmount(dir, 0) }); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	return dir
}

// whenFree mounts while nobody has a file of the disk open: a program that another
// test starts has all of this process's files for a moment.
func whenFree(mount func() error) error {
	for {
		if err := mount(); !errors.Is(err, syscall.EBUSY) {
			return err
		}
		time.Sleep(time.Millisecond)
	}
}

// fill writes a file that leaves room bytes of the disk.
func fill(t *testing.T, path string, room int64) {
	t.Helper()
	var fs syscall.Statfs_t
	check(t, syscall.Statfs(filepath.Dir(path), &fs))
	check(t, os.WriteFile(path, make([]byte, int64(fs.Bavail)*fs.Bsize-room), 0o600))
}

// addLarge adds a user who takes so many bytes.
func addLarge(key string, size int) func(*store.Tx) error {
	return func(tx *store.Tx) error {
		u := store.User{Profile: store.Profile{ID: key, Email: key, FirstName: strings.Repeat("x", size)}, EmailKey: key}
		return discard(tx.InsertUser(u, store.Password{}))
	}
}

func TestFullDiskInABatchLosesNoAnswer(t *testing.T) {
	t.Parallel()
	dir := disk(t, "4m")
	synctest.Test(t, func(t *testing.T) {
		url := "sqlite://" + filepath.Join(dir, "kwai.db")
		s := storetest.Open(t, url, nil)
		check(t, s.InTx(t.Context(), storetest.AddsUser("0")))
		fill(t, filepath.Join(dir, "ballast"), 300<<10)

		// There is room for the small ones, not for the large one among them.
		release := make(chan struct{})
		begin(t.Context(), s, waiting(release, nothing))
		small := []*result{begin(t.Context(), s, storetest.AddsUser("1")), begin(t.Context(), s, storetest.AddsUser("2"))}
		large := begin(t.Context(), s, addLarge("large", 1<<20))
		small = append(small, begin(t.Context(), s, storetest.AddsUser("3")))
		close(release)
		for _, c := range small {
			if <-c.done; c.err != nil {
				t.Errorf("a small one: %v", c.err)
			}
		}
		if <-large.done; !errors.Is(large.err, store.ErrUnavailable) {
			t.Errorf("the large one: %v", large.err)
		}

		// Until there is no room for anything.
		answered := []string{"0", "1", "2", "3"}
		var err error
		for i := 4; err == nil && i < 1000; i++ {
			key := fmt.Sprintf("4-%03d", i)
			if err = s.InTx(t.Context(), addLarge(key, 8<<10)); err == nil {
				answered = append(answered, key)
			}
		}
		if !errors.Is(err, store.ErrUnavailable) {
			t.Fatalf("on the full disk: %v", err)
		}
		storetest.WantUsers(t, s, answered...)

		check(t, os.Remove(filepath.Join(dir, "ballast")))
		check(t, s.InTx(t.Context(), addLarge("5", 1<<20)))
		storetest.WantReopened(t, s, url, append(answered, "5")...)
	})
}

func TestReadOnlyDiskIsUnavailable(t *testing.T) {
	t.Parallel()
	dir := disk(t, "4m")
	path := filepath.Join(dir, "kwai.db")
	url := "sqlite://" + path
	s, err := store.Open(t.Context(), database.Options{URL: url, Serve: true})
	check(t, err)
	check(t, s.InTx(t.Context(), storetest.AddsUser("a")))
	check(t, s.Close())
	remount := func(flags uintptr) {
		check(t, whenFree(func() error {
			return syscall.Mount("kwai", dir, "tmpfs", syscall.MS_REMOUNT|flags, "size=4m")
		}))
	}
	remount(syscall.MS_RDONLY)
	before := storetest.Content(t, path)
	wantRefused(t, database.Options{URL: url, Serve: true}, path, "read-only")
	wantRefused(t, database.Options{URL: url}, path)
	remount(0)
	if string(storetest.Content(t, path)) != string(before) {
		t.Error("it was changed")
	}
	storetest.WantUsers(t, storetest.Open(t, url, nil), "a")
}

// On a full disk nothing half stays behind, and the database is what it was.
func TestFullDiskFailsABackupAndARestore(t *testing.T) {
	t.Parallel()
	dir := disk(t, "4m")
	url := "sqlite://" + filepath.Join(dir, "kwai.db")
	s, err := store.Open(t.Context(), database.Options{URL: url, Serve: true})
	check(t, err)
	check(t, s.InTx(t.Context(), addLarge("large", 1<<20)))
	check(t, s.Close())
	file := filepath.Join(t.TempDir(), "backup.db")
	check(t, offline.Backup(t.Context(), url, file))
	fill(t, filepath.Join(dir, "ballast"), 300<<10)
	files := storetest.FilesIn(t, dir)
	err = offline.Backup(t.Context(), url, filepath.Join(dir, "backup.db"))
	b, restored := offline.OpenBackup(t.Context(), file)
	if restored == nil {
		_, restored = b.Restore(t.Context(), url, false)
		check(t, b.Close())
	}
	for _, err := range []error{err, restored} {
		if err == nil || errors.Is(err, offline.ErrRefused) || !strings.Contains(err.Error(), "full") {
			t.Errorf("on the full disk: %v", err)
		}
	}
	if left := storetest.FilesIn(t, dir); strings.Join(left, " ") != strings.Join(files, " ") {
		t.Errorf("there were %v, now there are %v", files, left)
	}
	check(t, os.Remove(filepath.Join(dir, "ballast")))
	storetest.WantUsers(t, storetest.Open(t, url, nil), "large")
}
