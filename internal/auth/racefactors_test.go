package auth_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"kwai/internal/auth"
	"kwai/internal/store"
	"kwai/internal/testing/need"
	"kwai/internal/testing/totp"
	"kwai/internal/token"
)

// raceFactors is race, hundreds of times if every test was asked for; both servers have
// the keys that secrets are sealed with.
func raceFactors(t *testing.T, prepare func(t *testing.T, r rivals, user store.User) contest) {
	raceOften(t, need.Rounds(2, 60), func(t *testing.T, r rivals, user store.User) contest {
		if len(r.one.keys(t, token.Seal)) == 0 {
			r.one.forApps(t)
			r.other.readKeys(t)
		}
		return prepare(t, r, user)
	})
}

// live is how many sessions of a user go on.
func (s *server) live(t *testing.T, user store.User) (n int) {
	t.Helper()
	ok(t, s.database(t).QueryRowContext(t.Context(), `SELECT COUNT(*) FROM sessions WHERE user_id = $1 AND ended_at IS NULL`, user.ID).Scan(&n))
	return n
}

// opened is how many sessions a user has ever had.
func (s *server) opened(t *testing.T, user store.User) (n int) {
	t.Helper()
	ok(t, s.database(t).QueryRowContext(t.Context(), `SELECT COUNT(*) FROM sessions WHERE user_id = $1`, user.ID).Scan(&n))
	return n
}

// logsIn is a login by one step, at the API or on a page.
func logsIn(s *server, user store.User, page bool) operation {
	return func(ctx context.Context) error {
		if page {
			_, err := s.LoginBrowser(ctx, auth.Client{}, user.Email, oldPassword, true, thisBrowser)
			return err
		}
		_, err := s.Login(ctx, auth.Client{}, user.Email, oldPassword)
		return err
	}
}

// wantLate holds that a login by one step came too late: it was refused, or began so late
// that it needs more.
func wantLate(t *testing.T, login error, need auth.Need) {
	t.Helper()
	if needs(login) != need && !errors.Is(login, auth.ErrCredentials) {
		t.Fatalf("a login that came too late: %v", login)
	}
}

// However a login by one step met with two steps being switched on: afterwards no session
// is live but the one that switched them on.
func TestALoginAndTwoStepsMeet(t *testing.T) {
	for name, on := range map[string]func(t *testing.T, s *server, v auth.Visitor) operation{
		"enrolment": func(t *testing.T, s *server, v auth.Visitor) operation {
			offer := must(s.OfferAuthenticator(t.Context(), v.User, "Club"))(t)
			return func(ctx context.Context) error {
				return second(s.EnrolAuthenticator(ctx, auth.Client{}, v, offer.Sealed, totp.Code(offer.Secret, s.Store.Now())))
			}
		},
		"switch": func(t *testing.T, s *server, v auth.Visitor) operation {
			p, _ := s.enrolBy(t, v, s.Store.Now())
			cookie := must(s.ContinueBrowser(t.Context(), auth.Client{}, s.halfBrowser(t, v.User.Email, auth.NeedCode), thisBrowser, p.codes[0]))(t)
			off := s.visit(t, cookie)
			must(s.SwitchTwoSteps(t.Context(), auth.Client{}, off, false))(t)
			now := s.visit(t, cookie)
			return func(ctx context.Context) error { return second(s.SwitchTwoSteps(ctx, auth.Client{}, now, true)) }
		},
	} {
		for at, page := range map[string]bool{"API": false, "page": true} {
			t.Run(name+", "+at, func(t *testing.T) {
				raceFactors(t, func(t *testing.T, r rivals, user store.User) contest {
					v := r.other.visit(t, r.other.browse(t, user.Email, true))
					return contest{
						one:   logsIn(r.one, user, page),
						other: on(t, r.other, v),
						judge: func(login, on error) bool {
							ok(t, on)
							same(t, "live sessions", r.one.live(t, user), 1)
							waiting(t, auth.NeedCode, logsIn(r.one, user, page)(t.Context()))
							if login == nil {
								return true
							}
							wantLate(t, login, auth.NeedCode)
							return false
						},
					}
				})
			})
		}
	}
}

// A login that a group's requirement overtakes opens no session; one from before goes on.
func TestALoginAndARequirementMeet(t *testing.T) {
	for name, require := range map[string]func(t *testing.T, s *server, user store.User) operation{
		"of the group": func(t *testing.T, s *server, user store.User) operation {
			group := "of-" + user.ID
			ok(t, s.CreateGroup(t.Context(), group))
			ok(t, s.AddMembers(t.Context(), group, user.Email))
			return func(ctx context.Context) error { return s.RequireTwoSteps(ctx, group, true) }
		},
		"of a new member": func(t *testing.T, s *server, user store.User) operation {
			group := "of-" + user.ID
			ok(t, s.CreateGroup(t.Context(), group))
			ok(t, s.RequireTwoSteps(t.Context(), group, true))
			return func(ctx context.Context) error { return s.AddMembers(ctx, group, user.Email) }
		},
	} {
		t.Run(name, func(t *testing.T) {
			raceFactors(t, func(t *testing.T, r rivals, user store.User) contest {
				return contest{
					one:   logsIn(r.one, user, false),
					other: require(t, r.other, user),
					judge: func(login, requirement error) bool {
						ok(t, requirement)
						waiting(t, auth.NeedEnrol, logsIn(r.one, user, false)(t.Context()))
						if login == nil {
							same(t, "live sessions", r.one.live(t, user), 1)
							return true
						}
						same(t, "live sessions", r.one.live(t, user), 0)
						wantLate(t, login, auth.NeedEnrol)
						return false
					},
				}
			})
		})
	}
}

// An authenticator app is enrolled before a reset of the factors, which removes it, or
// not at all: nothing of before opens anything.
func TestAnEnrolmentAndAResetOfFactorsMeet(t *testing.T) {
	type enrolling func(t *testing.T, s *server, user store.User) operation
	for name, enrol := range map[string]enrolling{
		"by a visitor": func(t *testing.T, s *server, user store.User) operation {
			v := s.visit(t, s.browse(t, user.Email, true))
			offer := must(s.OfferAuthenticator(t.Context(), v.User, "Club"))(t)
			return func(ctx context.Context) error {
				return second(s.EnrolAuthenticator(ctx, auth.Client{}, v, offer.Sealed, totp.Code(offer.Secret, s.Store.Now())))
			}
		},
		"at a login": func(t *testing.T, s *server, user store.User) operation {
			group := "of-" + user.ID
			ok(t, s.CreateGroup(t.Context(), group))
			ok(t, s.RequireTwoSteps(t.Context(), group, true))
			ok(t, s.AddMembers(t.Context(), group, user.Email))
			login := s.halfBrowser(t, user.Email, auth.NeedEnrol)
			offer := must(s.OfferAtLogin(t.Context(), login, thisBrowser, "Club"))(t)
			return func(ctx context.Context) error {
				return second(s.EnrolAtLogin(ctx, auth.Client{}, login, thisBrowser, offer.Sealed, totp.Code(offer.Secret, s.Store.Now())))
			}
		},
	} {
		for how, password := range map[string]string{"a new password": newPassword, "a link": ""} {
			t.Run(name+", with "+how, func(t *testing.T) {
				raceFactors(t, func(t *testing.T, r rivals, user store.User) contest {
					return contest{
						one:   enrol(t, r.one, user),
						other: func(ctx context.Context) error { return r.other.ResetFactors(ctx, user.Email, password) },
						judge: func(enrolment, reset error) bool {
							ok(t, reset)
							same(t, "live sessions", r.one.live(t, user), 0)
							f := must(r.one.Factors(t.Context(), user.ID))(t)
							same(t, "what is left", []bool{f.Authenticator, f.TwoSteps}, []bool{false, false})
							wantErr(t, "the password from before", logsIn(r.one, user, false)(t.Context()), auth.ErrCredentials)
							if enrolment == nil {
								return true
							}
							if !errors.Is(enrolment, auth.ErrForm) && !errors.Is(enrolment, auth.ErrLogin) && !errors.Is(enrolment, auth.ErrNotLoggedIn) {
								t.Fatalf("an enrolment that came too late: %v", enrolment)
							}
							return false
						},
					}
				})
			})
		}
	}
}

// known has an account know a network, as a login from there does: for passwords and codes.
func (s *server) known(t *testing.T, user store.User, network string) {
	t.Helper()
	ok(t, s.Store.InTx(t.Context(), func(tx *store.Tx) error {
		for _, account := range []string{auth.AccountOf(user.Email), "code " + user.ID} {
			if _, err := tx.KnowNetwork(account, network, tx.Now.Add(s.Settings.Limits.Remember)); err != nil {
				return err
			}
		}
		return nil
	}))
}

// counting has attempts counted, and none held back.
func (s *server) counting() {
	s.Settings.Limits.Off, s.Settings.Limits.Free, s.Settings.Limits.Most = false, 10_000, 20_000
}

// A login by password and code at once that a reset of the factors overtakes opens no
// session, and counts as no failure of the password.
func TestALoginByBothAndAResetOfFactorsMeet(t *testing.T) {
	raceFactors(t, func(t *testing.T, r rivals, user store.User) contest {
		if r.one.Settings.Limits.Off { // the first contest, before the lanes
			r.one.counting()
		}
		p := r.one.enrolled(t, user)
		r.one.known(t, user, "192.0.2.0/24")
		code := p.at(r.one.Store.Now())
		return contest{
			one: func(ctx context.Context) error {
				return second(r.one.LoginWithCode(ctx, from(home), user.Email, oldPassword, code))
			},
			other: func(ctx context.Context) error { return r.other.ResetFactors(ctx, user.Email, newPassword) },
			judge: func(login, reset error) bool {
				ok(t, reset)
				same(t, "live sessions", r.one.live(t, user), 0)
				if login == nil {
					return true
				}
				if !errors.Is(login, auth.ErrLogin) && !errors.Is(login, auth.ErrCredentials) && !errors.Is(login, auth.ErrCode) {
					t.Fatalf("a login that came too late: %v", login)
				}
				if errors.Is(login, auth.ErrLogin) {
					var failures int
					ok(t, r.one.database(t).QueryRowContext(t.Context(), `SELECT COALESCE(SUM(failures), 0) FROM attempts WHERE account = $1`, auth.AccountOf(user.Email)).Scan(&failures))
					same(t, "failures of the password", failures, 0)
				}
				return false
			},
		}
	})
}

// However the second and the third wrong code meet, one of them is the third, and is mailed.
func TestWrongCodesMeet(t *testing.T) {
	raceFactors(t, func(t *testing.T, r rivals, user store.User) contest {
		r.one.enrolled(t, user)
		types := func(s *server, address string) operation {
			login := s.half(t, user.Email)
			return func(ctx context.Context) error { return second(s.ContinueLogin(ctx, from(address), login, "000000")) }
		}
		wantErr(t, "the first", types(r.one, "203.0.113.1")(t.Context()), auth.ErrCode)
		return contest{
			one:   types(r.one, home),
			other: types(r.other, cafe),
			judge: func(one, other error) bool {
				wantErr(t, "one", one, auth.ErrCode)
				wantErr(t, "the other", other, auth.ErrCode)
				var mails int
				var third string
				ok(t, r.one.database(t).QueryRowContext(t.Context(), `SELECT COUNT(*), COALESCE(MAX(address), '') FROM audit_log WHERE kind = 'user.codes-refused' AND user_id = $1`, user.ID).Scan(&mails, &third))
				same(t, "mails", mails, 1)
				return third == cafe
			},
		}
	})
}

// A code is good for one thing: a login, or a change of the password.
func TestALoginAndAChangeOfThePasswordMeetAtACode(t *testing.T) {
	raceFactors(t, func(t *testing.T, r rivals, user store.User) contest {
		p := r.one.enrolled(t, user)
		caller := r.one.caller(t, must(r.one.enter(t, user.Email, p.codes[0]))(t))
		login, code := r.one.half(t, user.Email), p.codes[1]
		return contest{
			one: func(ctx context.Context) error { return second(r.one.ContinueLogin(ctx, auth.Client{}, login, code)) },
			other: func(ctx context.Context) error {
				return r.other.ChangePassword(ctx, auth.Client{}, caller, oldPassword, newPassword, code)
			},
			judge: func(login, change error) bool {
				if login == nil {
					wantErr(t, "the change", change, auth.ErrCode)
					r.one.half(t, user.Email) // by the password from before
					return true
				}
				ok(t, change)
				same(t, "live sessions", r.one.live(t, user), 1)
				if !errors.Is(login, auth.ErrLogin) && !errors.Is(login, auth.ErrCode) {
					t.Fatalf("the login: %v", login)
				}
				return false
			},
		}
	})
}

// A code of the app, and a recovery code, the last one too, are good once, however many
// replicas see them at the same time.
func TestACodeIsGoodOnceOnAllReplicas(t *testing.T) {
	databases(t, func(t *testing.T, url string) {
		c := newClock()
		all := []*server{start(t, url, c.now, nil).forApps(t)}
		for range 2 {
			if onSQLite(url) { // which has one server
				all = append(all, all[0])
			} else {
				all = append(all, start(t, url, c.now, all[0]))
			}
		}
		for _, s := range all { // counted, and never held back
			s.counting()
		}
		all[0].user(t, ann)
		user := all[0].home(t)
		p := all[0].enrolled(t, user)
		atOnce := func(what, code string) {
			t.Helper()
			before := all[0].opened(t, user)
			errs := make([]error, len(all))
			var begin, end sync.WaitGroup
			begin.Add(1)
			for i, s := range all {
				api, page := s.half(t, ann), s.halfBrowser(t, ann, auth.NeedCode)
				end.Go(func() {
					begin.Wait()
					switch i {
					case 0:
						errs[i] = second(s.ContinueLogin(t.Context(), auth.Client{}, api, code))
					case 1:
						errs[i] = second(s.ContinueBrowser(t.Context(), auth.Client{}, page, thisBrowser, code))
					case 2:
						errs[i] = second(s.LoginWithCode(t.Context(), from(home), ann, oldPassword, code))
					}
				})
			}
			begin.Done()
			end.Wait()
			in := 0
			for _, err := range errs {
				if err == nil {
					in++
				} else if !errors.Is(err, auth.ErrCode) {
					t.Fatalf("%s: %v", what, err)
				}
			}
			if opened := all[0].opened(t, user) - before; in != 1 || opened != 1 {
				t.Fatalf("%s: %d were let in, and %d sessions opened", what, in, opened)
			}
		}
		for range need.Rounds(10, 300) {
			c.advance(30 * time.Second)
			atOnce("a code", p.at(c.now()))
		}
		for range need.Rounds(1, 30) {
			for i, code := range p.codes {
				atOnce("a recovery code", code)
				same(t, "codes left", must(all[0].Factors(t.Context(), user.ID))(t).RecoveryCodes, int64(9-i))
			}
			c.advance(4 * time.Minute) // another app may be chosen only so often an hour
			p = all[0].enrolAgain(t, c, p)
			all[1].readKeys(t)
		}
	})
}
