package memory

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestTempDir(t *testing.T) {
	t.Setenv("TMPDIR", "/") // on a disk, surely
	remove := TempDir()
	dir := os.TempDir()
	if dir == "/" {
		t.Log("there is too little room in " + shm)
		return
	}
	if !strings.HasPrefix(dir, filepath.Join(shm, prefix)) {
		t.Errorf("temporary files are made in %s", dir)
	}
	TempDir()()
	if got := os.TempDir(); got != dir {
		t.Errorf("a second call made them be made in %s", got)
	}
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o600); err != nil {
		t.Error(err)
	}
	remove()
	if got := os.TempDir(); got != "/" {
		t.Errorf("TMPDIR stays %s", got)
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("the folder is still there: %v", err)
	}
}

func TestFoldersOfTheDeadAreSwept(t *testing.T) {
	parent := t.TempDir()
	dirs := make(map[string]string)
	for _, name := range []string{"dead", "alive"} {
		dir, unlock, err := folder(parent)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if name == "dead" {
			unlock() // as the system does for one that was killed
		} else {
			defer unlock()
		}
		dirs[name] = dir
	}
	sweep(parent)
	if _, err := os.Stat(dirs["dead"]); !os.IsNotExist(err) {
		t.Errorf("the folder of a dead process is still there: %v", err)
	}
	if _, err := os.Stat(filepath.Join(dirs["alive"], "file")); err != nil {
		t.Errorf("the folder of a living process was touched: %v", err)
	}
}
