package main

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"strings"

	"kwai/internal/folder"
)

// forEveryone are the modes that a secret's file must not have.
const forEveryone = 0o007

// openSecret opens the file of a secret and looks what it is. What is judged then
// is what is read, whatever takes its name meanwhile.
func openSecret(path string) (*os.File, fs.FileInfo, error) {
	f, err := folder.OpenRead(path)
	if err != nil {
		return nil, nil, explainDenied(err)
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a file", path)
	}
	if err != nil {
		return nil, nil, errors.Join(err, f.Close())
	}
	return f, info, nil
}

// refuseOpen refuses a secret that everyone on this machine can read, where this
// process could keep it from them, and so can whoever started it. What is mounted
// read-only, as orchestrators do, is somebody else's, or stands where files have no
// modes, is for warnOfOpen: there nobody could obey. What everyone can write is refused
// to whomever it belongs, unless its mode says nothing.
func refuseOpen(f *os.File, info fs.FileInfo) error {
	if info.Mode().Perm()&forEveryone != 0 && folder.CanClose(f, info) {
		return fmt.Errorf("%s can be read by everyone: chmod 600 %s", f.Name(), f.Name())
	}
	if info.Mode().Perm()&0o002 != 0 && folder.KeepsModes(f, info) {
		return fmt.Errorf("%s can be written by everyone: its owner must chmod o= %s", f.Name(), f.Name())
	}
	return nil
}

func warnOfOpen(log *slog.Logger, path string, info fs.FileInfo) {
	if info.Mode().Perm()&forEveryone != 0 {
		log.Warn("everyone on the machine that has this secret's file can read it, and its mode can't be changed from here", "file", path, "mode", fmt.Sprintf("%04o", info.Mode().Perm()))
	}
}

// explainDenied says who may not read a file, in a container that is a number, and
// what lets him.
func explainDenied(err error) error {
	if !errors.Is(err, fs.ErrPermission) {
		return err
	}
	return fmt.Errorf("%w: kwai runs as user %d, group %d, which may not read it (chown it; Kubernetes: fsGroup; Swarm: the secret's uid)", err, os.Geteuid(), os.Getegid())
}

// fromFile reads a secret from the file that it names as @FILE.
func fromFile(flag string, value *string) error {
	path, ok := strings.CutPrefix(*value, "@")
	if !ok {
		return nil
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return &usageError{flag, explainDenied(err)}
	}
	if *value = strings.TrimSpace(string(text)); *value == "" {
		return &usageError{flag, fmt.Errorf("%s is empty", path)}
	}
	return nil
}
