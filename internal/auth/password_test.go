package auth_test

import (
	"context"
	"errors"
	"testing"

	"kwai/internal/auth"
	"kwai/internal/store"
)

const third = "twelve orange lanterns" // a password

// gone is one of the ways in which a change learns that its session is over or
// its user's password another one.
func gone(t *testing.T, what string, err error) {
	t.Helper()
	if !errors.Is(err, auth.ErrNotLoggedIn) && !errors.Is(err, auth.ErrPassword) {
		t.Fatalf("%s: error %v", what, err)
	}
}

func TestAPasswordChangeAndAResetMeet(t *testing.T) {
	race(t, func(t *testing.T, r rivals, user store.User) contest {
		in := r.one.login(t, user.Email, oldPassword)
		caller, id := r.one.caller(t, in), r.other.recovery(t, user)
		return contest{
			one: func(ctx context.Context) error {
				return r.one.ChangePassword(ctx, auth.Client{}, caller, oldPassword, newPassword, "")
			},
			other: func(ctx context.Context) error { return r.other.Reset(ctx, auth.Client{}, id, third) },
			judge: func(change, reset error) bool {
				if change == nil {
					wantErr(t, "a reset that came too late", reset, auth.ErrRecovery)
					r.other.alive(t, in)
					r.other.login(t, user.Email, newPassword)
					return true
				}
				gone(t, "a change that came too late", change)
				ok(t, reset)
				r.one.dead(t, user, in)
				r.one.login(t, user.Email, third)
				return false
			},
		}
	})
}

// Whatever ends the session while the new password is hashed keeps it from being
// set.
func TestAPasswordChangeAndTheEndOfItsSessionMeet(t *testing.T) {
	for _, end := range []struct {
		name string
		end  func(ctx context.Context, s *server, user store.User, in auth.Tokens) error
	}{
		{"logout", func(ctx context.Context, s *server, user store.User, in auth.Tokens) error {
			return s.Logout(ctx, auth.Client{}, auth.Caller{Profile: user.Profile}, in.Refresh)
		}},
		{"revoke", func(ctx context.Context, s *server, user store.User, _ auth.Tokens) error {
			return s.Revoke(ctx, user.Email)
		}},
	} {
		t.Run(end.name, func(t *testing.T) {
			race(t, func(t *testing.T, r rivals, user store.User) contest {
				in := r.one.login(t, user.Email, oldPassword)
				caller := r.one.caller(t, in)
				return contest{
					one: func(ctx context.Context) error {
						return r.one.ChangePassword(ctx, auth.Client{}, caller, oldPassword, newPassword, "")
					},
					other: func(ctx context.Context) error { return end.end(ctx, r.other, user, in) },
					judge: func(change, ended error) bool {
						ok(t, ended)
						r.one.dead(t, user, in)
						ok(t, r.one.Reinstate(t.Context(), user.Email))
						if change == nil {
							r.other.login(t, user.Email, newPassword)
							return true
						}
						wantErr(t, "a change that came too late", change, auth.ErrNotLoggedIn)
						r.other.login(t, user.Email, oldPassword)
						return false
					},
				}
			})
		})
	}
}

func TestOneOfTwoPasswordChangesSucceeds(t *testing.T) {
	race(t, func(t *testing.T, r rivals, user store.User) contest {
		first, second := r.one.login(t, user.Email, oldPassword), r.other.login(t, user.Email, oldPassword)
		one, other := r.one.caller(t, first), r.other.caller(t, second)
		return contest{
			one: func(ctx context.Context) error {
				return r.one.ChangePassword(ctx, auth.Client{}, one, oldPassword, newPassword, "")
			},
			other: func(ctx context.Context) error {
				return r.other.ChangePassword(ctx, auth.Client{}, other, oldPassword, third, "")
			},
			judge: func(oneErr, otherErr error) bool {
				won, lost, lostErr, password := first, second, otherErr, newPassword
				if oneErr != nil {
					ok(t, otherErr)
					won, lost, lostErr, password = second, first, oneErr, third
				}
				gone(t, "the second change", lostErr)
				r.one.alive(t, won)
				r.one.dead(t, user, lost)
				r.one.login(t, user.Email, password)
				return oneErr == nil
			},
		}
	})
}

// From one session, too, which both leave alive: the second finds another password
// than it was given.
func TestOfTwoPasswordChangesFromOneSessionOneSucceeds(t *testing.T) {
	race(t, func(t *testing.T, r rivals, user store.User) contest {
		in := r.one.login(t, user.Email, oldPassword)
		caller := r.one.caller(t, in)
		return contest{
			one: func(ctx context.Context) error {
				return r.one.ChangePassword(ctx, auth.Client{}, caller, oldPassword, newPassword, "")
			},
			other: func(ctx context.Context) error {
				return r.other.ChangePassword(ctx, auth.Client{}, caller, oldPassword, third, "")
			},
			judge: func(one, other error) bool {
				lost, password := other, newPassword
				if one != nil {
					ok(t, other)
					lost, password = one, third
				}
				wantErr(t, "the second change", lost, auth.ErrPassword)
				r.one.alive(t, in)
				r.one.login(t, user.Email, password)
				return one == nil
			},
		}
	})
}

// A login that hashes the same password anew comes between a change's look at the
// old hash and its write: that is no change.
func TestAPasswordChangeAndALoginMeetAtAnImportedHash(t *testing.T) {
	hash := bcryptOf(t, oldPassword)
	race(t, func(t *testing.T, r rivals, user store.User) contest {
		in := r.one.login(t, user.Email, oldPassword)
		caller := r.one.caller(t, in)
		must(r.one.database(t).ExecContext(t.Context(), `UPDATE users SET password_hash = $1 WHERE id = $2`, hash, user.ID))(t)
		return contest{
			one: func(ctx context.Context) error {
				return r.one.ChangePassword(ctx, auth.Client{}, caller, oldPassword, newPassword, "")
			},
			other: func(ctx context.Context) error {
				_, err := r.other.Login(ctx, auth.Client{}, user.Email, oldPassword)
				return err
			},
			judge: func(change, login error) bool {
				ok(t, change)
				r.one.alive(t, in)
				r.one.login(t, user.Email, newPassword)
				if login == nil {
					return false
				}
				wantErr(t, "a login that came too late", login, auth.ErrCredentials)
				return true
			},
		}
	})
}

func TestAPasswordChangeOfAnImportedHash(t *testing.T) {
	hash := bcryptOf(t, oldPassword)
	each(t, func(t *testing.T, s *server, _ *clock) {
		must(s.CreateUser(t.Context(), auth.NewUser{Email: ann, Hash: hash}))(t)
		in := s.login(t, ann, oldPassword)
		ok(t, s.ChangePassword(t.Context(), auth.Client{}, s.caller(t, in), oldPassword, newPassword, ""))
		s.alive(t, in)
	})
}
