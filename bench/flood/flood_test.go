package main

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"kwai/bench/internal/load"
)

func TestParseCounts(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		text string
		want []int // nil: refused
	}{
		{"64", []int{64}},
		{"64,256,1000", []int{64, 256, 1000}},
		{"", nil},
		{"64,", nil},
		{"64,x", nil},
		{"64x", nil},
		{"0", nil},
		{"-1", nil},
		{"20001", nil},
	} {
		got, err := parseCounts(test.text)
		if !slices.Equal(got, test.want) || (err == nil) != (test.want != nil) {
			t.Errorf("parseCounts(%q) = %v, %v; want %v", test.text, got, err, test.want)
		}
	}
}

func TestParseGoroutines(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		text string
		want int // 0: an error
	}{
		{"# HELP go_goroutines Number of goroutines.\n# TYPE go_goroutines gauge\ngo_goroutines 42\ngo_info 1\n", 42},
		{"go_goroutines_other 42\n", 0},
		{"go_goroutines many\n", 0},
		{"", 0},
	} {
		got, err := parseGoroutines(strings.NewReader(test.text))
		if got != test.want || (err == nil) != (test.want != 0) {
			t.Errorf("parseGoroutines(%q) = %d, %v; want %d", test.text, got, err, test.want)
		}
	}
}

// steady are answers 200 every 10 ms, from one time to another.
func steady(from, to time.Duration) (all []sample) {
	for at := from + 10*time.Millisecond; at <= to; at += 10 * time.Millisecond {
		all = append(all, sample{at, 5 * time.Millisecond, http.StatusOK})
	}
	return all
}

func TestBackAt(t *testing.T) {
	t.Parallel()
	refused := sample{time.Second, 0, http.StatusServiceUnavailable}
	for _, test := range []struct {
		name    string
		samples []sample
		want    time.Duration // negative: never
	}{
		{"nothing succeeds", []sample{refused}, -1},
		{"at once", steady(0, time.Second), 0},
		{"after a second", steady(time.Second, 2*time.Second), 990 * time.Millisecond}, // 90 % of the window
		{"in any order", append(steady(time.Second, 2*time.Second), steady(0, time.Second)...), 0},
		{"too slowly", slices.DeleteFunc(steady(0, time.Second), func(s sample) bool { return s.at%(20*time.Millisecond) != 0 }), -1},
		{"refused as often", slices.Repeat([]sample{refused}, 100), -1},
	} {
		got, ok := backAt(test.samples, 90, 100*time.Millisecond)
		if !ok {
			got = -1
		}
		if got != test.want {
			t.Errorf("%s: back at %v, want %v", test.name, got, test.want)
		}
	}
}

func TestSum(t *testing.T) {
	t.Parallel()
	f := sum(append(steady(0, time.Second), sample{1100 * time.Millisecond, time.Second, http.StatusServiceUnavailable}), 100*time.Millisecond)
	if diff := cmp.Diff(figures{PerSecond: 91, P50: 5, P99: 5, Answers: map[int]int{200: 100, 503: 1}}, f); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if f := sum([]sample{{time.Second, 0, brokenOff}}, 0); f.PerSecond != 0 || f.Answers[brokenOff] != 1 {
		t.Errorf("of failures only: %+v", f)
	}
}

func TestForgedTokensAreNone(t *testing.T) {
	t.Parallel()
	const token = "AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyAhIiMkJSYnKCkqKywt" // 45 bytes: 1, 2, 3…
	for i := range 100 {
		if forge(token, i) == token {
			t.Fatal("a forged token is the one it was made of")
		}
	}
}

func TestDeadCookiesAreNone(t *testing.T) {
	t.Parallel()
	const live = "AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyAhIiMkJSYnKCkqKywt"
	for i := range 100 {
		if c := (cookies{load.BrowserCookie + "=" + live, "old", "ended"}).dead(i); strings.HasSuffix(c, "="+live) || c == "" {
			t.Fatalf("the cookie %d is %q", i, c)
		}
	}
}

// a round in which all went well.
func goodRound() round {
	alone := figures{PerSecond: 1000, P99: 10, Answers: map[int]int{200: 1000}}
	flooded := figures{PerSecond: 500, P99: 30, Answers: map[int]int{200: 500}}
	return round{
		Before:  map[string]figures{renew: alone, check: alone, logout: alone, login: alone},
		After:   map[string]figures{renew: alone, check: alone, logout: alone, login: alone},
		Flooded: map[string]figures{renew: flooded, check: flooded, logout: flooded, login: {PerSecond: 400, P99: 90, Answers: map[int]int{200: 3, 503: 2}}},
		Peak:    state{Usage: load.Usage{Memory: 100 * mega}},
		Answers: map[int]int{401: 500, 503: 30, brokenOff: 2},
		Back:    back{Renewals: 0.5, Near: 1.5, Answers: map[int]int{200: 10, 503: 1}},
	}
}

func TestJudge(t *testing.T) {
	t.Parallel()
	flooded := func(op string, f figures) func(r *round) { return func(r *round) { r.Flooded[op] = f } }
	for _, test := range []struct {
		name     string
		promised promised
		n        int
		change   func(r *round)
		broken   []string
	}{
		{"all is well", requestsGoOn, 64, func(*round) {}, nil},
		{"slow renewals", requestsGoOn, 64, flooded(renew, figures{PerSecond: 399, P99: 30}), []string{"renew rate"}},
		{"late checks", requestsGoOn, 64, flooded(check, figures{PerSecond: 500, P99: 41}), []string{"check p99"}},
		{"no logouts", requestsGoOn, 64, flooded(logout, figures{Answers: map[int]int{brokenOff: 16}}), []string{"logout rate", "failures"}},
		{"refused renewals", requestsGoOn, 64, flooded(renew, figures{PerSecond: 500, P99: 10, Answers: map[int]int{503: 1}}), []string{"failures"}},
		{"refused renewals, nothing promised", nothingMore, 64, flooded(renew, figures{Answers: map[int]int{503: 1}}), nil},
		{"broken off, nothing promised", nothingMore, 64, flooded(renew, figures{Answers: map[int]int{brokenOff: 1}}), []string{"failures"}},
		{"no promise for so many", requestsGoOn, 65, flooded(renew, figures{}), nil},
		{"slow logins", loginsGoOn, 64, flooded(login, figures{PerSecond: 299}), []string{"login rate"}},
		{"an error of the server's", nothingMore, 1000, func(r *round) { r.Answers[500] = 1 }, []string{"failures"}},
		{"refused when it is over", nothingMore, 1000, func(r *round) { r.After[login] = figures{PerSecond: 1000, Answers: map[int]int{503: 1}} }, []string{"failures"}},
		{"much memory at 64", nothingMore, 64, func(r *round) { r.Peak.Memory = 131 * mega }, []string{"memory at its peak"}},
		{"as much at 1000", nothingMore, 1000, func(r *round) { r.Peak.Memory = 199 * mega }, nil},
		{"late", nothingMore, 64, func(r *round) { r.Back.Renewals = 2.1 }, []string{"back to rest"}},
		{"never back", nothingMore, 64, func(r *round) { r.Back.Near = -1 }, []string{"back to rest"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			bad := goodRound()
			test.change(&bad)
			var broken []string
			for _, v := range judge(kind{promised: test.promised}, test.n, []round{bad}) {
				if !v.OK {
					broken = append(broken, v.What)
				}
			}
			if !slices.Equal(broken, test.broken) {
				t.Errorf("broken: %q, want %q", broken, test.broken)
			}
		})
	}
}

func TestTheMedianRoundDecides(t *testing.T) {
	t.Parallel()
	noisy := goodRound()
	noisy.Flooded[renew] = figures{PerSecond: 1, P99: 1000}
	noisy.Back.Renewals = -1
	for _, v := range judge(kind{promised: requestsGoOn}, 64, []round{noisy, goodRound(), goodRound()}) {
		if !v.OK {
			t.Errorf("one round of three: %v", v)
		}
	}
}
