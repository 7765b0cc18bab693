package folder

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"kwai/internal/testing/need"
)

// /proc stands for file systems that sync no folder and change no mode.

func TestSyncGoesOnWhereNothingCanBeSynced(t *testing.T) {
	t.Parallel()
	if err := sync("/proc"); !errors.Is(err, syscall.EINVAL) {
		t.Fatalf("syncing /proc: %v: it shows nothing", err)
	}
	if err := Sync("/proc"); err != nil {
		t.Error(err)
	}
	if err := Sync(filepath.Join(t.TempDir(), "missing")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("of a missing folder: %v", err)
	}
	for _, failed := range []error{syscall.EIO, syscall.ENOSPC, syscall.EDQUOT, syscall.EROFS} {
		if cannot(failed) {
			t.Errorf("%v passes", failed)
		}
	}
}

func TestLookLeavesNothing(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if lacks, err := Look(dir); err != nil || lacks != (Lacks{}) {
		t.Errorf("%+v, %v", lacks, err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("it left %v, %v", left, err)
	}
	if _, err := Look("/proc"); err == nil {
		t.Error("a file was made in /proc")
	}
}

func TestCanClose(t *testing.T) {
	t.Parallel()
	own := filepath.Join(t.TempDir(), "own")
	if err := os.WriteFile(own, nil, 0o604); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]bool{own: true, "/proc/self/status": false} {
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		before, err := f.Stat()
		if err != nil {
			t.Fatal(err)
		}
		if can := CanClose(f, before); can != want {
			t.Errorf("%s: %v", path, can)
		}
		if after, err := os.Stat(path); err != nil || after.Mode() != before.Mode() {
			t.Errorf("%s: its mode was %v, now it is %v, %v", path, before.Mode(), after.Mode(), err)
		}
	}
}

// A link that takes the name of a file which is being judged leads to nothing that
// would get its mode.
func TestCanCloseChangesOnlyWhatItJudges(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	key, elsewhere := filepath.Join(dir, "key"), filepath.Join(t.TempDir(), "elsewhere")
	if err := errors.Join(os.WriteFile(key, nil, 0o600), os.Chmod(key, 0o777), os.WriteFile(elsewhere, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(key)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err = errors.Join(err, os.Remove(key), os.Symlink(elsewhere, key)); err != nil {
		t.Fatal(err)
	}
	if !CanClose(f, info) {
		t.Error("it can't")
	}
	if info, err := os.Stat(elsewhere); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the link's target has %v, %v", info.Mode(), err)
	}
}

func TestCreateKeepsAndCloses(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "file")
	wantMode := func() {
		t.Helper()
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Fatalf("%v, %v", info.Mode(), err)
		}
	}
	if err := Create(path); err != nil {
		t.Fatal(err)
	}
	wantMode()
	if err := errors.Join(os.WriteFile(path, []byte("kept"), 0o600), os.Chmod(path, 0o644), Create(path)); err != nil {
		t.Fatal(err)
	}
	wantMode()
	if text, err := os.ReadFile(path); err != nil || string(text) != "kept" {
		t.Errorf("%q, %v", text, err)
	}
}

// What root makes belongs to whom the folder belongs. Nothing that was there is
// given away.
func TestCreateByRootIsTheFoldersOwners(t *testing.T) {
	t.Parallel()
	need.Root(t, "to give files away")
	dir := t.TempDir()
	there := filepath.Join(dir, "there")
	err := errors.Join(os.WriteFile(there, nil, 0o600), os.Chown(dir, 65532, 65531))
	for _, name := range []string{"made", "there"} {
		err = errors.Join(err, Create(filepath.Join(dir, name)))
	}
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string][2]uint32{filepath.Join(dir, "made"): {65532, 65531}, there: {0, 0}} {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if owner := info.Sys().(*syscall.Stat_t); owner.Uid != want[0] || owner.Gid != want[1] {
			t.Errorf("%s is of %d:%d", path, owner.Uid, owner.Gid)
		}
	}
}

// No link is followed, which the folder's owner may have put there: nothing is
// changed or made where it leads.
func TestNothingIsMadeThroughALink(t *testing.T) {
	t.Parallel()
	elsewhere := t.TempDir()
	there, missing := filepath.Join(elsewhere, "there"), filepath.Join(elsewhere, "missing")
	if err := errors.Join(os.WriteFile(there, []byte("kept"), 0o600), os.Chmod(there, 0o644)); err != nil {
		t.Fatal(err)
	}
	for name, create := range map[string]func(string) error{
		"Create": Create, "Make": func(path string) error { return Make(path, []byte("text")) },
	} {
		for _, target := range []string{there, missing} {
			link := filepath.Join(t.TempDir(), "link")
			if err := os.Symlink(target, link); err != nil {
				t.Fatal(err)
			}
			if err := create(link); err == nil {
				t.Errorf("%s follows a link to %s", name, target)
			}
		}
	}
	if info, err := os.Stat(there); err != nil || info.Mode().Perm() != 0o644 || info.Size() != 4 {
		t.Errorf("what a link led to has %v, %d bytes, %v", info.Mode(), info.Size(), err)
	}
	if _, err := os.Lstat(missing); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what a link led to was made (%v)", err)
	}
}

// A file of another user's is left to that user, also where root could close it.
func TestCreateClosesOnlyItsOwn(t *testing.T) {
	t.Parallel()
	need.Root(t, "to give files away")
	path := filepath.Join(t.TempDir(), "theirs")
	if err := errors.Join(os.WriteFile(path, nil, 0o600), os.Chmod(path, 0o644), os.Chown(path, 65532, 65531), Create(path)); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o644 {
		t.Errorf("it has %v, %v", info.Mode(), err)
	}
}

func TestMakeFolderByRoot(t *testing.T) {
	t.Parallel()
	need.Root(t, "to give folders away")
	dir := t.TempDir()
	path := filepath.Join(dir, "data", "mail")
	if err := errors.Join(os.Chown(dir, 65532, 65531), MakeFolder(path), MakeFolder(path)); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{filepath.Dir(path), path} {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if owner := info.Sys().(*syscall.Stat_t); owner.Uid != 65532 || owner.Gid != 65531 || info.Mode().Perm() != 0o700 {
			t.Errorf("%s is of %d:%d, %v", path, owner.Uid, owner.Gid, info.Mode())
		}
	}
}

// A reader sees the old text or the new one, and nothing else is left.
func TestWriteFileReplaces(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "file")
	for _, text := range []string{"old", "new"} {
		if err := WriteFile(path, []byte(text)); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(path); err != nil || string(got) != text {
			t.Errorf("%q, %v, want %q", got, err, text)
		}
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
		t.Errorf("its mode is %v, %v", info.Mode(), err)
	}
	taken := filepath.Join(dir, "taken")
	if err := os.Mkdir(taken, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := WriteFile(taken, nil); err == nil {
		t.Error("it has replaced a folder")
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 2 {
		t.Errorf("it left %v, %v", left, err)
	}
}

func TestWriteFileByRootIsTheFoldersOwners(t *testing.T) {
	t.Parallel()
	need.Root(t, "to give files away")
	dir := t.TempDir()
	path := filepath.Join(dir, "file")
	if err := errors.Join(os.Chown(dir, 65532, 65531), WriteFile(path, nil)); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if owner := info.Sys().(*syscall.Stat_t); owner.Uid != 65532 || owner.Gid != 65531 {
		t.Errorf("it is of %d:%d", owner.Uid, owner.Gid)
	}
}
