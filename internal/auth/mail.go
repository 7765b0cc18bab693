package auth

import (
	"context"
	"errors"
	"iter"

	"kwai/internal/store"
)

// Undelivered is a mail that waits to be delivered, or was given up.
type Undelivered struct {
	store.Delivery
	Email string // of whom it is for
}

// UndeliveredMail lists the mail that wasn't delivered, the oldest first. What
// is added while it is read is left out.
func (s *Service) UndeliveredMail(ctx context.Context) iter.Seq2[Undelivered, error] {
	return func(yield func(Undelivered, error) bool) {
		end := newID(s.Store.Now()) // ids are sorted by time
		r := s.Store.Read(ctx)
		for d, err := range paged("", func(after string, n int) ([]store.Delivery, error) { return r.Deliveries(SubscriberMail, after, n) },
			func(d store.Delivery) string { return d.ID }) {
			email := d.Recipient
			if err == nil && email == "" {
				email, err = emailOf(r, d.UserID)
			}
			if d.ID > end || !yield(Undelivered{d, email}, err) {
				return
			}
		}
	}
}

// emailOf is a user's address; "" once the user was deleted.
func emailOf(r store.Reader, userID string) (string, error) {
	user, err := r.UserByID(userID)
	if errors.Is(err, store.ErrNotFound) {
		err = nil
	}
	return user.Email, err
}

// MailWaits says whether a mail is due that hasn't been sent.
func (s *Service) MailWaits(ctx context.Context) (bool, error) {
	requested, err := s.Store.Read(ctx).RecoveryRequested()
	if err != nil || requested {
		return true, err
	}
	due, err := s.Store.Read(ctx).DueDeliveries(SubscriberMail, s.Store.Now(), 1)
	return len(due) > 0, err
}

// ResendMail has an undelivered mail tried anew, for as long as a new one: a
// recovery gets another unique id and its whole life again, as the old one may
// have expired. ErrNoMail if there is no such mail.
func (s *Service) ResendMail(ctx context.Context, id string) error {
	return s.Store.InTx(ctx, func(tx *store.Tx) error {
		d, err := takeMail(tx, id)
		if err != nil {
			return err
		}
		e := s.newEvent(tx, d.Type, d.UserID, d.SessionID)
		e.Recipient, e.Language = d.Recipient, d.Language
		if d.Type == EventRecovery {
			user, err := tx.UserByID(d.UserID)
			if errors.Is(err, store.ErrNotFound) {
				return ErrNoMail // the user was deleted just now
			}
			if err != nil {
				return err
			}
			e.ExpiresAt = e.CreatedAt.Add(s.recoveryLife(user))
		}
		if d.Type == EventEmailRequested {
			if err := tx.RenewEmailChange(d.UserID, d.ID, e.ID, e.ExpiresAt); err != nil {
				return err
			}
		}
		if d.Type != EventRecovery && d.Type != EventInvitation && d.Type != EventEmailRequested {
			e.CreatedAt = d.CreatedAt // the other mails say when it happened
		}
		if err := recordCommand(tx, AuditMailResent, d.UserID); err != nil {
			return err
		}
		return tx.Publish(e, SubscriberMail)
	})
}

// DropMail gives an undelivered mail up for good. A link in it ends: nobody has it, and
// it must not hold back a later request. ErrNoMail if there is no such mail.
func (s *Service) DropMail(ctx context.Context, id string) error {
	return s.Store.InTx(ctx, func(tx *store.Tx) error {
		d, err := takeMail(tx, id)
		if err != nil {
			return err
		}
		return recordCommand(tx, AuditMailDropped, d.UserID)
	})
}

// takeMail removes an undelivered mail, and ends the recovery that was made for it.
func takeMail(tx *store.Tx, id string) (store.Delivery, error) {
	d, err := tx.DeliveryByID(SubscriberMail, id)
	removed := false
	if err == nil {
		removed, err = tx.Delivered(SubscriberMail, id)
	}
	switch {
	case errors.Is(err, store.ErrNotFound),
		err == nil && !removed: // it was delivered, or resent by somebody else, in between
		return d, ErrNoMail
	case err != nil:
		return d, err
	}
	return d, tx.EndRecovery(id)
}
