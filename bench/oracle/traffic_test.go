package main

import (
	"strings"
	"testing"
)

func TestWhatAPageShowsOfWhatWasTyped(t *testing.T) {
	t.Parallel()
	const page = "HTTP/1.1 429 Too Many Requests\r\nContent-Length: 99\r\nRetry-After: *\r\n\r\n" +
		`Try again in 59 minutes. <input name="username" value="ann@example.org">`
	want := "HTTP/1.1 429 Too Many Requests\r\nContent-Length: *\r\nRetry-After: *\r\n\r\n" +
		`Try again in *. <input name="username" value="*">`
	if got := loginPage.shown(page, "ann@example.org", 3540); got != want {
		t.Errorf("got %q", got)
	}
	if got := loginPage.shown(page, "bob@example.org", 3540); got == want {
		t.Error("another address than was typed is left out")
	}
	if got := login.shown(page, "ann@example.org", 3540); got != page {
		t.Errorf("of the API something is left out: %q", got)
	}
	// Without a time to wait a length is compared.
	if got := loginPage.shown("Content-Length: 99\r\n\r\n", "", 0); got != "Content-Length: 99\r\n\r\n" {
		t.Errorf("got %q", got)
	}
}

// A page is asked in every state, and in none after accounts have to wait for an hour
// unless that is what is asked about.
func TestPagesAreAskedInEveryState(t *testing.T) {
	t.Parallel()
	const want = "idle,load,busy,full,page-idle,page-load,page-busy,page-full,throttled,locked,page-throttled,page-locked,address-idle,address-load"
	if got := stateNames(states); got != want {
		t.Errorf("the states are %s, want %s", got, want)
	}
	for _, st := range states {
		if page := st.login.path == "/login"; page != strings.HasPrefix(st.name, "page-") || page && st.recover.passes > 0 {
			t.Errorf("%s asks %s, and recovers %d times", st.name, st.login.path, st.recover.passes)
		}
	}
}
