package auth

import (
	"context"
	"errors"
	"iter"
	"strings"

	"github.com/google/uuid"

	"kwai/internal/store"
)

// NewUser is an account to be made. With neither Password nor Hash the user is
// mailed a link to choose a password.
type NewUser struct {
	Email, FirstName, LastName string
	Language                   string // of mails and pages, a code of package i18n; "": none is chosen
	Password                   string
	Hash                       string // a bcrypt or argon2id hash made elsewhere
	Unverified                 bool   // the operator doesn't know that the mailbox is the user's
}

// CreateUser makes an account and returns its id. ErrUserExists if the address
// is taken, Invalid if something is wrong with the input.
func (s *Service) CreateUser(ctx context.Context, n NewUser) (id string, err error) {
	user, err := newUser(UserUpdate{&n.Email, &n.FirstName, &n.LastName, &n.Language})
	if err != nil {
		return "", err
	}
	var stored store.Password
	switch {
	case n.Hash != "":
		stored, err = importedHash(n.Hash)
	case n.Password != "":
		stored, err = s.choose(ctx, n.Password, user)
	}
	if err != nil {
		return "", err
	}
	err = s.Store.InTx(ctx, func(tx *store.Tx) error {
		if !n.Unverified {
			user.EmailProvenAt = tx.Now
		}
		if ok, err := tx.InsertUser(user, stored); err != nil {
			return err
		} else if !ok {
			return ErrUserExists
		}
		user.PasswordHash = stored.Hash
		return s.publishMade(tx, user, true)
	})
	if err != nil {
		return "", err
	}
	return user.ID, nil
}

// Invite mails a user who has no password yet a link to choose one, as if the
// account were new; links from before end. ErrHasPassword, ErrUserRevoked.
func (s *Service) Invite(ctx context.Context, email string) (store.User, error) {
	user, err := s.User(ctx, email)
	if err != nil {
		return user, err
	}
	err = s.Store.InTx(ctx, func(tx *store.Tx) error {
		now, err := tx.LockUser(user.ID)
		switch {
		case err != nil:
			return gone(err)
		case !now.RevokedAt.IsZero():
			return ErrUserRevoked
		case now.PasswordHash != "":
			return ErrHasPassword
		}
		return s.publish(tx, Operator, happening{kind: EventInvitation, reason: ByCommand, user: user.ID})
	})
	return user, err
}

// newUser checks what an account is made of; it has an id of its own.
func newUser(u UserUpdate) (store.User, error) {
	return u.apply(store.User{Profile: store.Profile{ID: uuid.NewString()}})
}

// Change is what a command changed, and whose.
type Change struct {
	store.User
	Nothing  bool  // it was so already
	Sessions int64 // that were ended
	Failures int64 // that are forgotten
}

// gone is the error of a user who was deleted since the command found the account.
func gone(err error) error {
	if errors.Is(err, store.ErrNotFound) {
		return ErrNoUser
	}
	return err
}

func (s *Service) changed(c Change, err error) error {
	if err == nil && s.Changed != nil {
		s.Changed(c)
	}
	return err
}

// User finds an account by its address or its id; a NotFound error if there is
// none. It is for operators: tokens, events and logs name users by their ids.
func (s *Service) User(ctx context.Context, who string) (store.User, error) {
	if id, err := uuid.Parse(who); err == nil && len(who) == len(id.String()) {
		user, err := s.Store.Read(ctx).UserByID(id.String())
		if errors.Is(err, store.ErrNotFound) {
			err = errNoUserID
		}
		return user, err
	}
	user, err := s.findUser(ctx, who)
	if err == nil && user.ID == "" {
		err = ErrNoUser
	}
	return user, err
}

// pageSize is how many rows are read at once.
const pageSize = 500

// paged reads pages of rows, each beginning behind the last row's key, and ends with
// the first error.
func paged[T any](after string, read func(after string, n int) ([]T, error), key func(T) string) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		for {
			page, err := read(after, pageSize)
			if err != nil {
				var none T
				yield(none, err)
				return
			}
			for _, row := range page {
				if !yield(row, nil) {
					return
				}
				after = key(row)
			}
			if len(page) < pageSize {
				return
			}
		}
	}
}

// UserFilter says which accounts are looked for; zero: all.
type UserFilter struct {
	Locked  bool // failures keep unknown networks from logging in
	Revoked bool
	Invited bool   // no password is chosen yet, and the user isn't revoked
	Search  string // stands in the address, the name or the id, in capitals or not
}

// FindUsers lists accounts in the order of their addresses.
func (s *Service) FindUsers(ctx context.Context, f UserFilter) iter.Seq2[store.User, error] {
	search := fold(f.Search)
	return func(yield func(store.User, error) bool) {
		locked := make(map[string]bool)
		if f.Locked {
			accounts, err := s.Store.Read(ctx).LockedAccounts(int64(s.Settings.Limits.Most), s.Store.Now())
			if err != nil {
				yield(store.User{}, err)
				return
			}
			for _, account := range accounts {
				locked[account] = true
			}
		}
		for u, err := range paged("", s.Store.Read(ctx).UsersAfter, func(u store.User) string { return u.EmailKey }) {
			if err == nil {
				switch text := fold(u.Email + " " + u.FirstName + " " + u.LastName + " " + u.ID + " " + u.EmailKey); {
				case f.Locked && !locked[accountOfKey(u.EmailKey)] && !locked[codesOf(u.ID)],
					f.Revoked && u.RevokedAt.IsZero(),
					f.Invited && (u.PasswordHash != "" || !u.RevokedAt.IsZero()),
					!strings.Contains(text, search):
					continue
				}
			}
			if !yield(u, err) {
				return
			}
		}
	}
}

// Revoke keeps the user from logging in and ends all sessions at once. The recoveries
// stay: until Reinstate, after which they work again, the answer to them is ErrRevoked.
func (s *Service) Revoke(ctx context.Context, email string) error {
	return s.change(ctx, email, EventRevoked, func(tx *store.Tx, change *Change) (bool, error) {
		changed, err := tx.Revoke(change.ID)
		if err != nil || !changed {
			// A revoked user has no session. One that is opened from here on, after a
			// Reinstate meanwhile, is not for this to end.
			return false, err
		}
		if change.Sessions, err = tx.CountSessions(change.ID, tx.Now, s.Settings.lifetimes()); err != nil {
			return false, err
		}
		return true, tx.EndSessions(change.ID, store.EndRevoked)
	})
}

// Reinstate lets a revoked user log in again; it revives no session.
func (s *Service) Reinstate(ctx context.Context, email string) error {
	return s.change(ctx, email, EventReinstated, func(tx *store.Tx, change *Change) (bool, error) { return tx.Reinstate(change.ID) })
}

// change has a command change something of an account, and publishes it.
func (s *Service) change(ctx context.Context, email, event string, fn func(*store.Tx, *Change) (changed bool, err error)) error {
	user, err := s.User(ctx, email)
	if err != nil {
		return err
	}
	change := Change{User: user}
	err = s.Store.InTx(ctx, func(tx *store.Tx) error {
		if _, err := tx.LockUser(user.ID); err != nil {
			return gone(err)
		}
		changed, err := fn(tx, &change)
		change.Nothing = !changed
		if err != nil || !changed {
			return err
		}
		return s.publish(tx, Operator, happening{kind: event, reason: ByCommand, user: user.ID})
	})
	return s.changed(change, err)
}
