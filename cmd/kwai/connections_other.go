//go:build !unix

package main

import "math"

// maxFiles is no limit where there is none that can be asked for.
func maxFiles() int { return math.MaxInt32 }
