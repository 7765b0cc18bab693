package main

import (
	"bytes"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
)

// What everyone can read is refused to whoever can mend it, and warned about where
// nobody here can: /proc/self/status has mode 0444 as a mounted secret has, and nobody
// can change it.
func TestSecretsForEveryone(t *testing.T) {
	t.Parallel()
	own := filepath.Join(t.TempDir(), "own")
	if err := os.WriteFile(own, nil, 0o604); err != nil {
		t.Fatal(err)
	}
	for path, refused := range map[string]bool{own: true, "/proc/self/status": false} {
		f, info, err := openRegular(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if err := refuseExposed(f, info); (err != nil) != refused || refused && !strings.HasSuffix(err.Error(), "chmod 600 "+path) {
			t.Errorf("%s: %v", path, err)
		}
		var log bytes.Buffer
		warnOfExposed(slog.New(slog.NewTextHandler(&log, nil)), path, info)
		if strings.Count(log.String(), "level=WARN") != 1 || !strings.Contains(log.String(), path) {
			t.Errorf("%s: %s", path, &log)
		}
	}
	if err := explainDenied(&fs.PathError{Op: "open", Path: "key", Err: fs.ErrPermission}); !strings.Contains(err.Error(), "runs as user") || !strings.Contains(err.Error(), "chown") {
		t.Error(err)
	}
}

// What everyone can write is refused, whoever could mend it.
func TestSecretsThatEveryoneCanWrite(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "theirs")
	if err := errors.Join(os.WriteFile(path, nil, 0o600), os.Chmod(path, 0o606)); err != nil {
		t.Fatal(err)
	}
	f, info, err := openRegular(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	refused := make(chan error)
	go func() {
		runtime.LockOSThread() // for ever: the thread ends with what it may not do
		if os.Geteuid() == 0 {
			if err := syscall.Setfsuid(65532); err != nil {
				t.Error(err)
			}
		}
		refused <- refuseExposed(f, info)
	}()
	if err := <-refused; err == nil || os.Geteuid() == 0 && !strings.Contains(err.Error(), "can be written by everyone") {
		t.Errorf("it is refused by %v", err)
	}
}
