package offline_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"kwai/internal/database"
	"kwai/internal/offline"
	"kwai/internal/testing/storetest"
)

// A database is one, whatever link names it: no second server, restore or move
// takes it from the one that serves it.
func TestALinkIsTheDatabaseItself(t *testing.T) {
	t.Parallel()
	url := storetest.SQLite(t)
	storetest.WithUser(t, url)
	link := "sqlite://" + filepath.Join(t.TempDir(), "link.db")
	check(t, os.Symlink(storetest.Path(url), storetest.Path(link)))
	file := backupOf(t, "b")
	for served, other := range map[string]string{url: link, link: url} {
		s := storetest.Open(t, served, nil)
		wantRefused(t, database.Options{URL: other, Serve: true}, "another kwai serves")
		_, err := restore(t, file, other, false)
		wantRefusal(t, err, "another kwai serves")
		_, err = offline.Move(t.Context(), offline.MoveOptions{From: other, To: "postgres://kwai@127.0.0.1:1/none"})
		wantMoveError(t, err, false, "another kwai serves")
		check(t, s.Close())
	}
}

// So is one that isn't there yet, where the link leads.
func TestALinkIsTheDatabaseThatIsToBe(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	check(t, os.Mkdir(filepath.Join(dir, "disk"), 0o700))
	check(t, os.Symlink("disk", filepath.Join(dir, "data")))
	check(t, os.Symlink("other.db", filepath.Join(dir, "disk", "kwai.db")))
	check(t, os.Symlink(filepath.Join("..", "real.db"), filepath.Join(dir, "disk", "other.db")))
	link := "sqlite://" + filepath.Join(dir, "data", "kwai.db")
	file := backupOf(t, "b")
	s := storetest.Open(t, link, nil)
	for _, url := range []string{link, "sqlite://" + filepath.Join(dir, "real.db")} {
		wantRefused(t, database.Options{URL: url, Serve: true}, "another kwai serves")
		_, err := restore(t, file, url, false)
		wantRefusal(t, err, "another kwai serves")
	}
	check(t, s.Close())
	if diff := cmp.Diff([]string{"kwai.db", "other.db"}, storetest.FilesIn(t, filepath.Join(dir, "disk"))); diff != "" {
		t.Errorf("beside the links (-want +got):\n%s", diff)
	}

	// A restore puts the file there, too.
	check(t, os.Remove(filepath.Join(dir, "real.db")))
	_, err := restore(t, file, link, false)
	check(t, err)
	if info, err := os.Lstat(filepath.Join(dir, "real.db")); err != nil || !info.Mode().IsRegular() {
		t.Errorf("where the link leads: %v", err)
	}
	storetest.WantUsers(t, storetest.Open(t, link, nil), "b")
}
