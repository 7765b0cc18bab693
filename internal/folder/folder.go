// Package folder deals with folders that can't do everything.
//
//   - exFAT, NTFS, SMB and WSL's /mnt/c keep no modes or have no hard links.
//   - Some folders can't be synced.
//   - In a container, files may belong to another user.
//
// If kwai can go on without that, it does so with a warning: [Look] says what a folder
// lacks, [CanClose] whether a secret's mode can be changed.
//
// [WriteFile] writes a file whole or not at all, power cuts included.
// [Make], [Create] and [MakeFolder] make files and folders that only their owner can
// read. What root makes belongs to the owner of the folder ([Adopt]), so that kwai's
// user can use it. They follow no link, since the folder's owner could lead root
// anywhere. [Sync] brings names to the disk.
//
// See docs/architecture.md#package-folder.
package folder

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// Sync brings the names in a folder to the disk. If its file system can't do that, it
// is no error.
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

// cannot reports whether err says that the file system can't do something, not that it
// failed.
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
	Modes bool // others can read new files in it
	Syncs bool // the name of a new file may be lost in a power cut
}

// Look tries what a folder can do, with a file that it removes again.
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

// CanClose reports whether this process could change the mode of a file that everyone
// can read. It can't if the file is another user's, is mounted read-only, or has no mode
// of its own. It takes the open file: by its path, another file that has taken its name
// would get the mode.
func CanClose(f *os.File, info fs.FileInfo) bool {
	if err := f.Chmod(info.Mode()); err != nil {
		return !cannot(err) && !errors.Is(err, syscall.EROFS)
	}
	return KeepsModes(f, info)
}

// KeepsModes reports whether an open file's mode means anything: not if it is mounted
// read-only, or if no file there has a mode of its own.
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

// Create makes sure that there is a file which only its owner can read, if the file
// system can do that. It follows no link: the folder's owner could lead root anywhere.
// SQLite must not have the file open in this process: closing it would drop SQLite's
// locks.
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

// Make makes a file with that text which only its owner can read, if the file system
// can do that. Nothing may have its name yet, not even a link. What root makes belongs
// to the folder's owner, who will use it.
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

// MakeFolder makes sure that there is a folder which only its owner can enter, and the
// folders above it. What root makes belongs to the owner of the folder above.
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
