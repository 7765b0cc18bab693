package auth_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"kwai/internal/auth"
	"kwai/internal/store"
)

// leave ends the session of a cookie, or all of its user's.
func leave(s *server, v auth.Visitor, everywhere bool) operation {
	return func(ctx context.Context) error {
		if everywhere {
			if err := s.EndOtherSessions(ctx, auth.Client{}, v.Caller); err != nil {
				return err
			}
		}
		return s.LogoutVisitor(ctx, auth.Client{}, v)
	}
}

// proves has a visitor prove, and puts the cookie there.
func proves(s *server, v auth.Visitor, cookie *auth.Cookie) operation {
	return func(ctx context.Context) (err error) {
		*cookie, err = s.Prove(ctx, auth.Client{}, v, oldPassword, "")
		return err
	}
}

// chooses chooses a password, and notes the cookie that is given for it.
func chooses(s *server, v auth.Visitor, password string, next *auth.Cookie) operation {
	return func(ctx context.Context) (err error) {
		*next, err = s.ChoosePassword(ctx, auth.Client{}, v, password)
		return err
	}
}

// A login by page that meets an end of all sessions comes before it and ends with
// them, or is refused.
func TestALoginByPageAndAnEndMeet(t *testing.T) {
	for _, end := range []ending{byReset, byRevocation, bySetPassword, byChange} {
		t.Run(end.name, func(t *testing.T) {
			race(t, func(t *testing.T, r rivals, user store.User) contest {
				before := r.one.browse(t, user.Email, true)
				var cookie auth.Cookie
				return contest{
					one: func(ctx context.Context) (err error) {
						cookie, err = r.one.LoginBrowser(ctx, auth.Client{}, user.Email, oldPassword, true, "")
						return err
					},
					other: end.prepare(t, r.other, user, auth.Tokens{}),
					judge: func(login, end error) bool {
						ok(t, end)
						r.one.wantDead(t, "the cookie from before", before)
						if login == nil {
							r.one.wantDead(t, "the cookie of the login", cookie)
							return true
						}
						wantErr(t, "a login that came too late", login, auth.ErrCredentials)
						return false
					},
				}
			})
		})
	}
}

// A fresh proof revives nothing, however it met with an end of its session.
func TestAProofAndAnEndMeet(t *testing.T) {
	type meeting struct {
		end  func(t *testing.T, s *server, user store.User, v auth.Visitor) operation
		late error // of the proof
	}
	by := func(e ending) func(t *testing.T, s *server, user store.User, _ auth.Visitor) operation {
		return func(t *testing.T, s *server, user store.User, _ auth.Visitor) operation {
			return e.prepare(t, s, user, auth.Tokens{})
		}
	}
	for name, m := range map[string]meeting{
		"reset":          {by(byReset), auth.ErrCredentials},
		"revoke":         {by(byRevocation), auth.ErrCredentials},
		"end the others": {by(byEndOthers), auth.ErrNotLoggedIn},
		"logout": {func(_ *testing.T, s *server, _ store.User, v auth.Visitor) operation {
			return leave(s, v, false)
		}, auth.ErrNotLoggedIn},
		"logout everywhere": {func(_ *testing.T, s *server, _ store.User, v auth.Visitor) operation {
			return leave(s, v, true)
		}, auth.ErrNotLoggedIn},
	} {
		t.Run(name, func(t *testing.T) {
			race(t, func(t *testing.T, r rivals, user store.User) contest {
				first := r.one.browse(t, user.Email, true)
				v := r.one.visit(t, first)
				var second auth.Cookie
				return contest{
					one:   proves(r.one, v, &second),
					other: m.end(t, r.other, user, v),
					judge: func(proof, end error) bool {
						ok(t, end)
						r.one.wantDead(t, "the cookie from before", first)
						if proof == nil {
							r.one.wantDead(t, "the cookie of the proof", second)
							return true
						}
						wantErr(t, "a proof that came too late", proof, m.late)
						return false
					},
				}
			})
		})
	}
}

// Two tabs that prove at once get the same cookie, so that it doesn't matter which
// answer comes first. If one has gone on with it by then, the other is led on with that.
func TestTwoProofsInASessionMeet(t *testing.T) {
	race(t, func(t *testing.T, r rivals, user store.User) contest {
		first := r.one.browse(t, user.Email, true)
		v := r.one.visit(t, first)
		var cookies [2]auth.Cookie
		var seen [2]time.Time
		follow := func(s *server, i int) operation {
			prove := proves(s, v, &cookies[i])
			return func(ctx context.Context) error {
				if err := prove(ctx); err != nil {
					return err
				}
				_, err := s.Visitor(ctx, cookies[i].Value)
				ok(t, err)
				seen[i] = time.Now()
				return nil
			}
		}
		return contest{
			one:   follow(r.one, 0),
			other: follow(r.other, 1),
			judge: func(one, other error) bool {
				first := 0
				switch {
				case one != nil:
					wantErr(t, "a proof that came too late", one, auth.ErrNotLoggedIn)
					ok(t, other)
					first = 1
				case other != nil:
					wantErr(t, "a proof that came too late", other, auth.ErrNotLoggedIn)
				default:
					same(t, "the cookies", cookies[0], cookies[1])
					if seen[1].Before(seen[0]) {
						first = 1
					}
				}
				same(t, "the cookie's freshness", r.one.visit(t, cookies[first]).Fresh, true)
				return first == 0
			},
		}
	})
}

// A visit by the cookie from before succeeds while a proof replaces it.
func TestAVisitAndAProofMeet(t *testing.T) {
	race(t, func(t *testing.T, r rivals, user store.User) contest {
		cookie := r.one.prove(t, r.one.visit(t, r.one.browse(t, user.Email, true))) // which nobody has seen yet
		v := auth.Visitor{}
		var next auth.Cookie
		proving := proves(r.other, must(r.other.Visitor(t.Context(), cookie.Value))(t), &next)
		r.one.exec(t, `UPDATE sessions SET mark = 0 WHERE user_id = '`+user.ID+`'`) // nor now
		return contest{
			one: func(ctx context.Context) (err error) {
				v, err = r.one.Visitor(ctx, cookie.Value)
				return err
			},
			other: proving,
			judge: func(visit, proof error) bool {
				ok(t, errors.Join(visit, proof))
				same(t, "the freshness of the cookie from before", r.one.visit(t, cookie).Fresh, false)
				same(t, "the newest one's freshness", r.one.visit(t, next).Fresh, true)
				r.one.wantDead(t, "the cookie from before, once the newest came back", cookie)
				return v.Fresh
			},
		}
	})
}

// Of two passwords chosen in two sessions one is set; its session stays, alone.
func TestOneOfTwoVisitorsChoosesThePassword(t *testing.T) {
	race(t, func(t *testing.T, r rivals, user store.User) contest {
		cookies := [2]auth.Cookie{r.one.browse(t, user.Email, true), r.one.browse(t, user.Email, true)}
		passwords := [2]string{"first come, first served", "two is company, three"}
		var next [2]auth.Cookie
		return contest{
			one:   chooses(r.one, r.one.visit(t, cookies[0]), passwords[0], &next[0]),
			other: chooses(r.other, r.other.visit(t, cookies[1]), passwords[1], &next[1]),
			judge: func(one, other error) bool {
				first, late := 0, other
				if one != nil {
					ok(t, other)
					first, late = 1, one
				}
				wantErr(t, "the second change", late, auth.ErrNotLoggedIn)
				same(t, "the freshness of the first one's cookie from before", r.one.visit(t, cookies[first]).Fresh, false)
				same(t, "the first one's freshness", r.one.visit(t, next[first]).Fresh, true)
				r.one.wantDead(t, "the first one's cookie from before, once the newest came back", cookies[first])
				r.one.wantDead(t, "the second one's cookie", cookies[1-first])
				r.one.login(t, user.Email, passwords[first])
				return first == 0
			},
		}
	})
}

// A password is chosen before its session ends, or not at all.
func TestAVisitorsPasswordAndALogoutEverywhereMeet(t *testing.T) {
	race(t, func(t *testing.T, r rivals, user store.User) contest {
		cookies := [2]auth.Cookie{r.one.browse(t, user.Email, true), r.one.browse(t, user.Email, true)}
		v := r.one.visit(t, cookies[0])
		return contest{
			one:   chooses(r.one, v, newPassword, new(auth.Cookie)),
			other: leave(r.other, r.other.visit(t, cookies[1]), true),
			judge: func(change, end error) bool {
				r.one.wantDead(t, "the cookie of the logout", cookies[1])
				if change == nil { // it ended the other session, which ends nothing any longer
					wantErr(t, "a logout that came too late", end, auth.ErrNotLoggedIn)
					r.one.visit(t, cookies[0])
					r.one.login(t, user.Email, newPassword)
					return true
				}
				ok(t, end)
				wantErr(t, "a change that came too late", change, auth.ErrNotLoggedIn)
				r.one.wantDead(t, "the cookie of the change", cookies[0])
				r.one.login(t, user.Email, oldPassword)
				return false
			},
		}
	})
}

func TestAVisitorsPasswordAndAResetMeet(t *testing.T) {
	race(t, func(t *testing.T, r rivals, user store.User) contest {
		cookie := r.one.browse(t, user.Email, true)
		v := r.one.visit(t, cookie)
		id := r.other.recovery(t, user)
		passwords := [2]string{"first come, first served", "two is company, three"}
		return contest{
			one:   chooses(r.one, v, passwords[0], new(auth.Cookie)),
			other: func(ctx context.Context) error { return r.other.Reset(ctx, auth.Client{}, id, passwords[1]) },
			judge: func(change, reset error) bool {
				if change == nil {
					wantErr(t, "a reset that came too late", reset, auth.ErrRecovery)
					r.one.visit(t, cookie)
					r.one.login(t, user.Email, passwords[0])
					return true
				}
				ok(t, reset)
				wantErr(t, "a change that came too late", change, auth.ErrNotLoggedIn)
				r.one.wantDead(t, "the cookie", cookie)
				r.one.login(t, user.Email, passwords[1])
				return false
			},
		}
	})
}

// A visit that would note that the newest cookie came back comes before the deletion,
// or finds nobody.
func TestADeletionAndAVisitMeet(t *testing.T) {
	race(t, func(t *testing.T, r rivals, user store.User) contest {
		cookie := r.one.prove(t, r.one.visit(t, r.one.browse(t, user.Email, true)))
		return contest{
			one: func(ctx context.Context) error {
				_, err := r.one.Visitor(ctx, cookie.Value)
				return err
			},
			other: func(ctx context.Context) error { return r.other.DeleteUser(ctx, user.Email) },
			judge: func(visit, deletion error) bool {
				ok(t, deletion)
				r.one.deleted(t, user)
				r.one.wantDead(t, "the cookie", cookie)
				if visit == nil {
					return true
				}
				wantErr(t, "a visit that came too late", visit, auth.ErrNotLoggedIn)
				return false
			},
		}
	})
}
