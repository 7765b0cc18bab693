package auth_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"kwai/internal/auth"
	"kwai/internal/store"
	"kwai/internal/token"
)

// raceForApps is race for a visitor at an app; both servers have the keys of apps.
func raceForApps(t *testing.T, prepare func(t *testing.T, r rivals, user store.User, v auth.Visitor, a store.App) contest) {
	race(t, func(t *testing.T, r rivals, user store.User) contest {
		if len(r.one.keys(t, token.Seal)) == 0 {
			r.one.forApps(t)
			r.other.readKeys(t)
		}
		a, err := r.one.App(t.Context(), "wiki")
		if auth.CodeOf(err) == auth.NotFound {
			a, _ = r.one.app(t, "wiki")
		} else {
			ok(t, err)
		}
		return prepare(t, r, user, r.one.visit(t, r.one.browse(t, user.Email, true)), a)
	})
}

// exchanges has an app exchange a code.
func exchanges(s *server, a store.App, code string, tokens *auth.AppTokens) operation {
	return func(ctx context.Context) (err error) {
		*tokens, err = s.Exchange(ctx, auth.Client{}, a, code, a.RedirectURIs[0], verifier)
		return err
	}
}

// refreshes has an app refresh its tokens.
func refreshes(s *server, a store.App, before auth.AppTokens, tokens *auth.AppTokens) operation {
	return func(ctx context.Context) (err error) {
		*tokens, err = s.RenewApp(ctx, auth.Client{}, a, before.Refresh, s.Store.Now())
		return err
	}
}

// heard is how many logouts of a user apps are to hear of.
func (s *server) heard(t *testing.T, user store.User) (n int) {
	t.Helper()
	ok(t, s.database(t).QueryRowContext(t.Context(), `SELECT COUNT(*) FROM logouts WHERE user_id = $1`, user.ID).Scan(&n))
	return n
}

// Of two exchanges of one code one gets tokens, and the other ends them: one of the two
// is a thief's.
func TestTwoExchangesMeet(t *testing.T) {
	raceForApps(t, func(t *testing.T, r rivals, user store.User, v auth.Visitor, a store.App) contest {
		code := r.one.code(t, v, a)
		var tokens [2]auth.AppTokens
		return contest{
			one:   exchanges(r.one, a, code, &tokens[0]),
			other: exchanges(r.other, a, code, &tokens[1]),
			judge: func(one, other error) bool {
				first := 0
				if one != nil {
					first, one, other = 1, other, one
				}
				ok(t, one)
				wantErr(t, "the second exchange", other, auth.ErrGrant)
				r.one.appDead(t, a, tokens[first])
				r.other.appDead(t, a, tokens[first])
				var n int
				ok(t, r.one.database(t).QueryRowContext(t.Context(), `SELECT COUNT(*) FROM app_sessions WHERE user_id = $1`, user.ID).Scan(&n))
				same(t, "sessions", n, 1)
				return first == 0
			},
		}
	})
}

// endings of a visitor's browser session.
type appEnding struct {
	name    string
	prepare func(t *testing.T, s *server, user store.User, v auth.Visitor, a store.App) operation
}

func appEndings() (all []appEnding) {
	for _, e := range []ending{byReset, byRevocation, bySetPassword, byChange, byDeletion, byEndOthers} {
		all = append(all, appEnding{e.name, func(t *testing.T, s *server, user store.User, _ auth.Visitor, _ store.App) operation {
			return e.prepare(t, s, user, auth.Tokens{})
		}})
	}
	return append(all,
		appEnding{"logout", func(_ *testing.T, s *server, _ store.User, v auth.Visitor, _ store.App) operation {
			return leave(s, v, false)
		}},
		appEnding{"end by command", func(_ *testing.T, s *server, user store.User, _ auth.Visitor, _ store.App) operation {
			return func(ctx context.Context) error { return s.EndUserSessions(ctx, user.Email) }
		}},
		appEnding{"password elsewhere", func(t *testing.T, s *server, user store.User, _ auth.Visitor, _ store.App) operation {
			return chooses(s, s.visit(t, s.browse(t, user.Email, true)), newPassword, new(auth.Cookie))
		}},
		appEnding{"take back", takesBack},
	)
}

func takesBack(_ *testing.T, s *server, _ store.User, v auth.Visitor, a store.App) operation {
	return func(ctx context.Context) error { return s.TakeBack(ctx, auth.Client{}, v, a.ID) }
}

// A code that meets an end comes before it, and ends with it, or is refused. The app
// hears of what it had.
func TestAnExchangeAndAnEndMeet(t *testing.T) {
	for _, end := range appEndings() {
		t.Run(end.name, func(t *testing.T) {
			raceForApps(t, func(t *testing.T, r rivals, user store.User, v auth.Visitor, a store.App) contest {
				code := r.one.code(t, v, a)
				var tokens auth.AppTokens
				return contest{
					one:   exchanges(r.one, a, code, &tokens),
					other: end.prepare(t, r.other, user, v, a),
					judge: func(exchange, end error) bool {
						ok(t, end)
						_, err := r.one.tryExchange(t, a, code)
						wantErr(t, "the code afterwards", err, auth.ErrGrant)
						if exchange == nil {
							r.one.appDead(t, a, tokens)
							same(t, "logouts", r.one.heard(t, user), 1)
							return true
						}
						wantErr(t, "an exchange that came too late", exchange, auth.ErrGrant)
						return false
					},
				}
			})
		})
	}
}

// A refresh revives nothing, however it met with an end.
func TestARefreshAndAnEndMeet(t *testing.T) {
	for _, end := range appEndings() {
		t.Run(end.name, func(t *testing.T) {
			raceForApps(t, func(t *testing.T, r rivals, user store.User, v auth.Visitor, a store.App) contest {
				before := r.one.exchange(t, a, r.one.code(t, v, a))
				var tokens auth.AppTokens
				return contest{
					one:   refreshes(r.one, a, before, &tokens),
					other: end.prepare(t, r.other, user, v, a),
					judge: func(refresh, end error) bool {
						ok(t, end)
						r.one.appDead(t, a, before)
						same(t, "logouts", r.one.heard(t, user), 1)
						if refresh == nil {
							r.one.appDead(t, a, tokens)
							return true
						}
						wantErr(t, "a refresh that came too late", refresh, auth.ErrGrant)
						return false
					},
				}
			})
		})
	}
}

// An own new password comes before the exchange, which is refused, or keeps what came of
// it.
func TestAnExchangeAndAnOwnPasswordMeet(t *testing.T) {
	raceForApps(t, func(t *testing.T, r rivals, user store.User, v auth.Visitor, a store.App) contest {
		code := r.one.code(t, v, a)
		var tokens auth.AppTokens
		return contest{
			one:   exchanges(r.one, a, code, &tokens),
			other: chooses(r.other, v, newPassword, new(auth.Cookie)),
			judge: func(exchange, change error) bool {
				ok(t, change)
				if exchange == nil {
					r.one.appAlive(t, a, tokens)
					return true
				}
				wantErr(t, "an exchange that came too late", exchange, auth.ErrGrant)
				return false
			},
		}
	})
}

// Two refreshes at once get the same token.
func TestTwoRefreshesMeet(t *testing.T) {
	raceForApps(t, func(t *testing.T, r rivals, _ store.User, v auth.Visitor, a store.App) contest {
		before := r.one.exchange(t, a, r.one.code(t, v, a))
		var tokens [2]auth.AppTokens
		var ends [2]time.Time
		follow := func(s *server, i int) operation {
			refresh := refreshes(s, a, before, &tokens[i])
			return func(ctx context.Context) error {
				err := refresh(ctx)
				ends[i] = time.Now()
				return err
			}
		}
		return contest{
			one:   follow(r.one, 0),
			other: follow(r.other, 1),
			judge: func(one, other error) bool {
				ok(t, errors.Join(one, other))
				same(t, "the refresh tokens", tokens[0].Refresh, tokens[1].Refresh)
				r.one.appAlive(t, a, tokens[0])
				return ends[0].Before(ends[1])
			},
		}
	})
}

// The deletion of an app leaves no session and no grant that works, and no operation
// fails in another way than it does without the app.
func TestADeletionOfAnAppMeets(t *testing.T) {
	for name, m := range map[string]struct {
		do   func(s *server, v auth.Visitor, a store.App, code string, before auth.AppTokens, tokens *auth.AppTokens) operation
		late func(error) bool
	}{
		"exchange": {
			func(s *server, _ auth.Visitor, a store.App, code string, _ auth.AppTokens, tokens *auth.AppTokens) operation {
				return exchanges(s, a, code, tokens)
			},
			func(err error) bool { return errors.Is(err, auth.ErrGrant) },
		},
		"refresh": {
			func(s *server, _ auth.Visitor, a store.App, _ string, before auth.AppTokens, tokens *auth.AppTokens) operation {
				return refreshes(s, a, before, tokens)
			},
			func(err error) bool { return errors.Is(err, auth.ErrGrant) },
		},
		"grant": {
			func(s *server, v auth.Visitor, a store.App, _ string, _ auth.AppTokens, _ *auth.AppTokens) operation {
				return func(ctx context.Context) error {
					_, _, err := s.Authorize(ctx, auth.Client{}, v, s.asks(a, "email"), true)
					return err
				}
			},
			func(err error) bool { return auth.CodeOf(err) == auth.NotFound },
		},
		"take back": {
			func(s *server, v auth.Visitor, a store.App, _ string, _ auth.AppTokens, _ *auth.AppTokens) operation {
				return takesBack(nil, s, store.User{}, v, a)
			},
			func(error) bool { return false },
		},
		"logout": {
			func(s *server, v auth.Visitor, _ store.App, _ string, _ auth.AppTokens, _ *auth.AppTokens) operation {
				return leave(s, v, false)
			},
			func(error) bool { return false },
		},
	} {
		t.Run(name, func(t *testing.T) {
			raceForApps(t, func(t *testing.T, r rivals, user store.User, v auth.Visitor, _ store.App) contest {
				a, _ := r.one.app(t, "app-"+user.ID)
				code, before := r.one.code(t, v, a), r.one.exchange(t, a, r.one.code(t, v, a))
				var tokens auth.AppTokens
				var ends [2]time.Time
				do := m.do(r.one, v, a, code, before, &tokens)
				return contest{
					one: func(ctx context.Context) error {
						err := do(ctx)
						ends[0] = time.Now()
						return err
					},
					other: func(ctx context.Context) error {
						err := r.other.DeleteApp(ctx, a.ID)
						ends[1] = time.Now()
						return err
					},
					judge: func(one, deletion error) bool {
						ok(t, deletion)
						for _, all := range []auth.AppTokens{before, tokens} {
							_, err := r.one.UserInfo(t.Context(), all.Access)
							wantErr(t, "a token afterwards", err, auth.ErrNotLoggedIn)
						}
						_, err := r.one.Authenticate(t.Context(), a.ID, "")
						wantErr(t, "the app", err, auth.ErrClient)
						_, err = r.one.tryExchange(t, a, code)
						wantErr(t, "the code", err, auth.ErrGrant)
						for _, table := range []string{"grants", "apps"} {
							column := map[string]string{"grants": "app_id", "apps": "id"}[table]
							same(t, "rows of "+table, r.one.count(t, `SELECT COUNT(*) FROM `+table+` WHERE `+column+` = '`+a.ID+`'`), 0)
						}
						if one == nil {
							return ends[0].Before(ends[1])
						}
						if !m.late(one) {
							t.Fatalf("what came too late: %v", one)
						}
						return false
					},
				}
			})
		})
	}
}

// What ends several sessions of apps at once waits for what does so, too, and for
// nothing that waits for it.
func TestTwoEndsOfAppSessionsMeet(t *testing.T) {
	logsOut := func(s *server, v auth.Visitor, _ store.App, _ auth.Hint) operation { return leave(s, v, false) }
	for name, other := range map[string]func(t *testing.T, s *server, user store.User, v auth.Visitor, a store.App, h auth.Hint) operation{
		"deletion": func(_ *testing.T, s *server, user store.User, _ auth.Visitor, _ store.App, _ auth.Hint) operation {
			return func(ctx context.Context) error { return s.DeleteUser(ctx, user.Email) }
		},
		"reset": func(t *testing.T, s *server, user store.User, _ auth.Visitor, _ store.App, _ auth.Hint) operation {
			return byReset.prepare(t, s, user, auth.Tokens{})
		},
		"take back": func(t *testing.T, s *server, user store.User, _ auth.Visitor, a store.App, _ auth.Hint) operation {
			return takesBack(t, s, user, s.visit(t, s.browse(t, user.Email, true)), a)
		},
		"the app": func(_ *testing.T, s *server, _ store.User, _ auth.Visitor, _ store.App, h auth.Hint) operation {
			return func(ctx context.Context) error { return s.LogoutApp(ctx, auth.Client{}, h) }
		},
		"another logout": func(t *testing.T, s *server, user store.User, _ auth.Visitor, a store.App, _ auth.Hint) operation {
			v := s.visit(t, s.browse(t, user.Email, true))
			s.exchange(t, a, s.code(t, v, a))
			return leave(s, v, false)
		},
		"login elsewhere": func(_ *testing.T, s *server, user store.User, _ auth.Visitor, _ store.App, _ auth.Hint) operation {
			return func(ctx context.Context) error {
				_, err := s.LoginBrowser(ctx, auth.Client{}, user.Email, oldPassword, true, "")
				return err
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			raceForApps(t, func(t *testing.T, r rivals, user store.User, v auth.Visitor, a store.App) contest {
				var all []auth.AppTokens
				for range 5 {
					all = append(all, r.one.exchange(t, a, r.one.code(t, v, a)))
				}
				hint, _, err := r.one.ReadHint(t.Context(), all[0].ID)
				ok(t, err)
				var ends [2]time.Time
				timed := func(i int, do operation) operation {
					return func(ctx context.Context) error {
						err := do(ctx)
						ends[i] = time.Now()
						return err
					}
				}
				return contest{
					one:   timed(0, logsOut(r.one, v, a, hint)),
					other: timed(1, other(t, r.other, user, v, a, hint)),
					judge: func(one, other error) bool {
						ok(t, errors.Join(one, other))
						r.one.appDead(t, a, all...)
						n := 0
						ok(t, r.one.database(t).QueryRowContext(t.Context(), `SELECT COUNT(*) FROM logouts WHERE user_id = $1 AND sid = $2`, user.ID, hint.SID).Scan(&n))
						if n != 1 && (name != "the app" || n != 0) {
							t.Errorf("the app is to hear %d times", n)
						}
						return ends[0].Before(ends[1])
					},
				}
			})
		})
	}
}

// One who leaves a group while a code is exchanged gets nothing from then on.
func TestAnExchangeAndALostGroupMeet(t *testing.T) {
	raceForApps(t, func(t *testing.T, r rivals, user store.User, v auth.Visitor, _ store.App) contest {
		if len(must(r.one.Store.Read(t.Context()).Groups())(t)) == 0 {
			ok(t, r.one.CreateGroup(t.Context(), "staff"))
			r.one.app(t, "intern", func(a *store.App) { a.Groups = []string{"staff"} })
		}
		a := must(r.one.App(t.Context(), "intern"))(t)
		ok(t, r.one.AddMembers(t.Context(), "staff", user.Email))
		code := r.one.code(t, v, a)
		var tokens auth.AppTokens
		return contest{
			one:   exchanges(r.one, a, code, &tokens),
			other: func(ctx context.Context) error { return r.other.RemoveMembers(ctx, "staff", user.Email) },
			judge: func(exchange, removal error) bool {
				ok(t, removal)
				if exchange == nil {
					r.one.appDead(t, a, tokens)
					return true
				}
				wantErr(t, "an exchange that came too late", exchange, auth.ErrGrant)
				return false
			},
		}
	})
}

// Users join groups in whatever order they are named: nobody waits for each other.
func TestTwoChangesOfGroupsMeet(t *testing.T) {
	race(t, func(t *testing.T, r rivals, user store.User) contest {
		second := r.one.user(t, "second-"+user.Email)
		if len(must(r.one.Store.Read(t.Context()).Groups())(t)) == 0 {
			ok(t, r.one.CreateGroup(t.Context(), "staff"))
			ok(t, r.one.CreateGroup(t.Context(), "board"))
		}
		var ends [2]time.Time
		join := func(s *server, i int, group string, who ...string) operation {
			return func(ctx context.Context) error {
				err := s.AddMembers(ctx, group, who...)
				ends[i] = time.Now()
				return err
			}
		}
		return contest{
			one:   join(r.one, 0, "staff", user.Email, second.Email),
			other: join(r.other, 1, "board", second.Email, user.Email),
			judge: func(one, other error) bool {
				ok(t, errors.Join(one, other))
				for _, u := range []store.User{user, second} {
					same(t, "groups", must(r.one.Store.Read(t.Context()).GroupsOf(u.ID))(t), []string{"board", "staff"})
				}
				return ends[0].Before(ends[1])
			},
		}
	})
}

// A visit with a cookie that comes for the first time, and goes on to an app, meets a new
// password that is chosen with the cookie before: either the password is refused, since that
// cookie is dead by the visit, or the visit comes after it, and its code is good.
func TestAFirstVisitAndAnOwnPasswordMeet(t *testing.T) {
	raceForApps(t, func(t *testing.T, r rivals, _ store.User, v auth.Visitor, a store.App) contest {
		cookie := r.one.prove(t, v)
		var code string
		return contest{
			one: func(ctx context.Context) error {
				v, err := r.one.Visitor(ctx, cookie.Value)
				if err == nil {
					code, _, err = r.one.Authorize(ctx, auth.Client{}, v, r.one.asks(a), false)
				}
				return err
			},
			other: chooses(r.other, v, newPassword, new(auth.Cookie)),
			judge: func(visit, password error) bool {
				ok(t, visit)
				if password != nil {
					wantErr(t, "the password", password, auth.ErrNotLoggedIn)
					return true
				}
				r.one.exchange(t, a, code)
				return false
			},
		}
	})
}
