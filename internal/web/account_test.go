package web_test

import (
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"
)

// What a visitor can do without end leaves no entries without end.
func TestManyChangesAndDownloads(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		s.user("ann@example.org", good)
		b := s.browser(t).login("ann@example.org", good)
		for i := range 20 {
			b.goes("a change", b.send("/account/profile", "/account/profile", "first_name", fmt.Sprint("Ann ", i)), "../account?done=profile")
			same(t, "a download", b.get("/account/data.json").Status, http.StatusOK)
		}
		b.goes("the same again", b.send("/account/profile", "/account/profile", "first_name", "Ann 19"), "../account?done=profile")
		a := b.send("/account/profile", "/account/profile", "first_name", "Anna")
		same(t, "a change too many", a.Status, http.StatusTooManyRequests)
		contains(t, "the page", string(a.Body), "Try again in 1 hour")
		contains(t, "the page", string(a.Body), `value="Anna"`)
		same(t, "a download too many", b.get("/account/data.json").Status, http.StatusTooManyRequests)
		b.shows("/account", "Ann 19")
		s.clock.advance(time.Hour)
		b.goes("a change, later", b.send("/account/profile", "/account/profile", "first_name", "Anna"), "../account?done=profile")
	})
}

// What happened is shown by hundreds.
func TestActivityInPages(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		s.user("ann@example.org", good)
		for range 105 {
			s.browser(t).login("ann@example.org", good)
		}
		b := s.browser(t).login("ann@example.org", good)
		rows := func(page string) int { return strings.Count(page, "You logged in") }
		latest := b.shows("/account/activity")
		same(t, "the latest", rows(latest), 100)
		if strings.Contains(latest, "Show the latest") {
			t.Error("the latest page leads to itself")
		}
		older := regexp.MustCompile(`account/activity\?before=[0-9a-f-]{36}`).FindString(latest)
		page := b.shows("/"+older, "The account was made", "Show the latest")
		same(t, "before them", rows(page), 6)
		if strings.Contains(page, "Show what happened before") {
			t.Error("the last page leads on")
		}
		for _, before := range []string{"x", "%00", "%ff", "g", strings.Repeat("a", 5000)} {
			same(t, "before="+before, rows(b.shows("/account/activity?before="+before)), 100)
		}
	}, limitsOff)
}

// A link from elsewhere can't claim that something was done.
func TestWhatIsDoneIsSaidByOurPages(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		s.user("ann@example.org", good)
		b := s.browser(t).login("ann@example.org", good)
		for from, said := range map[string]bool{"same-origin": true, "": true, "same-site": false, "cross-site": false, "none": false} {
			b.from = from
			page := b.shows("/account?done=password")
			same(t, "from "+from, strings.Contains(page, "The password is changed"), said)
		}
	})
}

// Who ended what is told apart.
func TestActivityTellsEndsApart(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		s.user("ann@example.org", good)
		b, other, third := s.browser(t).login("ann@example.org", good), s.browser(t).login("ann@example.org", good), s.browser(t).login("ann@example.org", good)
		other.goes("the logout", other.send("/logout", "/logout"), "out")
		b.goes("all others", b.send("/account/sessions", "/account/sessions"), "../account/sessions")
		third.goes("the third one", third.get("/account"), "login?next=account")
		page := b.shows("/account/activity", "You logged out", "You ended another session")
		same(t, "logouts", strings.Count(page, "You logged out"), 1)
	})
}

// A browser gets a page for what isn't there, a program problem details.
func TestPagesThatAreNotThere(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		for _, path := range []string{"/login/", "/account/nothing", "/nothing", "/api/v1/auth/nothing"} {
			a := s.from("", http.MethodGet, path, "", "", "Accept", "text/html,application/xhtml+xml,*/*;q=0.8", "Accept-Language", "nl")
			same(t, path, a.page(t, http.StatusNotFound).title, "Fout: Hier is niets")
			s.from("", http.MethodGet, path, "", "", "Accept", "*/*").problem(t, http.StatusNotFound)
		}
		s.from("", http.MethodPost, "/account", urlencoded, "", "Accept", "text/html").page(t, http.StatusMethodNotAllowed)
	})
}
