//go:build !linux

// Package memory keeps the temporary files of tests in memory: on Linux only.
package memory

// TempDir changes nothing here.
func TempDir() (remove func()) { return func() {} }
