package auth_test

import (
	"context"
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
	"kwai/internal/testing/need"
)

// rivals are two replicas on one database; on SQLite, which has one server,
// they are the same.
type rivals struct{ one, other *server }

func startRivals(t *testing.T, url string, now func() time.Time) (r rivals) {
	t.Helper()
	if onSQLite(url) {
		r.one = start(t, url, now, nil)
		r.other = r.one
	} else {
		r.one = startGated(t, url, now, nil)
		r.other = startGated(t, url, now, r.one)
	}
	return r
}

// operation is what may meet another one.
type operation func(ctx context.Context) error

// contest is one try: two operations, and who came first by what they left
// behind; judge fails the test if that must not be. The one is the server one's.
type contest struct {
	one, other operation
	judge      func(one, other error) (oneFirst bool)
}

// race has two operations meet on each kind of database, each time for another
// user: first all that the one does comes before each step of the other (each fifth, if
// not every test was asked for), and the other way round; then both begin at the same
// time, again and again.
func race(t *testing.T, prepare func(t *testing.T, r rivals, user store.User) contest) {
	raceOften(t, need.Rounds(2, 15), prepare)
}

// racing has the names of the tests that race.
var racing sync.Map

// raceOften is race with so many tries at once, on each of its lanes. Where a test has
// many races, each of which takes PostgreSQL's time for a database, all but the first have
// it when every test is asked for.
func raceOften(t *testing.T, tries int, prepare func(t *testing.T, r rivals, user store.User) contest) {
	test, _, _ := strings.Cut(t.Name(), "/")
	on := databases
	if _, more := racing.LoadOrStore(test, true); more {
		on = longer
	} else {
		t.Cleanup(func() { racing.Delete(test) }) // by then all its races are known; -count runs it again
	}
	on(t, func(t *testing.T, url string) {
		r := startRivals(t, url, newClock().tick)
		for _, oneIsInterrupted := range []bool{true, false} {
			steps := 0
			for more := true; more; steps += need.Rounds(5, 1) {
				c := prepare(t, r, r.one.user(t, fmt.Sprintf("user%d-%v@example.org", steps, oneIsInterrupted)))
				var one, other error
				if oneIsInterrupted {
					more, one, other = r.one.interrupt(t, steps+1, c.one, c.other)
				} else {
					more, other, one = r.other.interrupt(t, steps+1, c.other, c.one)
				}
				if oneFirst := c.judge(one, other); !more && oneFirst != oneIsInterrupted {
					t.Fatal("the second came first")
				}
			}
			t.Logf("%d steps, the one interrupted: %v", steps-1, oneIsInterrupted)
		}
		t.Run("at once", func(t *testing.T) {
			lanes := need.Rounds(1, 4)
			for lane := range lanes {
				t.Run(fmt.Sprint(lane), func(t *testing.T) {
					if lanes > 1 {
						t.Parallel()
					}
					atOnce(t, tries, func(try int) contest {
						return prepare(t, r, r.one.user(t, fmt.Sprintf("user%d-%d@example.org", lane, try)))
					})
				})
			}
		})
	})
}

// atOnce has the operations of so many contests begin at the same time, and of
// more until each has come first. The one that did has to begin later the next
// time, by more and more as long as it goes on to: so they meet in every way.
func atOnce(t *testing.T, tries int, prepare func(try int) contest) {
	t.Helper()
	const least = 100 * time.Microsecond
	step, last := least, false
	var delay time.Duration // of the one; of the other if negative
	first := map[bool]int{}
	for try := 0; try < tries || first[true] == 0 || first[false] == 0; try++ {
		c := prepare(try)
		oneFirst := c.judge(meet(t.Context(), c.one, c.other, delay))
		first[oneFirst]++
		if step *= 2; oneFirst != last {
			step, last = least, oneFirst
		}
		if oneFirst {
			delay += rand.N(step)
		} else {
			delay -= rand.N(step)
		}
	}
	t.Logf("the one came first %d times, the other %d times", first[true], first[false])
}

// meet runs both at the same time, but for the delay.
func meet(ctx context.Context, one, other operation, delay time.Duration) (oneErr, otherErr error) {
	var wg sync.WaitGroup
	var ready sync.WaitGroup
	ready.Add(2)
	run := func(err *error, f operation, delay time.Duration) {
		ready.Done()
		ready.Wait()
		for begin := time.Now(); time.Since(begin) < delay; {
			runtime.Gosched() // a timer is too coarse
		}
		*err = f(ctx)
	}
	wg.Go(func() { run(&oneErr, one, delay) })
	wg.Go(func() { run(&otherErr, other, -delay) })
	wg.Wait()
	return oneErr, otherErr
}

// ending ends sessions of a user, who has one with these tokens.
type ending struct {
	name    string
	prepare func(t *testing.T, s *server, user store.User, open auth.Tokens) operation
}

var (
	byReset = ending{"reset", func(t *testing.T, s *server, user store.User, _ auth.Tokens) operation {
		id := s.recovery(t, user)
		return func(ctx context.Context) error { return s.Reset(ctx, auth.Client{}, id, newPassword) }
	}}
	byRevocation = ending{"revoke", func(t *testing.T, s *server, user store.User, _ auth.Tokens) operation {
		return func(ctx context.Context) error { return s.Revoke(ctx, user.Email) }
	}}
	bySetPassword = ending{"set password", func(t *testing.T, s *server, user store.User, _ auth.Tokens) operation {
		return func(ctx context.Context) error { return s.SetPassword(ctx, user.Email, newPassword) }
	}}
	byDeletion = ending{"deletion", func(t *testing.T, s *server, user store.User, _ auth.Tokens) operation {
		return func(ctx context.Context) error { return s.DeleteUser(ctx, user.Email) }
	}}
	byLogout = ending{"logout", func(t *testing.T, s *server, user store.User, open auth.Tokens) operation {
		return func(ctx context.Context) error {
			return s.Logout(ctx, auth.Client{}, auth.Caller{Profile: user.Profile}, open.Refresh)
		}
	}}
	// And what another session of the user's does.
	byChange = ending{"change", func(t *testing.T, s *server, user store.User, _ auth.Tokens) operation {
		caller := s.caller(t, s.login(t, user.Email, oldPassword))
		return func(ctx context.Context) error {
			return s.ChangePassword(ctx, auth.Client{}, caller, oldPassword, newPassword, "")
		}
	}}
	byEnd = ending{"end", func(t *testing.T, s *server, user store.User, open auth.Tokens) operation {
		caller, id := s.caller(t, s.login(t, user.Email, oldPassword)), s.session(t, open).ID
		return func(ctx context.Context) error { return s.EndSession(ctx, auth.Client{}, caller, id) }
	}}
	byEndOthers = ending{"end the others", func(t *testing.T, s *server, user store.User, _ auth.Tokens) operation {
		caller := s.caller(t, s.login(t, user.Email, oldPassword))
		return func(ctx context.Context) error { return s.EndOtherSessions(ctx, auth.Client{}, caller) }
	}}
)

// Whatever ends a user's sessions, once it is answered none from before is
// alive, however it met with a login or a renewal.
func TestAnAnsweredEndIsFinal(t *testing.T) {
	for _, end := range []ending{byReset, byRevocation, bySetPassword, byChange, byDeletion} {
		t.Run("login and "+end.name, func(t *testing.T) {
			race(t, func(t *testing.T, r rivals, user store.User) contest {
				before := r.one.login(t, user.Email, oldPassword)
				var tokens auth.Tokens
				return contest{
					one: func(ctx context.Context) (err error) {
						tokens, err = r.one.Login(ctx, auth.Client{}, user.Email, oldPassword)
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
	for _, end := range []ending{byReset, byRevocation, bySetPassword, byDeletion, byLogout, byChange, byEnd, byEndOthers} {
		t.Run("renew and "+end.name, func(t *testing.T) {
			race(t, func(t *testing.T, r rivals, user store.User) contest {
				before := r.one.login(t, user.Email, oldPassword)
				var tokens auth.Tokens
				return contest{
					one: func(ctx context.Context) (err error) {
						tokens, err = r.one.Renew(ctx, auth.Client{}, before.Refresh, r.one.Store.Now())
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
			one: func(ctx context.Context) (err error) {
				m, made, err = r.one.MakeRecovery(ctx, next)
				return err
			},
			other: func(ctx context.Context) error { return r.other.Reset(ctx, auth.Client{}, first, newPassword) },
			judge: func(making, reset error) bool {
				ok(t, making)
				wantErr(t, "the first id afterwards", r.one.Reset(t.Context(), auth.Client{}, first, newPassword), auth.ErrRecovery)
				if made {
					wantErr(t, "a reset by a replaced id", reset, auth.ErrRecovery)
					ok(t, r.other.Reset(t.Context(), auth.Client{}, m.ID, newPassword))
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
			one:   func(ctx context.Context) error { return r.one.Reset(ctx, auth.Client{}, id, newPassword) },
			other: func(ctx context.Context) error { return r.other.Revoke(ctx, user.Email) },
			judge: func(reset, revocation error) bool {
				ok(t, revocation)
				var first string // the one that ended the session
				ok(t, r.one.database(t).QueryRowContext(t.Context(), `SELECT end_reason FROM sessions WHERE user_id = $1`, user.ID).Scan(&first))
				ok(t, r.other.Reinstate(t.Context(), user.Email))
				if first == store.EndPassword {
					ok(t, reset)
					r.one.login(t, user.Email, newPassword)
					return true
				}
				wantErr(t, "a reset that came too late", reset, auth.ErrRevoked)
				r.one.login(t, user.Email, oldPassword)
				ok(t, r.one.Reset(t.Context(), auth.Client{}, id, newPassword))
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
			one:   func(ctx context.Context) error { return r.one.Reset(ctx, auth.Client{}, id, passwords[0]) },
			other: func(ctx context.Context) error { return r.other.Reset(ctx, auth.Client{}, id, passwords[1]) },
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
		deliver := func(s *server, i int) operation {
			return func(ctx context.Context) error {
				m, made, err := s.MakeRecovery(ctx, event)
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
				ok(t, r.one.Reset(t.Context(), auth.Client{}, ids[0], newPassword))
				return ends[0].Before(ends[1])
			},
		}
	})
}

func TestOneOfTwoAccountsIsMade(t *testing.T) {
	race(t, func(t *testing.T, r rivals, user store.User) contest {
		email := "new-" + user.Email
		create := func(s *server, email string) operation {
			return func(ctx context.Context) error {
				_, err := s.CreateUser(ctx, auth.NewUser{Email: email, FirstName: "Ann", LastName: "Other", Password: oldPassword})
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
		login := func(s *server, i int) operation {
			return func(ctx context.Context) error {
				tokens, err := s.Login(ctx, auth.Client{}, email, oldPassword)
				ends[i] = time.Now()
				if err == nil {
					_, err = s.Check(ctx, tokens.Access)
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

// deleted checks that nothing is left of a user but the audit log and the last mail.
func (s *server) deleted(t *testing.T, user store.User) {
	t.Helper()
	_, err := s.User(t.Context(), user.ID)
	wantErr(t, "the user by the id", err, auth.ErrNoUser)
	for _, query := range []string{
		`SELECT COUNT(*) FROM sessions WHERE user_id = $1`,
		`SELECT COUNT(*) FROM recoveries WHERE user_id = $1`,
		`SELECT COUNT(*) FROM deliveries JOIN events ON events.id = event_id WHERE user_id = $1 AND subscriber = 'mail' AND type <> 'user.deleted'`,
	} {
		var n int
		ok(t, s.database(t).QueryRowContext(t.Context(), query, user.ID).Scan(&n))
		if n != 0 {
			t.Errorf("%d rows are left: %s", n, query)
		}
	}
}

// What a deletion meets comes before it, and goes with the account, or finds no account.
func TestADeletionAndAChangeMeet(t *testing.T) {
	type meeting struct {
		prepare func(t *testing.T, s *server, user store.User) operation
		late    error
		kind    string // of the entry that it leaves
	}
	for name, m := range map[string]meeting{
		"login by page": {func(_ *testing.T, s *server, user store.User) operation {
			return func(ctx context.Context) error {
				_, err := s.LoginBrowser(ctx, auth.Client{}, user.Email, oldPassword, true, "")
				return err
			}
		}, auth.ErrCredentials, auth.EventOpened},
		"reset": {func(t *testing.T, s *server, user store.User) operation {
			id := s.recovery(t, user)
			return func(ctx context.Context) error { return s.Reset(ctx, auth.Client{}, id, newPassword) }
		}, auth.ErrRecovery, auth.EventPasswordChanged},
		"password": {func(t *testing.T, s *server, user store.User) operation {
			caller := s.caller(t, s.login(t, user.Email, oldPassword))
			return func(ctx context.Context) error {
				return s.ChangePassword(ctx, auth.Client{}, caller, oldPassword, newPassword, "")
			}
		}, auth.ErrNotLoggedIn, auth.EventPasswordChanged},
		"password by page": {func(t *testing.T, s *server, user store.User) operation {
			v := s.visit(t, s.browse(t, user.Email, true))
			return chooses(s, v, newPassword, new(auth.Cookie))
		}, auth.ErrNotLoggedIn, auth.EventPasswordChanged},
		"proof": {func(t *testing.T, s *server, user store.User) operation {
			return proves(s, s.visit(t, s.browse(t, user.Email, true)), new(auth.Cookie))
		}, auth.ErrCredentials, auth.AuditProved},
		"set password": {func(_ *testing.T, s *server, user store.User) operation {
			return func(ctx context.Context) error { return s.SetPassword(ctx, user.Email, newPassword) }
		}, auth.ErrNoUser, auth.EventPasswordChanged},
		"revocation": {func(_ *testing.T, s *server, user store.User) operation {
			return func(ctx context.Context) error { return s.Revoke(ctx, user.Email) }
		}, auth.ErrNoUser, auth.EventRevoked},
		"update": {func(_ *testing.T, s *server, user store.User) operation {
			email := "new-" + user.Email
			return func(ctx context.Context) error { return s.UpdateUser(ctx, user.ID, auth.UserUpdate{Email: &email}) }
		}, auth.ErrNoUser, auth.EventEmailChanged},
		"deletion": {func(_ *testing.T, s *server, user store.User) operation {
			return func(ctx context.Context) error { return s.DeleteUser(ctx, user.ID) }
		}, auth.ErrNoUser, auth.EventDeleted},
		"address": {func(t *testing.T, s *server, user store.User) operation {
			v, code := s.emailCode(t, user, "new-"+user.Email)
			return func(ctx context.Context) error { return s.ConfirmEmail(ctx, from("192.0.2.1"), v, code) }
		}, auth.ErrNotLoggedIn, auth.EventEmailChanged},
		"request of an address": {func(t *testing.T, s *server, user store.User) operation {
			v := s.visit(t, s.browse(t, user.Email, true))
			return func(ctx context.Context) error { return s.RequestEmail(ctx, from("192.0.2.1"), v, "new-"+user.Email) }
		}, auth.ErrNotLoggedIn, auth.EventEmailRequested},
		"deletion by the user": {func(t *testing.T, s *server, user store.User) operation {
			v := s.visit(t, s.browse(t, user.Email, true))
			return func(ctx context.Context) error { return s.DeleteVisitor(ctx, from("192.0.2.1"), v) }
		}, auth.ErrNotLoggedIn, auth.EventDeleted},
		"profile": {func(t *testing.T, s *server, user store.User) operation {
			v := s.visit(t, s.browse(t, user.Email, true))
			return func(ctx context.Context) error {
				return s.UpdateProfile(ctx, from("192.0.2.1"), v, "Another", "", "")
			}
		}, auth.ErrNotLoggedIn, auth.EventUpdated},
	} {
		t.Run(name, func(t *testing.T) {
			race(t, func(t *testing.T, r rivals, user store.User) contest {
				return contest{
					one:   m.prepare(t, r.one, user),
					other: func(ctx context.Context) error { return r.other.DeleteUser(ctx, user.ID) },
					judge: func(one, deletion error) bool {
						if m.kind == auth.EventDeleted && one == nil {
							wantErr(t, "the second deletion", deletion, auth.ErrNoUser)
							deletion = nil
						}
						ok(t, deletion)
						r.one.deleted(t, user)
						var left int
						ok(t, r.one.database(t).QueryRowContext(t.Context(), `SELECT COUNT(*) FROM audit_log WHERE user_id = $1 AND kind = $2`, user.ID, m.kind).Scan(&left))
						if done := one == nil || m.kind == auth.EventDeleted; done != (left == 1) {
							t.Errorf("it was done: %v, and left %d entries", done, left)
						}
						if one == nil {
							return true
						}
						wantErr(t, "what came too late", one, m.late)
						return false
					},
				}
			})
		})
	}
}

func TestADeletionAndARecoveryMeet(t *testing.T) {
	race(t, func(t *testing.T, r rivals, user store.User) contest {
		event := r.one.request(user)
		var m auth.RecoveryMail
		var made bool
		return contest{
			one: func(ctx context.Context) (err error) {
				m, made, err = r.one.MakeRecovery(ctx, event)
				return err
			},
			other: func(ctx context.Context) error { return r.other.DeleteUser(ctx, user.Email) },
			judge: func(making, deletion error) bool {
				ok(t, errors.Join(making, deletion))
				r.one.deleted(t, user)
				if made {
					wantErr(t, "a reset by the mail of a user who was deleted", r.one.Reset(t.Context(), auth.Client{}, m.ID, newPassword), auth.ErrRecovery)
				}
				return made
			},
		}
	})
}

// Nothing is written down of where a request came from once its user was deleted.
func TestADeletionAndARequestMeet(t *testing.T) {
	race(t, func(t *testing.T, r rivals, user store.User) contest {
		return contest{
			one: func(ctx context.Context) error {
				if err := r.one.Recover(ctx, from("192.0.2.1"), user.Email); err != nil {
					return err
				}
				_, err := r.one.TakeRecoveries(ctx)
				return err
			},
			other: func(ctx context.Context) error { return r.other.DeleteUser(ctx, user.Email) },
			judge: func(taking, deletion error) bool {
				ok(t, errors.Join(taking, deletion))
				r.one.deleted(t, user)
				var entries, addresses int
				ok(t, r.one.database(t).QueryRowContext(t.Context(), `SELECT COUNT(CASE WHEN kind = 'user.recovery' THEN 1 END),
					COUNT(CASE WHEN address <> '' OR user_agent <> '' THEN 1 END) FROM audit_log WHERE user_id = $1`, user.ID).Scan(&entries, &addresses))
				if addresses != 0 {
					t.Errorf("%d entries say where the client was", addresses)
				}
				return entries == 1
			},
		}
	})
}

// A link to a new address is good once, and not after a new password.
func TestAConfirmationAndWhatEndsItMeet(t *testing.T) {
	for name, end := range map[string]func(s *server, v auth.Visitor, code string) operation{
		"itself": func(s *server, v auth.Visitor, code string) operation {
			return func(ctx context.Context) error { return s.ConfirmEmail(ctx, auth.Client{}, v, code) }
		},
		"another request": func(s *server, v auth.Visitor, _ string) operation {
			return func(ctx context.Context) error { return s.RequestEmail(ctx, auth.Client{}, v, "other-"+v.User.Email) }
		},
		"a new password": func(s *server, v auth.Visitor, _ string) operation {
			return chooses(s, v, newPassword, new(auth.Cookie))
		},
	} {
		t.Run(name, func(t *testing.T) {
			race(t, func(t *testing.T, r rivals, user store.User) contest {
				v, code := r.one.emailCode(t, user, "new-"+user.Email)
				return contest{
					one:   func(ctx context.Context) error { return r.one.ConfirmEmail(ctx, auth.Client{}, v, code) },
					other: end(r.other, v, code),
					judge: func(one, other error) bool {
						now := must(r.one.User(t.Context(), user.ID))(t)
						if moved := now.EmailKey == "new-"+user.EmailKey; moved != (one == nil || name == "itself") {
							t.Errorf("the address is %s, errors %v, %v", now.Email, one, other)
						}
						if one != nil {
							ok(t, other)
							wantErr(t, "what came too late", one, auth.ErrEmailCode)
							return false
						}
						switch name {
						case "itself":
							wantErr(t, "the second", other, auth.ErrEmailCode)
						case "a new password": // it was hashed for the address before
							wantErr(t, "the password", other, auth.ErrNotLoggedIn)
						default:
							ok(t, other)
						}
						return true
					},
				}
			})
		})
	}
}

func TestOneOfTwoGetsAnAddress(t *testing.T) {
	for _, made := range []bool{true, false} {
		t.Run(fmt.Sprintf("of a new account %v", made), func(t *testing.T) {
			race(t, func(t *testing.T, r rivals, user store.User) contest {
				email := "new-" + user.Email
				move := func(s *server, user store.User) operation {
					return func(ctx context.Context) error { return s.UpdateUser(ctx, user.ID, auth.UserUpdate{Email: &email}) }
				}
				c := contest{one: move(r.one, user)}
				if made {
					c.other = func(ctx context.Context) error {
						_, err := r.other.CreateUser(ctx, auth.NewUser{Email: email})
						return err
					}
				} else {
					c.other = move(r.other, r.other.user(t, "other-"+user.Email))
				}
				c.judge = func(one, other error) bool {
					late, first := other, one == nil
					if !first {
						ok(t, other)
						late = one
					}
					if late != auth.ErrUserExists { //nolint:errorlint // it is shown: nothing of the database may stand in it
						t.Fatalf("the second: error %v, want %v", late, auth.ErrUserExists)
					}
					if owner := must(r.one.User(t.Context(), email))(t); (owner.ID == user.ID) != first {
						t.Error("the second has the address")
					}
					return first
				}
				return c
			})
		})
	}
}

// A link that works never goes to an address that its user no longer has.
func TestAnAddressChangeAndARecoveryMeet(t *testing.T) {
	race(t, func(t *testing.T, r rivals, user store.User) contest {
		event := r.one.request(user)
		email := "new-" + user.Email
		var m auth.RecoveryMail
		return contest{
			one: func(ctx context.Context) (err error) {
				var made bool
				if m, made, err = r.one.MakeRecovery(ctx, event); err == nil && !made {
					err = errors.New("it was dropped")
				}
				return err
			},
			other: func(ctx context.Context) error {
				return r.other.UpdateUser(ctx, user.ID, auth.UserUpdate{Email: &email})
			},
			judge: func(making, change error) bool {
				ok(t, errors.Join(making, change))
				reset := r.one.Reset(t.Context(), auth.Client{}, m.ID, newPassword)
				if m.User.Email == user.Email {
					wantErr(t, "a reset by the mail to the old address", reset, auth.ErrRecovery)
					return true
				}
				ok(t, reset)
				return false
			},
		}
	})
}
