package main

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

// made is a series of so many addresses of each kind, asked for so often; time
// says what an answer takes, but for some noise.
func made(e endpoint, each, passes int, time func(u *subject, pass int) float64) (*series, *[kinds][]*subject) {
	toss := rand.New(rand.NewPCG(1, 2))
	s, subjects := &series{question: question{endpoint: e}}, new([kinds][]*subject)
	for _, k := range e.kinds {
		for i := range each {
			u := &subject{kind: k, made: classOf(i)}
			subjects[k] = append(subjects[k], u)
			for pass := range passes {
				x := sample{u, pass, time(u, pass) + 50*toss.ExpFloat64(), 100 + 10*toss.NormFloat64(), 0}
				s.samples = append(s.samples, x)
			}
			if k == unknown || k == invited {
				u.made = -1 // unknown
			}
		}
	}
	return s, subjects
}

func costs(u *subject, _ int) float64 { return []float64{2000, 8000, 30000}[u.made] }

func broken(all []comparison) (among []string) {
	for _, c := range all {
		if c.Broken != "" {
			among = append(among, c.Request+" "+c.Kinds[0]+" "+c.Kinds[1]+": "+c.Among)
		}
	}
	return among
}

func TestFindClasses(t *testing.T) {
	t.Parallel()
	s, _ := made(login, 100, 2, func(u *subject, pass int) float64 {
		if pass == 0 {
			return 10 * costs(u, pass) // something held it up
		}
		return costs(u, pass)
	})
	want := make(map[*subject]int)
	for i, x := range s.samples {
		want[x.subject] = classOf(i / 2 % 100)
	}
	if n := findClasses(s); n != 0 {
		t.Errorf("%d accounts are put into a wrong class", n)
	}
	for u, class := range want {
		if u.found != class {
			t.Fatalf("a %v address of class %d was found in %d", u.kind, class, u.found)
		}
	}
}

func TestALoginThatTellsIsFoundOut(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name string
		time func(u *subject, pass int) float64
		want []string // what must be among the broken; none: nothing may be
	}{
		{"one that doesn't", costs, nil},
		{"one class takes longer for revoked accounts", func(u *subject, pass int) float64 {
			if u.kind == revoked && u.made == today {
				return costs(u, pass) + 100
			}
			return costs(u, pass)
		}, []string{
			"login revoked unknown: argon2id of today", "login revoked unknown: classes together",
			"login known revoked: argon2id of today", "login known revoked: classes together",
		}},
		{"unknown addresses cost another time something else", func(u *subject, pass int) float64 {
			if u.kind == unknown {
				return costs(&subject{made: (u.made + pass) % len(classes)}, pass)
			}
			return costs(u, pass)
		}, []string{
			"login known unknown: each address again, change in %",
			"login revoked unknown: each address again, change in %",
			"login invited unknown: each address again, change in %",
		}},
		{"unknown addresses have today's cost", func(u *subject, pass int) float64 {
			if u.kind == unknown {
				return costs(&subject{made: today}, pass)
			}
			return costs(u, pass)
		}, []string{
			"login known unknown: each address once", "login revoked unknown: each address once", "login invited unknown: each address once",
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s, _ := made(login, 300, 2, test.time)
			findClasses(s)
			got := broken(judgeLogin(s))
			for _, want := range test.want {
				if !slices.Contains(got, want) {
					t.Errorf("%q isn't broken, only\n%s", want, strings.Join(got, "\n"))
				}
			}
			if test.want == nil && got != nil {
				t.Errorf("broken are\n%s", strings.Join(got, "\n"))
			}
		})
	}
}

func TestMix(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name string
		time func(u *subject, pass int) float64
		want []string
	}{
		{"in proportion", costs, nil},
		{"unknown ones are never bcrypt", func(u *subject, pass int) float64 {
			if u.kind == unknown && u.made == 1 {
				return costs(&subject{made: today}, pass)
			}
			return costs(u, pass)
		}, []string{"known unknown", "revoked unknown", "stepped unknown", "invited unknown"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s, subjects := made(login, 200, 1, test.time)
			findClasses(s)
			var got []string
			for _, m := range judgeMix(subjects) {
				if m.Broken != "" {
					got = append(got, m.Kinds[0]+" "+m.Kinds[1])
				}
			}
			if !slices.Equal(got, test.want) {
				t.Errorf("broken are %v, want %v", got, test.want)
			}
		})
	}
}

func TestRecoverIsJudgedByItsEffectToo(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name       string
		more, sure float64 // µs and standard errors of what known addresses take more
		want       bool
	}{
		{"small and not sure", 10, 4.2, false},
		{"large and not sure", 50, 3.5, false},
		{"large and sure", 50, 4.2, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			// Two values in turn: the standard error of a difference of two means
			// of 100 is that of one value by √50 (and √(99/100)).
			spread := test.more / test.sure * 7.07 * 0.995
			var a, b []float64
			for i := range 100 {
				noise := spread * float64(2*(i%2)-1)
				a, b = append(a, 500+test.more+noise), append(b, 500+noise)
			}
			c := comparison{Effect: welch(a, b), effects: true}
			if c.judge(); (c.Broken != "") != test.want {
				t.Errorf("%v, t %.2f: %q", c.Effect, c.Effect.T, c.Broken)
			}
		})
	}
}

func TestAnswersMustBeOne(t *testing.T) {
	t.Parallel()
	const no = "HTTP/1.1 401 Unauthorized\r\n\r\nno"
	for _, test := range []struct {
		name   string
		given  map[kind]string
		aside  int // the status of one more
		broken string
	}{
		{"all the same", map[kind]string{known: no, unknown: no}, 0, ""},
		{"one is refused for want of time", map[kind]string{known: no}, 503, ""},
		{"a header tells", map[kind]string{known: "HTTP/1.1 401 Unauthorized\r\nx: 1\r\n\r\nno", unknown: no}, 0, "they differ"},
		{"another answer than wanted", map[kind]string{known: "HTTP/1.1 404 Not Found\r\n\r\nno"}, 0, "they aren't 401"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := newSeries(question{endpoint: login, want: 401, aside: []int{503}})
			for k, answer := range test.given {
				s.add(sample{subject: &subject{kind: k}}, 401, answer)
			}
			if test.aside != 0 {
				s.add(sample{subject: &subject{kind: unknown}}, test.aside, "later")
			}
			var b block
			b.see(s)
			if got := b.Answers[0].Broken; got != test.broken {
				t.Errorf("broken: %q, want %q: %q", got, test.broken, b.Answers[0].Forms)
			}
		})
	}
}

func TestWhatIsLeftOutIsCounted(t *testing.T) {
	t.Parallel()
	s := newSeries(question{endpoint: login, want: 503, aside: []int{401}, late: time.Second})
	u := &subject{kind: unknown}
	for _, x := range []struct {
		took   float64
		status int
	}{{1e5, 503}, {2e6, 503}, {3e6, 503}, {1e5, 401}, {2e6, 401}, {3e6, 401}} {
		s.add(sample{subject: u, took: x.took}, x.status, "")
	}
	if got, want := s.parts[unknown], (counts{1, 2, 3}); got != want || len(s.samples) != 1 {
		t.Errorf("in time, late and others are %v, want %v; %d samples", got, want, len(s.samples))
	}
}
