package store_test

import (
	"os"
	"testing"
	"time"

	"kwai/internal/store"
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

// epoch is when the tests' clocks begin.
var epoch = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)

var lifetimes = store.Lifetimes{Idle: 30 * 24 * time.Hour, Session: 90 * 24 * time.Hour}

// many sessions are more than any test opens.
const many = 10_000

func discard[T any](_ T, err error) error { return err }
