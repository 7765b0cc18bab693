//go:build unix

package folder

import (
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// Adopt gives a file that root has just made to the owner of its folder.
func Adopt(f *os.File) error {
	if os.Geteuid() != 0 {
		return nil
	}
	info, err := os.Stat(filepath.Dir(f.Name()))
	if err != nil {
		return err
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !ok || owner.Uid == 0 {
		return nil
	}
	if err := f.Chown(int(owner.Uid), int(owner.Gid)); !cannot(err) {
		return err
	}
	return nil
}

// own reports whether a file belongs to this process's user.
func own(info fs.FileInfo) bool {
	owner, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(owner.Uid) == os.Geteuid()
}
