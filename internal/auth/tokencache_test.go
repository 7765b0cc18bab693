package auth_test

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"kwai/internal/auth"
	"kwai/verify"
)

func TestRememberedTokensAreBoundedAndExpire(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	remembered := auth.NewVerified()
	remembered.Remember("used", now.Add(time.Hour))
	remembered.Remember("short", now.Add(time.Second))
	for i := range 5 * auth.MaxVerified {
		remembered.Remember(strconv.Itoa(i), now.Add(time.Hour))
		if i%auth.MaxVerified == 0 && !remembered.Recalls("used", now) {
			t.Fatalf("a token that is used all the time was forgotten after %d others", i)
		}
	}
	if n := remembered.Len(); n > 2*auth.MaxVerified {
		t.Errorf("%d tokens are remembered", n)
	}
	last := strconv.Itoa(5*auth.MaxVerified - 1)
	for token, want := range map[string]bool{last: true, "0": false, last + " ": false, "": false} {
		if got := remembered.Recalls(token, now); got != want {
			t.Errorf("%q is recalled: %v", token, got)
		}
	}
	if remembered.Recalls(last, now.Add(time.Hour)) {
		t.Error("a token is recalled at its end")
	}

	longest := strings.Repeat("x", verify.MaxSize)
	remembered.Remember(longest, now.Add(time.Hour))
	if !remembered.Recalls(longest, now) || remembered.Recalls(longest+"x", now) {
		t.Error("a token that is longer than any stands for its beginning")
	}
}
