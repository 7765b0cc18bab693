//go:build !unix

package folder

import "os"

// OpenRead opens a file for reading.
func OpenRead(path string) (*os.File, error) { return os.Open(path) }

const noFollow, onlyFolder = 0, 0
