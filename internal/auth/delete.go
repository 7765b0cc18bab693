package auth

import (
	"cmp"
	"context"
	"slices"

	"kwai/internal/store"
)

// DeleteUser deletes an account with all that belongs to it, in one transaction. From
// then on its tokens are refused everywhere, and its address may have a new account.
// The audit log keeps its entries, with ids and without addresses. A last mail goes to
// the user. ErrNoUser if there is no such account.
func (s *Service) DeleteUser(ctx context.Context, who string) error {
	user, err := s.User(ctx, who)
	if err != nil {
		return err
	}
	change := Change{User: user}
	err = s.Store.InTx(ctx, func(tx *store.Tx) (err error) {
		change.User, change.Sessions, err = s.deleteUser(tx, operator, user.ID)
		return err
	})
	return s.changed(change, err)
}

// DeleteVisitor is DeleteUser for visitors with a fresh proof themselves; ErrNotLoggedIn
// without one, or where the session was ended meanwhile.
func (s *Service) DeleteVisitor(ctx context.Context, client Client, v Visitor) error {
	if !v.FreshForm {
		return ErrNotLoggedIn
	}
	return s.Store.InTx(ctx, func(tx *store.Tx) error {
		_, _, err := s.deleteUser(tx, byVisitor(client, v), v.ID)
		return err
	})
}

// deleteUser says whom it deleted, and how many sessions ended with that.
func (s *Service) deleteUser(tx *store.Tx, by actor, id string) (user store.User, sessions int64, err error) {
	// Requests that are looked at are written down for a user whose row isn't locked:
	// that is over before, or finds no user.
	if err := tx.Serialize(recoveryRequests); err != nil {
		return user, 0, err
	}
	// The row first: so a login, a reset and all else that locks it comes before, or
	// finds no user.
	if user, err = s.lock(tx, by, id); err != nil {
		return user, 0, err
	}
	if sessions, err = tx.CountSessions(id, tx.Now, s.Settings.lifetimes()); err != nil {
		return user, 0, err
	}
	// Of the mails only the last one is left; also to an address that the user had, and
	// that doesn't know yet that there is another one.
	dropped, err := tx.DropDeliveries(SubscriberMail, id)
	if err != nil {
		return user, 0, err
	}
	for _, step := range []func() error{
		func() error { return tx.DeleteSessions(id) },
		func() error { return tx.DropGrants(id) },
		func() error { return tx.LeaveGroups(id) },
		func() error { return tx.DropFactors(id) },
		func() error { return tx.DeleteRecoveries(id, user.EmailKey) },
		func() error { return tx.DropEmailChange(id) },
		func() error { return tx.ForgetAccount(accountOfKey(user.EmailKey)) },
		func() error { return tx.ForgetAccount(codesOf(id)) },
		func() error { return tx.DeleteUser(id) },
		func() error {
			deleted := happening{kind: EventDeleted, reason: by.how, user: id}
			return s.publishTo(tx, by.client, deleted, user.Email, cmp.Or(user.Language, by.client.Language))
		},
		func() error { return s.mailDeleted(tx, user, dropped) },
		func() error { return tx.ForgetClients(id) },
	} {
		if err := step(); err != nil {
			return user, 0, err
		}
	}
	return user, sessions, nil
}

// mailDeleted mails the deletion to those whom a notice of another address was on its
// way to: a thief who changes the address and then deletes the account must not leave
// its owner without a word.
func (s *Service) mailDeleted(tx *store.Tx, user store.User, dropped []store.Delivery) error {
	mailed := []string{user.Email}
	for _, d := range dropped {
		if d.Type != EventEmailChanged && d.Type != EventEmailNotice || slices.Contains(mailed, d.Recipient) {
			continue
		}
		mailed = append(mailed, d.Recipient)
		e := s.newEvent(tx, EventDeleted, user.ID, "")
		e.Recipient, e.Language = d.Recipient, cmp.Or(user.Language, d.Language)
		if err := tx.Publish(e, SubscriberMail); err != nil {
			return err
		}
	}
	return nil
}
