package auth

import (
	"context"
	"errors"
	"strings"
	"unicode"
	"unicode/utf8"

	"kwai/internal/i18n"
	"kwai/internal/store"
)

// UserUpdate is what an account is made of, or what is to become of it: what is nil
// stays as it is.
type UserUpdate struct {
	Email, FirstName, LastName *string
	Language                   *string // of mails and pages, a code of package i18n; "": none is chosen
}

// UpdateUser changes an account. Another address ends the recoveries, whose links went
// to the one before, and takes the account's counts of attempts and its networks along;
// the address before gets a notice. Sessions go on. ErrUserExists if the address is
// taken, Invalid if something is wrong with the input.
func (s *Service) UpdateUser(ctx context.Context, who string, u UserUpdate) error {
	user, err := s.User(ctx, who)
	if err != nil {
		return err
	}
	change, err := s.update(ctx, operator, user, u)
	return s.changed(change, err)
}

// UpdateProfile changes what the visitor is called and the language that mails and
// pages are in; "" is none. It needs no fresh proof. Invalid if something is wrong with
// the input, Throttled after 20 changes within an hour, ErrNotLoggedIn where the session
// was ended meanwhile.
func (s *Service) UpdateProfile(ctx context.Context, client Client, v Visitor, firstName, lastName, language string) error {
	_, err := s.update(ctx, byVisitor(client, v), v.User, UserUpdate{FirstName: &firstName, LastName: &lastName, Language: &language})
	return err
}

// ownHour is how often within an hour a user may change the profile, or take the data
// along.
const ownHour = 20

func (s *Service) update(ctx context.Context, by actor, user store.User, u UserUpdate) (Change, error) {
	change := Change{User: user}
	if _, err := u.apply(user); err != nil { // before any lock
		return change, err
	}
	err := s.Store.InTx(ctx, func(tx *store.Tx) error {
		before, err := s.lock(tx, by, user.ID)
		if err != nil {
			return err
		}
		change.User, err = u.apply(before)
		change.Nothing = change.User == before
		if err == nil && !change.Nothing && by.visitor != nil {
			err = s.atMost(tx, ownHour, EventUpdated, user.ID, errOften)
		}
		if err != nil || change.Nothing {
			return err
		}
		return s.updateUser(tx, by, before, change.User)
	})
	if errors.Is(err, store.ErrTaken) {
		err = ErrUserExists
	}
	return change, err
}

// apply is the user as it is to become, if nothing is wrong with the update.
func (u UserUpdate) apply(user store.User) (_ store.User, err error) {
	if u.Email != nil {
		user.Email = strings.TrimSpace(*u.Email)
		if user.EmailKey, err = FoldEmail(user.Email); err != nil {
			return user, InvalidFields(Field{Name: "email", Message: "This is not an e-mail address."})
		}
	}
	var wrong []Field
	for _, name := range []struct {
		field   string
		is, now *string
	}{{"first_name", &user.FirstName, u.FirstName}, {"last_name", &user.LastName, u.LastName}} {
		if name.now == nil {
			continue
		}
		*name.is = strings.TrimSpace(*name.now)
		wrong = append(wrong, checkName(name.field, *name.is)...)
	}
	if len(wrong) > 0 {
		return user, InvalidFields(wrong...)
	}
	if u.Language != nil {
		user.Language = *u.Language
		if user.Language != "" && i18n.Lookup(user.Language) == nil {
			return user, InvalidFields(Field{Name: "language", Message: "It must be one of " + strings.Join(i18n.Codes(), ", ") + ", or empty."})
		}
	}
	return user, nil
}

// MaxName bounds a name, in code points.
const MaxName = 100

// checkName refuses what doesn't belong into a name and could deceive where it
// is shown: controls, line breaks, marks that change the direction of writing.
func checkName(field, name string) []Field {
	if !utf8.ValidString(name) || utf8.RuneCountInString(name) > MaxName {
		return []Field{{field, "It must be text of at most 100 characters.", "name.too_long"}}
	}
	if strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsGraphic(r) || showsNothing(r) }) {
		return []Field{{field, "It must not hold control or invisible characters.", "name.untyped"}}
	}
	return nil
}

// updateUser stores and publishes an update. The user's row is locked.
func (s *Service) updateUser(tx *store.Tx, by actor, before, after store.User) error {
	if err := tx.UpdateUser(after); err != nil {
		return err
	}
	moved := after.EmailKey != before.EmailKey
	rest := after
	if moved {
		rest.Email, rest.EmailKey = before.Email, before.EmailKey
	}
	if rest != before {
		if err := s.publish(tx, by.client, happening{kind: EventUpdated, reason: by.how, user: after.ID}); err != nil {
			return err
		}
	}
	if !moved {
		return nil
	}
	if err := tx.EndRecoveries(after.ID); err != nil {
		return err
	}
	if err := tx.DropEmailChange(after.ID); err != nil {
		return err
	}
	if err := tx.MoveAttempts(accountOfKey(before.EmailKey), accountOfKey(after.EmailKey)); err != nil {
		return err
	}
	return s.publishTo(tx, by.client, happening{kind: EventEmailChanged, reason: by.how, user: after.ID}, before.Email, by.client.Language)
}
