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
	const page = 500
	return func(yield func(Undelivered, error) bool) {
		end := newID(s.Store.Now()) // ids are sorted by time
		for after := ""; ; {
			r := s.Store.Read(ctx)
			found, err := r.Deliveries(SubscriberMail, after, page)
			if err != nil {
				yield(Undelivered{}, err)
				return
			}
			for _, d := range found {
				user, err := r.UserByID(d.UserID)
				if d.ID > end || !yield(Undelivered{d, user.Email}, err) {
					return
				}
				after = d.ID
			}
			if len(found) < page {
				return
			}
		}
	}
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
		d, err := tx.DeliveryByID(SubscriberMail, id)
		if errors.Is(err, store.ErrNotFound) {
			return ErrNoMail
		}
		if err != nil {
			return err
		}
		// False: it was delivered, or resent by somebody else, in between.
		if removed, err := tx.Delivered(SubscriberMail, id); err != nil {
			return err
		} else if !removed {
			return ErrNoMail
		}
		// It was never mailed; the new one may be dropped.
		if err := tx.EndRecovery(d.ID); err != nil {
			return err
		}
		e := s.newEvent(tx, d.Type, d.UserID, d.SessionID)
		if d.Type == EventRecovery {
			user, err := tx.UserByID(d.UserID)
			if err != nil {
				return err
			}
			e.ExpiresAt = e.CreatedAt.Add(s.recoveryLife(user))
		}
		if d.Type == EventPasswordChanged || d.Type == EventReplay || d.Type == EventNewNetwork {
			e.CreatedAt = d.CreatedAt // these mails say when it happened
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
		d, err := tx.DeliveryByID(SubscriberMail, id)
		if errors.Is(err, store.ErrNotFound) {
			return ErrNoMail
		}
		if err != nil {
			return err
		}
		if removed, err := tx.Delivered(SubscriberMail, id); err != nil {
			return err
		} else if !removed { // it was delivered in between
			return ErrNoMail
		}
		if err := tx.EndRecovery(id); err != nil {
			return err
		}
		return recordCommand(tx, AuditMailDropped, d.UserID)
	})
}
