package database_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"kwai/internal/database"
)

// An error that each try repeats is logged at once and then once a minute; the
// next one after a success at once.
func TestARecurringErrorIsLoggedSeldom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r database.Recurring
		logged := 0
		for range 600 { // five minutes
			if r.Log(errors.New("away")) {
				logged++
			}
			time.Sleep(time.Second / 2)
		}
		if logged != 5 {
			t.Errorf("logged %d times in five minutes, want 5", logged)
		}
		if r.Log(nil) || !r.Log(errors.New("away")) {
			t.Error("what fails again after a success is not logged")
		}
	})
}
