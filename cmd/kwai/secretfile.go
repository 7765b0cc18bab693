package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"strings"

	"kwai/internal/folder"
)

// forEveryone are the modes that a secret's file must not have.
const forEveryone = 0o007

// openRegular opens a file, and nothing that is none. Its mode is that of the open
// file: another file may take its name meanwhile.
func openRegular(path string) (*os.File, fs.FileInfo, error) {
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

func readRegular(path string) ([]byte, error) {
	f, _, err := openRegular(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(f)
}

// readSecretFile reads the file of a secret, unless it is exposed.
func readSecretFile(path string, log *slog.Logger) ([]byte, error) {
	f, info, err := openRegular(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if err := refuseExposed(f, info); err != nil {
		return nil, err
	}
	warnOfExposed(log, path, info)
	return io.ReadAll(f)
}

// refuseExposed refuses a secret that everyone on this machine can read, if its mode
// can be changed from here. It can't where the file is mounted read-only, as
// orchestrators do, where it is another user's, or where files have no modes:
// warnOfExposed warns there. A file that everyone can write is refused, whatever user owns
// it, unless files have no modes.
func refuseExposed(f *os.File, info fs.FileInfo) error {
	if info.Mode().Perm()&forEveryone != 0 && folder.CanClose(f, info) {
		return fmt.Errorf("%s can be read by everyone: chmod 600 %s", f.Name(), f.Name())
	}
	if info.Mode().Perm()&0o002 != 0 && folder.KeepsModes(f, info) {
		return fmt.Errorf("%s can be written by everyone: its owner must chmod o= %s", f.Name(), f.Name())
	}
	return nil
}

func warnOfExposed(log *slog.Logger, path string, info fs.FileInfo) {
	if info.Mode().Perm()&forEveryone != 0 {
		log.Warn("everyone on the machine that has this secret's file can read it, and its mode can't be changed from here", "file", path, "mode", fmt.Sprintf("%04o", info.Mode().Perm()))
	}
}

// explainDenied adds which user may not read a file, which in a container is a
// number, and how to permit it.
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

// warnOfFolder warns of what a folder can't do, once.
func warnOfFolder(log *slog.Logger, path string) {
	lacks, err := folder.Look(path)
	if err != nil {
		return // the next write to it has the same error
	}
	if lacks.Modes {
		log.Warn("others on this machine can read the files in this folder, which keeps no modes", "folder", path)
	}
	if lacks.Syncs {
		log.Warn("this folder can't be synced: a file that was just made may be lost with the power", "folder", path)
	}
}
