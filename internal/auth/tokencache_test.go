package auth_test

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"kwai/internal/auth"
	"kwai/verify"
)

func TestCachedTokensAreBoundedAndExpire(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	cache := auth.NewTokenCache()
	cache.Put("used", now.Add(time.Hour))
	cache.Put("short", now.Add(time.Second))
	for i := range 5 * auth.MaxCached {
		cache.Put(strconv.Itoa(i), now.Add(time.Hour))
		if i%auth.MaxCached == 0 && !cache.Has("used", now) {
			t.Fatalf("a token that is used all the time was forgotten after %d others", i)
		}
	}
	if n := cache.Len(); n > 2*auth.MaxCached {
		t.Errorf("%d tokens are cache", n)
	}
	last := strconv.Itoa(5*auth.MaxCached - 1)
	for token, want := range map[string]bool{last: true, "0": false, last + " ": false, "": false} {
		if got := cache.Has(token, now); got != want {
			t.Errorf("%q is recalled: %v", token, got)
		}
	}
	if cache.Has(last, now.Add(time.Hour)) {
		t.Error("a token is recalled at its end")
	}

	longest := strings.Repeat("x", verify.MaxSize)
	cache.Put(longest, now.Add(time.Hour))
	if !cache.Has(longest, now) || cache.Has(longest+"x", now) {
		t.Error("a token that is longer than any stands for its beginning")
	}
}
