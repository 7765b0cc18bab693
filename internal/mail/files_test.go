package mail_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"kwai/internal/mail"
)

func TestFiles(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "data", "mail")
	f, err := mail.NewFiles(dir, options)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.MakeFolder(); err != nil {
		t.Fatal(err)
	}
	later, earlier := recovery(t, user), recovery(t, mail.Recipient{Email: "jürgen@example.org"})
	earlier.ID, earlier.Date = "id-0", now.Add(-time.Millisecond)
	for _, m := range []mail.Message{later, earlier, later} { // the last as after a crash: delivered again
		if err := f.Send(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
	names, err := f.Names()
	want := []string{"20260302T120500.000000Z-id-1.eml", "20260302T120459.999000Z-id-0.eml"}
	if err != nil || !slices.Equal(names, want) {
		t.Fatalf("names are %v (%v), want %v", names, err, want)
	}
	for i, want := range []mail.Message{later, earlier} {
		got, err := f.Read(names[i])
		want.Date = want.Date.Truncate(time.Second) // what a Date header can say
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("read back (%v): -want +got\n%s", err, diff)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 2 {
		t.Fatalf("the folder has %v (%v)", entries, err)
	}
	info, err := entries[0].Info()
	if err != nil || info.Mode() != 0o600 {
		t.Errorf("the file's mode is %v (%v)", info.Mode(), err)
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the folder's mode is %v (%v)", info.Mode(), err)
	}
}

func TestFilesRefuses(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	f, err := mail.NewFiles(filepath.Join(dir, "mail"), options)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.MakeFolder(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "x.eml"), []byte("To: a@b\n\nx"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"../x.eml", "a/../../x.eml", "..", "", ".x.eml", filepath.Join(dir, "x.eml"), "none.eml"} {
		if _, err := f.Read(name); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("reading %q: %v", name, err)
		}
	}
	m := recovery(t, user)
	m.ID = "../x"
	if err := f.Send(t.Context(), m); !mail.Permanent(err) {
		t.Errorf("an id that leaves the folder: %v", err)
	}
	if err := os.Remove(filepath.Join(dir, "mail")); err != nil {
		t.Fatal(err)
	}
	if err := f.Send(t.Context(), recovery(t, user)); err == nil || mail.Permanent(err) || strings.Contains(err.Error(), code) {
		t.Errorf("without a folder: %v", err)
	}
}
