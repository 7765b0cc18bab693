package auth

import (
	"context"
	"errors"
	"strings"
	"time"

	"kwai/internal/store"
	"kwai/internal/token"
)

// RequestEmail asks for another address for a visitor with a fresh proof. It writes the
// request and its event, and doesn't look whether the address is free: so the answer and
// the work are the same for every address. A link is mailed to it later, if it is free; a notice to the address of now, in any case.
//
// Its errors: Invalid for what is no address or the visitor's own, Throttled after
// MailHour requests within an hour, ErrNotLoggedIn without the proof or where the session
// was ended meanwhile.
func (s *Service) RequestEmail(ctx context.Context, client Client, v Visitor, email string) error {
	email = strings.TrimSpace(email)
	key, err := FoldEmail(email)
	switch {
	case !v.FreshForm:
		return ErrNotLoggedIn
	case err != nil:
		return InvalidFields(Field{"email", "This is not an e-mail address.", "email.malformed"})
	case key == v.User.EmailKey:
		return InvalidFields(Field{"email", "This is your address already.", "email.own"})
	}
	return s.Store.InTx(ctx, func(tx *store.Tx) error {
		user, err := s.lock(tx, byVisitor(client, v), v.ID)
		if err != nil {
			return err
		}
		if err := s.atMost(tx, s.Settings.Limits.MailHour, EventEmailRequested, user.ID, errManyAddresses); err != nil {
			return err
		}
		h := happening{kind: EventEmailRequested, reason: ByUser, user: user.ID, session: v.SessionID}
		e := s.newEvent(tx, h.kind, h.user, "")
		e.Recipient, e.Language = email, client.Language
		err = tx.RequestEmailChange(store.EmailChange{
			UserID: user.ID, RequestID: e.ID, Email: email, EmailKey: key, AuthVersion: user.AuthVersion, ExpiresAt: e.ExpiresAt,
		})
		if err != nil {
			return err
		}
		if err := record(tx, e.ID, client, h); err != nil {
			return err
		}
		if err := tx.Publish(e, s.subscribers(h.kind)...); err != nil {
			return err
		}
		notice := s.newEvent(tx, EventEmailNotice, user.ID, "")
		notice.Recipient, notice.Language = user.Email, client.Language
		return tx.Publish(notice, SubscriberMail)
	})
}

// EmailMail is what the mail to the new address says.
type EmailMail struct {
	User      store.User
	Code      string // secret
	ExpiresAt time.Time
}

// MakeEmailCode makes the code that is mailed for a request. False if there is nothing to
// mail: there is a newer request, it has expired, what a login must show has changed, the
// address is another user's, or the user is revoked or was deleted.
func (s *Service) MakeEmailCode(ctx context.Context, event store.Event) (m EmailMail, ok bool, err error) {
	r := s.Store.Read(ctx)
	c, err := r.EmailChange(event.UserID)
	if err == nil {
		m.User, err = r.UserByID(event.UserID)
	}
	if errors.Is(err, store.ErrNotFound) || err == nil && (c.RequestID != event.ID || !s.changeable(c, m.User) || !m.User.RevokedAt.IsZero()) {
		return m, false, nil
	}
	if err != nil {
		return m, false, err
	}
	if _, err := r.UserByEmail(c.EmailKey); !errors.Is(err, store.ErrNotFound) {
		return m, false, err
	}
	keys, err := s.Keys.fresh(ctx)
	if err != nil {
		return m, false, err
	}
	m.Code, m.ExpiresAt = keys.ring.AddressCode(codeParts(c)...), c.ExpiresAt
	return m, true, nil
}

// changeable says whether a request still counts for its user.
func (s *Service) changeable(c store.EmailChange, user store.User) bool {
	return c.AuthVersion == user.AuthVersion && s.Store.Now().Before(c.ExpiresAt)
}

// codeParts are what a code is made of. Its request may get another id, when an operator
// has the mail sent again.
func codeParts(c store.EmailChange) []string {
	return []string{c.RequestID, c.UserID, c.EmailKey}
}

// PendingEmail is the address that a code is for; ErrEmailCode if it isn't the visitor's,
// has been used or overtaken, or has expired.
func (s *Service) PendingEmail(ctx context.Context, v Visitor, code string) (string, error) {
	keys, err := s.Keys.fresh(ctx)
	if err != nil {
		return "", err
	}
	c, err := s.Store.Read(ctx).EmailChange(v.ID)
	return c.Email, s.checkCode(c, err, v.User, keys.ring, code)
}

// checkCode takes the request as it was read, and the error of that.
func (s *Service) checkCode(c store.EmailChange, err error, user store.User, ring *token.Keyring, code string) error {
	if errors.Is(err, store.ErrNotFound) || err == nil && (!s.changeable(c, user) || !ring.CheckAddressCode(code, codeParts(c)...)) {
		return ErrEmailCode
	}
	return err
}

// ConfirmEmail gives the visitor the address that the code was mailed to. It needs no
// fresh proof: the request had one. ErrEmailCode as for PendingEmail, also where the
// address was taken meanwhile; ErrNotLoggedIn where the session was ended.
func (s *Service) ConfirmEmail(ctx context.Context, client Client, v Visitor, code string) error {
	keys, err := s.Keys.fresh(ctx)
	if err != nil {
		return err
	}
	by := byVisitor(client, v)
	err = s.Store.InTx(ctx, func(tx *store.Tx) error {
		// Two that meet wait here for each other: the second finds no request.
		before, err := s.lock(tx, by, v.ID)
		if err != nil {
			return err
		}
		c, err := tx.EmailChange(v.ID)
		if err := s.checkCode(c, err, before, keys.ring, code); err != nil {
			return err
		}
		after := before
		after.Email, after.EmailKey = c.Email, c.EmailKey
		if err := s.updateUser(tx, by, before, after); err != nil {
			return err
		}
		return tx.ProveEmail(v.ID)
	})
	if errors.Is(err, store.ErrTaken) {
		return ErrEmailCode
	}
	return err
}
