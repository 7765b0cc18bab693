package auth_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"kwai/internal/auth"
	"kwai/internal/store"
	"kwai/internal/store/storetest"
)

// rivals are two replicas on one database; on SQLite, which has one server,
// they are the same.
type rivals struct{ one, other *server }

// contest is one try: two operations, and who came first by what they left
// behind; judge fails the test if that must not be.
type contest struct {
	one, other func() error
	judge      func(one, other error) (oneFirst bool)
}

// race has two operations meet two hundred times on each kind of database,
// each time for another user, several at a time. The one that came first has
// to begin later the next time, so that the two meet in every way.
func race(t *testing.T, prepare func(t *testing.T, r rivals, user store.User) contest) {
	const lanes, tries, step = 4, 50, 200 * time.Microsecond
	storetest.Each(t, func(t *testing.T, url string) {
		r := rivals{one: start(t, url, time.Now, nil)}
		if r.other = r.one; strings.HasPrefix(url, "postgres") {
			r.other = start(t, url, time.Now, r.one)
		}
		var mu sync.Mutex
		first := map[bool]int{}
		t.Run("tries", func(t *testing.T) {
			for lane := range lanes {
				t.Run(fmt.Sprint(lane), func(t *testing.T) {
					t.Parallel()
					delay := time.Duration(0) // of the one; of the other if negative
					for try := range tries {
						c := prepare(t, r, r.one.user(t, fmt.Sprintf("user%d-%d@example.org", lane, try)))
						oneFirst := c.judge(meet(c.one, c.other, delay))
						if oneFirst {
							delay += rand.N(step)
						} else {
							delay -= rand.N(step)
						}
						mu.Lock()
						first[oneFirst]++
						mu.Unlock()
					}
				})
			}
		})
		t.Logf("the one came first %d times, the other %d times", first[true], first[false])
		if first[true] == 0 || first[false] == 0 {
			t.Error("they did not race")
		}
	})
}

// meet runs both at the same time, but for the delay.
func meet(one, other func() error, delay time.Duration) (oneErr, otherErr error) {
	var wg sync.WaitGroup
	var ready sync.WaitGroup
	ready.Add(2)
	run := func(err *error, f func() error, delay time.Duration) {
		ready.Done()
		ready.Wait()
		for begin := time.Now(); time.Since(begin) < delay; {
			runtime.Gosched() // a timer is too coarse
		}
		*err = f()
	}
	wg.Go(func() { run(&oneErr, one, delay) })
	wg.Go(func() { run(&otherErr, other, -delay) })
	wg.Wait()
	return oneErr, otherErr
}

// Whatever ends a user's sessions, once it is answered none from before is
// alive, however it met with a login or a renewal.
func TestAnAnsweredEndIsFinal(t *testing.T) {
	type end struct {
		name    string
		prepare func(t *testing.T, s *server, user store.User, open auth.Tokens) (run func() error)
	}
	reset := end{"reset", func(t *testing.T, s *server, user store.User, _ auth.Tokens) func() error {
		id := s.recovery(t, user)
		return func() error { return s.Reset(t.Context(), id, newPassword) }
	}}
	revoke := end{"revoke", func(t *testing.T, s *server, user store.User, _ auth.Tokens) func() error {
		return func() error { return s.Revoke(t.Context(), user.Email) }
	}}
	setPassword := end{"set password", func(t *testing.T, s *server, user store.User, _ auth.Tokens) func() error {
		return func() error { return s.SetPassword(t.Context(), user.Email, newPassword) }
	}}
	logout := end{"logout", func(t *testing.T, s *server, user store.User, open auth.Tokens) func() error {
		return func() error { return s.Logout(t.Context(), user.Profile, open.Refresh) }
	}}
	// And what another session of the user's does.
	change := end{"change", func(t *testing.T, s *server, user store.User, _ auth.Tokens) func() error {
		caller := s.caller(t, s.login(t, user.Email, oldPassword))
		return func() error { return s.ChangePassword(t.Context(), caller, oldPassword, newPassword) }
	}}
	endOne := end{"end", func(t *testing.T, s *server, user store.User, open auth.Tokens) func() error {
		caller, id := s.caller(t, s.login(t, user.Email, oldPassword)), s.session(t, open).ID
		return func() error { return s.EndSession(t.Context(), caller, id) }
	}}
	endOthers := end{"end the others", func(t *testing.T, s *server, user store.User, _ auth.Tokens) func() error {
		caller := s.caller(t, s.login(t, user.Email, oldPassword))
		return func() error { return s.EndOtherSessions(t.Context(), caller) }
	}}
	for _, end := range []end{reset, revoke, setPassword, change} {
		t.Run("login and "+end.name, func(t *testing.T) {
			race(t, func(t *testing.T, r rivals, user store.User) contest {
				before := r.one.login(t, user.Email, oldPassword)
				var tokens auth.Tokens
				return contest{
					one: func() (err error) {
						tokens, err = r.one.Login(t.Context(), user.Email, oldPassword)
						return err
					},
					other: end.prepare(t, r.other, user, before),
					judge: func(login, end error) bool {
						ok(t, end)
						r.one.dead(t, user, before)
						if login == nil {
							r.one.dead(t, user, tokens)
							return true
						}
						wantErr(t, "a login that came too late", login, auth.ErrCredentials)
						return false
					},
				}
			})
		})
	}
	for _, end := range []end{reset, revoke, setPassword, logout, change, endOne, endOthers} {
		t.Run("renew and "+end.name, func(t *testing.T) {
			race(t, func(t *testing.T, r rivals, user store.User) contest {
				before := r.one.login(t, user.Email, oldPassword)
				var tokens auth.Tokens
				return contest{
					one: func() (err error) {
						tokens, err = r.one.Renew(t.Context(), before.Refresh, time.Now())
						return err
					},
					other: end.prepare(t, r.other, user, before),
					judge: func(renewal, end error) bool {
						ok(t, end)
						r.one.dead(t, user, before)
						if renewal == nil {
							r.one.dead(t, user, tokens)
							return true
						}
						wantErr(t, "a renewal that came too late", renewal, auth.ErrRefresh)
						return false
					},
				}
			})
		})
	}
}

// The id of the mail before is used while the next mail is made: either the
// reset comes first and the mail is dropped, or the next id replaces this one.
func TestARecoveryAndAResetMeet(t *testing.T) {
	race(t, func(t *testing.T, r rivals, user store.User) contest {
		first := r.other.recovery(t, user)
		next := r.one.request(user)
		var m auth.RecoveryMail
		var made bool
		return contest{
			one: func() (err error) {
				m, made, err = r.one.MakeRecovery(t.Context(), next)
				return err
			},
			other: func() error { return r.other.Reset(t.Context(), first, newPassword) },
			judge: func(making, reset error) bool {
				ok(t, making)
				wantErr(t, "the first id afterwards", r.one.Reset(t.Context(), first, newPassword), auth.ErrRecovery)
				if made {
					wantErr(t, "a reset by a replaced id", reset, auth.ErrRecovery)
					ok(t, r.other.Reset(t.Context(), m.ID, newPassword))
					return true
				}
				ok(t, reset)
				return false
			},
		}
	})
}

// A revocation that comes while the new password is hashed keeps it from being
// set, and the id from being used up.
func TestAResetAndARevocationMeet(t *testing.T) {
	race(t, func(t *testing.T, r rivals, user store.User) contest {
		r.one.login(t, user.Email, oldPassword)
		id := r.one.recovery(t, user)
		return contest{
			one:   func() error { return r.one.Reset(t.Context(), id, newPassword) },
			other: func() error { return r.other.Revoke(t.Context(), user.Email) },
			judge: func(reset, revocation error) bool {
				ok(t, revocation)
				var first string // the one that ended the session
				ok(t, r.one.database(t).QueryRowContext(t.Context(), `SELECT end_reason FROM sessions WHERE user_id = $1`, user.ID).Scan(&first))
				ok(t, r.other.Enact(t.Context(), user.Email))
				if first == store.EndPassword {
					ok(t, reset)
					r.one.login(t, user.Email, newPassword)
					return true
				}
				wantErr(t, "a reset that came too late", reset, auth.ErrRevoked)
				r.one.login(t, user.Email, oldPassword)
				ok(t, r.one.Reset(t.Context(), id, newPassword))
				return false
			},
		}
	})
}

func TestOneOfTwoResetsSucceeds(t *testing.T) {
	race(t, func(t *testing.T, r rivals, user store.User) contest {
		id := r.other.recovery(t, user)
		passwords := [2]string{"first come, first served", "two is company, three"}
		return contest{
			one:   func() error { return r.one.Reset(t.Context(), id, passwords[0]) },
			other: func() error { return r.other.Reset(t.Context(), id, passwords[1]) },
			judge: func(one, other error) bool {
				if one == nil {
					wantErr(t, "the second reset", other, auth.ErrRecovery)
					r.one.login(t, user.Email, passwords[0])
					return true
				}
				wantErr(t, "the first reset", one, auth.ErrRecovery)
				ok(t, other)
				r.one.login(t, user.Email, passwords[1])
				return false
			},
		}
	})
}

func TestTwoDeliveriesOfOneRecoveryMailTheSameID(t *testing.T) {
	race(t, func(t *testing.T, r rivals, user store.User) contest {
		event := r.one.request(user)
		var ids [2]string
		var ends [2]time.Time
		deliver := func(s *server, i int) func() error {
			return func() error {
				m, made, err := s.MakeRecovery(t.Context(), event)
				if err == nil && !made {
					err = errors.New("it was dropped")
				}
				ids[i], ends[i] = m.ID, time.Now()
				return err
			}
		}
		return contest{
			one:   deliver(r.one, 0),
			other: deliver(r.other, 1),
			judge: func(one, other error) bool {
				ok(t, errors.Join(one, other))
				if ids[0] != ids[1] {
					t.Errorf("the ids %s and %s were mailed", ids[0], ids[1])
				}
				ok(t, r.one.Reset(t.Context(), ids[0], newPassword))
				return ends[0].Before(ends[1])
			},
		}
	})
}

func TestOneOfTwoAccountsIsMade(t *testing.T) {
	race(t, func(t *testing.T, r rivals, user store.User) contest {
		email := "new-" + user.Email
		create := func(s *server, email string) func() error {
			return func() error {
				_, err := s.CreateUser(t.Context(), auth.NewUser{Email: email, FirstName: "Ann", LastName: "Other", Password: oldPassword})
				return err
			}
		}
		return contest{
			one:   create(r.one, email),
			other: create(r.other, strings.ToUpper(email)),
			judge: func(one, other error) bool {
				if one == nil {
					wantErr(t, "the second account", other, auth.ErrUserExists)
					return true
				}
				wantErr(t, "the first account", one, auth.ErrUserExists)
				ok(t, other)
				return false
			},
		}
	})
}

// The first login with an imported hash replaces it under the other's feet.
func TestLoginsThatMeetAtAnImportedHashSucceed(t *testing.T) {
	hash := bcryptOf(t, oldPassword)
	race(t, func(t *testing.T, r rivals, user store.User) contest {
		email := "imported-" + user.Email
		must(r.one.CreateUser(t.Context(), auth.NewUser{Email: email, FirstName: "Ann", LastName: "Other", Hash: hash}))(t)
		var ends [2]time.Time
		login := func(s *server, i int) func() error {
			return func() error {
				tokens, err := s.Login(t.Context(), email, oldPassword)
				ends[i] = time.Now()
				if err == nil {
					_, err = s.Check(t.Context(), tokens.Access)
				}
				return err
			}
		}
		return contest{
			one:   login(r.one, 0),
			other: login(r.other, 1),
			judge: func(one, other error) bool {
				ok(t, errors.Join(one, other))
				return ends[0].Before(ends[1])
			},
		}
	})
}
