package offline_test

import (
	"os"
	"strings"
	"testing"

	"kwai/internal/database"
	"kwai/internal/testing/storetest"
)

func TestMain(m *testing.M) { os.Exit(storetest.MainWithoutLeaks(m)) }

// check ends the test where err is one.
func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// wantRefused says that the database is not opened, and that the error has the words.
func wantRefused(t *testing.T, o database.Options, words ...string) {
	t.Helper()
	db, err := database.Open(t.Context(), o)
	if err == nil {
		db.Close()
		t.Fatal("it was opened")
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("the error doesn't say %q: %v", w, err)
		}
	}
}
