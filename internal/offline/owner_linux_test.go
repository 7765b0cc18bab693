package offline_test

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"kwai/internal/offline"
	"kwai/internal/testing/need"
	"kwai/internal/testing/storetest"
)

// What root notes beside a database belongs to the folder's owner, and is a new
// file: it goes nowhere by a link.
func TestNoteBackupByRoot(t *testing.T) {
	t.Parallel()
	need.Root(t, "to give a folder away")
	url := storetest.SQLite(t)
	noted, elsewhere := storetest.Path(url)+".backed-up", filepath.Join(t.TempDir(), "elsewhere")
	check(t, os.WriteFile(elsewhere, []byte("kept"), 0o600))
	check(t, os.Symlink(elsewhere, noted))
	check(t, os.Chown(filepath.Dir(noted), 65532, 65531))
	check(t, offline.NoteBackup(url))
	info, err := os.Lstat(noted)
	check(t, err)
	if owner := info.Sys().(*syscall.Stat_t); !info.Mode().IsRegular() || owner.Uid != 65532 || owner.Gid != 65531 {
		t.Errorf("it is %v, of %d:%d", info.Mode(), owner.Uid, owner.Gid)
	}
	if text := storetest.Content(t, elsewhere); string(text) != "kept" {
		t.Errorf("where a link led there is %q", text)
	}
}
