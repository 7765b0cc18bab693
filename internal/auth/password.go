package auth

import (
	"cmp"
	"context"
	"errors"

	"kwai/internal/password"
	"kwai/internal/store"
)

// ChangePassword gives a user who is logged in and knows the current password a
// new one, and ends the user's recoveries and all sessions but the caller's. The
// current password may be tried as often as at a login, and is counted with those:
// a stolen access token makes no guess cheaper. What a login demands beside it is
// demanded here, too: the code, of the authenticator app or a recovery code, may be
// "" where none is. Its errors: ErrPassword for a wrong password, a *More without a
// Login where it isn't enough, ErrCode for a wrong code, Invalid for a new password that
// breaks the policy, Throttled (also after 10 changes within an hour), and
// ErrNotLoggedIn where the session was ended meanwhile.
func (s *Service) ChangePassword(ctx context.Context, client Client, caller Caller, current, chosen, code string) error {
	err := s.changePassword(ctx, client, caller, current, chosen, code)
	s.counts.count(changes, succeeded, err)
	return err
}

func (s *Service) changePassword(ctx context.Context, client Client, caller Caller, current, chosen, code string) error {
	user, err := s.userOf(ctx, caller)
	if err != nil {
		return err
	}
	// First, as it reveals nothing: it costs no attempt.
	if err := checkPassword("new_password", chosen, user); err != nil {
		return err
	}
	var fresh store.Password
	changed := false
	err = s.attempt(ctx, client, accountOfKey(user.EmailKey), func(ctx context.Context, a store.Attempt) (err error) {
		for try := 0; err == nil && !changed && try < 2; try++ {
			// Another change may come first: what was right may be wrong then.
			if try > 0 {
				user, err = s.userOf(ctx, caller)
			}
			if err == nil {
				fresh, err = s.hashChange(ctx, user, current, chosen)
			}
			if err == nil {
				changed, err = s.replacePassword(ctx, client, a, caller, proof{user: user}, fresh)
			}
		}
		return err
	})
	if more, ok := errors.AsType[*More](err); ok && more.Need == NeedCode && code != "" {
		err = s.withCode(ctx, client, user, code, func(ctx context.Context, a store.Attempt, shown proof) (err error) {
			changed, err = s.replacePassword(ctx, client, a, caller, shown, fresh)
			return err
		})
		s.counts.count(secondSteps, succeeded, err)
	}
	switch {
	case err == nil && !changed:
		err = ErrNotLoggedIn // it was changed meanwhile, or the user revoked: the session is over
	case errors.Is(err, ErrPassword):
		refused := happening{kind: AuditPasswordRefused, reason: string(reasonPassword), user: user.ID, session: caller.SessionID}
		err = s.recordRefusal(ctx, client, refused, err)
	}
	return err
}

// userOf is the caller; ErrNotLoggedIn once the user was deleted.
func (s *Service) userOf(ctx context.Context, caller Caller) (store.User, error) {
	user, err := s.Store.Read(ctx).UserByID(caller.ID)
	if errors.Is(err, store.ErrNotFound) {
		err = ErrNotLoggedIn
	}
	return user, err
}

// hashChange verifies the current password, and hashes the new one.
func (s *Service) hashChange(ctx context.Context, user store.User, current, chosen string) (fresh store.Password, err error) {
	if user.PasswordHash == "" {
		return fresh, ErrPassword
	}
	if ok, _, err := s.Passwords.Verify(ctx, user.PasswordHash, current); err != nil || !ok {
		return fresh, cmp.Or(err, error(ErrPassword))
	}
	fresh.Hash, fresh.Cost, err = s.Passwords.Hash(ctx, chosen)
	return fresh, err
}

// replacePassword returns false if the password was changed while it hashed, or the
// user revoked. A *More if what was shown is less than the account demands.
func (s *Service) replacePassword(ctx context.Context, client Client, a store.Attempt, caller Caller, shown proof, fresh store.Password) (changed bool, err error) {
	err = s.Store.InTx(ctx, func(tx *store.Tx) (err error) {
		if changed, err = s.storePassword(tx, client, caller, shown.user, fresh); err != nil || !changed {
			return err
		}
		demands, err := tx.Demands(shown.user.ID, s.passkeyHost())
		if err != nil {
			return err
		}
		if need := needOf(demands, shown); need != "" {
			return &More{Need: need}
		}
		if err := s.useUp(tx, client, shown, door{}); err != nil {
			return err
		}
		_, err = s.succeed(tx, a, shown, demands)
		return err
	})
	return changed && err == nil, err
}

// passwordsHour is how often within an hour users may change the password in a session.
const passwordsHour = 10

// storePassword stores a new password, changed from a session, on LogIn's condition;
// false if that doesn't hold. ErrNotLoggedIn if the session has ended, Throttled after
// passwordsHour changes.
func (s *Service) storePassword(tx *store.Tx, client Client, caller Caller, user store.User, fresh store.Password) (bool, error) {
	if changed, err := tx.ChangePassword(user.ID, user.AuthVersion, fresh); err != nil || !changed {
		return false, err
	}
	// Each is mailed: else one user could keep the mails of all others waiting.
	if err := s.atMost(tx, passwordsHour, EventPasswordChanged, user.ID, errOften); err != nil {
		return false, err
	}
	// Here the change and an end of this session wait for each other.
	if live, err := tx.LockSession(caller.SessionID, user.ID, s.Settings.lifetimes()); err != nil {
		return false, err
	} else if !live {
		return false, ErrNotLoggedIn
	}
	return true, s.passwordChanged(tx, client, user, caller.SessionID, ByUser)
}

// SetPassword gives the user a new password and ends the user's sessions and
// recoveries; the user gets a mail about it.
func (s *Service) SetPassword(ctx context.Context, email, pw string) error {
	user, err := s.User(ctx, email)
	if err != nil {
		return err
	}
	stored, err := s.choose(ctx, pw, user)
	if err != nil {
		return err
	}
	change := Change{User: user}
	err = s.Store.InTx(ctx, func(tx *store.Tx) error {
		now, err := tx.SetPassword(user.ID, stored)
		if err != nil {
			return gone(err)
		}
		if change.Sessions, err = tx.CountSessions(user.ID, tx.Now, s.Settings.lifetimes()); err != nil {
			return err
		}
		return s.passwordChanged(tx, Operator, now, "", ByCommand)
	})
	return s.changed(change, err)
}

// passwordChanged does what follows from a new password, in its transaction: it ends
// logins, and has the user hear of it.
func (s *Service) passwordChanged(tx *store.Tx, client Client, user store.User, keep, how string) error {
	if err := s.endLogins(tx, client, user, keep); err != nil {
		return err
	}
	return s.publish(tx, client, happening{kind: EventPasswordChanged, reason: how, user: user.ID, session: keep})
}

// endLogins ends what the password before was good for: the recoveries and the sessions
// but the one to keep, if any. It clears the failures, and the network that the user comes
// from is known from now on.
func (s *Service) endLogins(tx *store.Tx, client Client, user store.User, keep string) error {
	if err := tx.EndSessionsBut(user.ID, keep, store.EndPassword); err != nil {
		return err
	}
	if err := tx.EndRecoveries(user.ID); err != nil {
		return err
	}
	account := accountOfKey(user.EmailKey)
	if err := tx.ForgetFailures(account); err != nil {
		return err
	}
	_, err := tx.KnowNetwork(account, client.network(), tx.Now.Add(s.Settings.Limits.Remember))
	return err
}

// choose checks a new password and hashes it.
func (s *Service) choose(ctx context.Context, pw string, user store.User) (p store.Password, err error) {
	if err = checkPassword("password", pw, user); err == nil {
		p.Hash, p.Cost, err = s.Passwords.Hash(ctx, pw)
	}
	return p, err
}

// MinPassword is the least length of a new password, in code points.
const MinPassword = password.MinLength

// checkPassword says what is wrong with a password that u chooses in a field.
func checkPassword(field, pw string, u store.User) error {
	err := password.CheckPolicy(pw, u.Email, u.FirstName, u.LastName)
	if policy, ok := errors.AsType[*password.PolicyError](err); ok {
		return InvalidFields(Field{field, policy.Message, "password." + policy.Code})
	}
	return err
}

// importedHash checks a hash that was made elsewhere.
func importedHash(hash string) (store.Password, error) {
	cost, err := password.Cost(hash)
	if err != nil {
		return store.Password{}, InvalidFields(Field{Name: "hash", Message: err.Error()})
	}
	return store.Password{Hash: hash, Cost: cost}, nil
}

// decoyCost is the cost of hashing for an address without a password: one that users
// have, each as often among unknown addresses as among known ones, and always the same
// for the same address. So an imported or older hash doesn't reveal an account.
func (s *Service) decoyCost(email string) string {
	costs := s.costs.Load()
	if costs == nil || len(*costs) == 0 {
		return s.Passwords.Cost()
	}
	key, err := FoldEmail(email)
	if err != nil {
		key = email
	}
	var users int64
	for _, c := range *costs {
		users += c.Users
	}
	at := int64(s.Keys.DecoyFraction(key) * float64(users))
	for _, c := range *costs {
		if at -= c.Users; at < 0 {
			return c.Cost
		}
	}
	return (*costs)[len(*costs)-1].Cost
}

// RefreshCosts counts what the stored passwords cost to verify, so that unknown
// addresses cost what users do. The count reads an index of all users: some
// milliseconds for 100,000.
func (s *Service) RefreshCosts(ctx context.Context) error {
	costs, err := s.Store.Read(ctx).PasswordCosts()
	if err == nil {
		s.costs.Store(&costs)
	}
	return err
}
