//go:build unix

package folder

import (
	"os"
	"syscall"
)

// OpenRead opens a file for reading. It doesn't wait if the file is a pipe.
func OpenRead(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
}

// noFollow refuses to open a link.
const noFollow = syscall.O_NOFOLLOW

// onlyFolder refuses to open anything but a folder.
const onlyFolder = syscall.O_DIRECTORY
