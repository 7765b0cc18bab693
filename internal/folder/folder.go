// Package folder makes files and folders: durable, readable by their owner only, and
// whole. Not every folder can have that. exFAT, NTFS, SMB and WSL's /mnt/c keep no
// modes or have no hard links; some can't be synced; in a container files may belong
// to somebody else. Where that is no reason to give up, it is a reason to warn:
//
//   - [WriteFile] writes a file whole or not at all; [Make] and [Create] make one;
//     [MakeFolder] makes folders.
//   - [Sync] brings names to the disk, as far as the file system can.
//   - [Look] finds out what a folder can't do; [CanClose] and [KeepsModes] whether a
//     mode counts.
package folder

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// Sync brings the names in a folder to the disk, where its file system can do
// that; it is no error where it can't.
func Sync(path string) error {
	err := sync(path)
	if cannot(err) {
		return nil
	}
	return err
}

func sync(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// cannot tells what a file system can't do from what it failed to do.
func cannot(err error) bool {
	for _, e := range []error{errors.ErrUnsupported, fs.ErrPermission, syscall.EINVAL, syscall.EBADF} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// Lacks says what a folder can't do.
type Lacks struct {
	Modes bool // whatever is made in it can be read by others
	Syncs bool // the name of a new file may be lost with the power
}

// Look tries what a folder can do, by a file that is gone afterwards.
func Look(path string) (l Lacks, err error) {
	f, err := os.CreateTemp(path, ".look-*") // mode 0600
	if err != nil {
		return l, err
	}
	info, err := f.Stat()
	if err = errors.Join(err, f.Close(), os.Remove(f.Name())); err != nil {
		return l, err
	}
	l.Modes = info.Mode().Perm()&0o077 != 0
	if err = sync(path); cannot(err) {
		l.Syncs, err = true, nil
	}
	return l, err
}

// CanClose says whether this process can keep a file that everyone can read from
// them: not where the file is another user's, is mounted read-only, or has no mode
// of its own. It takes the open file: by its path, another that has taken its name
// would get the mode of this one.
func CanClose(f *os.File, info fs.FileInfo) bool {
	if err := f.Chmod(info.Mode()); err != nil {
		return !cannot(err) && !errors.Is(err, syscall.EROFS)
	}
	return KeepsModes(f, info)
}

// KeepsModes says whether an open file's mode is what counts: not where it is mounted
// read-only, or where no file has a mode of its own.
func KeepsModes(f *os.File, info fs.FileInfo) bool {
	if errors.Is(f.Chmod(info.Mode()), syscall.EROFS) {
		return false
	}
	path := f.Name()
	if itself, err := filepath.EvalSymlinks(path); err == nil {
		path = itself
	}
	lacks, err := Look(filepath.Dir(path))
	return err != nil || !lacks.Modes
}

// Create makes sure that there is a file which only its owner can read, if its
// file system can have that. It follows no link: the folder's owner could lead root
// anywhere. Nobody in this process may have the file open with SQLite: closing it
// would drop SQLite's locks.
func Create(path string) error {
	err := Make(path, nil)
	if !errors.Is(err, fs.ErrExist) {
		return err
	}
	f, err := os.OpenFile(path, os.O_RDWR|noFollow, 0)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err == nil && info.Mode().Perm()&0o077 != 0 && own(info) {
		_ = f.Chmod(0o600) // not every file system has modes
	}
	return errors.Join(err, f.Close(), Sync(filepath.Dir(path)))
}

// Make makes a file with that text which only its owner can read, if its file
// system can have that. Nothing may have its name, not even a link. What root makes
// belongs to whom the folder belongs, who is to use it.
func Make(path string, text []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	return errors.Join(err, Adopt(f), f.Close(), Sync(filepath.Dir(path)))
}

// WriteFile puts text into a file, whole or not at all, power cuts included, in
// place of any that is there. Only its owner can read it, as with Make.
func WriteFile(path string, text []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".unfinished-*") // mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	_, err = f.Write(text)
	if err = errors.Join(err, Adopt(f), f.Sync(), f.Close()); err != nil {
		return err
	}
	if err = os.Rename(f.Name(), path); err != nil {
		return err
	}
	return Sync(filepath.Dir(path)) // the new name is durable only with its folder
}

// MakeFolder makes sure that there is a folder, and those above it, which only its
// owner can enter. What root makes belongs to whom the folder above belongs.
func MakeFolder(path string) error {
	path = filepath.Clean(path)
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		return nil
	}
	if above := filepath.Dir(path); above != path {
		if err := MakeFolder(above); err != nil {
			return err
		}
	}
	err := os.Mkdir(path, 0o700)
	if errors.Is(err, fs.ErrExist) {
		return os.MkdirAll(path, 0o700) // somebody was faster, or it is no folder
	}
	if err != nil {
		return err
	}
	f, err := os.OpenFile(path, onlyFolder|noFollow, 0)
	if err != nil {
		return err
	}
	return errors.Join(Adopt(f), f.Close())
}
