package auth

import (
	"context"
	"time"

	"kwai/internal/store"
)

// Event types. Every event goes to the subscribers outside, if there are any. Those that
// a user must know of are mailed, too. docs/events.md describes them.
const (
	EventCreated              = "user.created"               // an account was made
	EventInvitation           = "user.invited"               // it was made without a password; mailed
	EventRevoked              = "user.revoked"               // the user can no longer log in; all sessions were ended
	EventUpdated              = "user.updated"               // names, the language or the spelling of the address were changed
	EventEmailChanged         = "user.email-changed"         // the user has another address, recoveries were ended; mailed to the one before
	EventEmailRequested       = "user.email-requested"       // the user asked for another address; mailed to that one, if it is free
	EventDeleted              = "user.deleted"               // the account and all its sessions are gone; mailed
	EventReinstated           = "user.reinstated"            // the user can log in again
	EventRecovery             = "user.recovery"              // a recovery was requested; mailed
	EventPasswordChanged      = "user.password-changed"      // a password was set, all sessions were ended but the one it names, if any; mailed
	EventOpened               = "session.opened"             // a login
	EventNewNetwork           = "session.new-network"        // it came from a network from which the user hadn't logged in; mailed, unless that is off
	EventEnded                = "session.ended"              // a logout, or another session's doing
	EventAppOpened            = "app.opened"                 // a login at an app, by kwai
	EventAppEnded             = "app.ended"                  // a session at an app was ended, but not its browser session
	EventGranted              = "app.granted"                // the user let an app see the account
	EventGrantEnded           = "app.grant-ended"            // the user took that back
	EventAuthenticatorAdded   = "user.authenticator-added"   // an authenticator app was enrolled, in the place of one before; mailed
	EventAuthenticatorRemoved = "user.authenticator-removed" // it was removed, with the recovery codes; mailed
	EventPasskeyAdded         = "user.passkey-added"         // mailed
	EventPasskeyRemoved       = "user.passkey-removed"       //nolint:gosec // a name, no secret; mailed
	EventTwoStepsOn           = "user.two-steps-on"          // a login needs two steps, other sessions were ended; mailed, unless it came with an authenticator app
	EventTwoStepsOff          = "user.two-steps-off"         // it needs one again; mailed
	EventRecoveryCodes        = "user.recovery-codes"        // new recovery codes replaced those before; mailed
	EventRecoveryCodeUsed     = "user.recovery-code-used"    // a login by one; mailed
	EventCodesRefused         = "user.codes-refused"         // the third wrong code within a day, behind a right password; mailed
	EventFactorsReset         = "user.factors-reset"         // an operator removed all factors, sessions were ended; mailed
	EventReplay               = "session.replayed"           // a replaced refresh token came back, the session was ended; mailed
)

// EventEmailNotice comes with each EventEmailRequested, for the mail alone: it tells the
// address of now that another one was asked for.
const EventEmailNotice = "user.email-notice"

// SubscriberMail is the subscriber that mails users.
const SubscriberMail = store.SubscriberMail

// noticeLife is how long a notice is tried: an old one would alarm more than
// it helps, but an outage of the mail server over a week-end must not lose it.
const noticeLife = 4 * 24 * time.Hour

// mailed says which events are mailed to their user.
func mailed(kind string) bool {
	switch kind {
	case EventInvitation, EventRecovery, EventPasswordChanged, EventReplay, EventNewNetwork, EventEmailRequested, EventEmailChanged, EventDeleted,
		EventAuthenticatorAdded, EventAuthenticatorRemoved, EventPasskeyAdded, EventPasskeyRemoved, EventTwoStepsOn, EventTwoStepsOff, EventRecoveryCodes, EventRecoveryCodeUsed, EventCodesRefused, EventFactorsReset:
		return true
	}
	return false
}

// happening is what happens to a user, a session or at an app, and why.
type happening struct{ kind, reason, user, session, app string }

// publish records what happens now, and enqueues the event for its subscribers.
func (s *Service) publish(tx *store.Tx, client Client, h happening) error {
	return s.publishTo(tx, client, h, "", client.Language)
}

// publishTo is publish for an event whose mail goes to another address than the user's,
// or in a language that is known here alone.
func (s *Service) publishTo(tx *store.Tx, client Client, h happening, recipient, language string) error {
	e := s.newEvent(tx, h.kind, h.user, h.session)
	e.AppID = h.app
	e.Recipient, e.Language = recipient, language
	subscribers := s.subscribers(h.kind)
	if err := record(tx, e.ID, client, h); err != nil {
		return err
	}
	return tx.Publish(e, subscribers...)
}

// newEvent is one that happens now.
func (s *Service) newEvent(tx *store.Tx, kind, userID, sessionID string) store.Event {
	life := noticeLife
	switch kind {
	case EventRecovery, EventEmailRequested:
		life = s.Settings.RecoveryLife
	case EventInvitation:
		life = s.Settings.InvitationLife
	}
	return store.Event{ID: nextID(tx), Type: kind, UserID: userID, SessionID: sessionID, CreatedAt: tx.Now, ExpiresAt: tx.Now.Add(life)}
}

// subscribers are the subscribers of such an event.
func (s *Service) subscribers(kind string) []string {
	names := s.outsiders()
	if mailed(kind) {
		names = append([]string{SubscriberMail}, names...)
	}
	return names
}

// outsiders are the subscribers outside.
func (s *Service) outsiders() []string {
	if outside := s.outside.Load(); outside != nil {
		return *outside
	}
	return nil
}

// record adds to the audit log, in the transaction that changes what it records.
func record(tx *store.Tx, id string, client Client, h happening) error {
	return tx.Record(auditEntry(tx, id, client, h))
}

func auditEntry(tx *store.Tx, id string, client Client, h happening) store.AuditEntry {
	e := store.AuditEntry{ID: id, At: tx.Now, Kind: h.kind, Reason: h.reason, UserID: h.user, SessionID: h.session, AppID: h.app, UserAgent: client.UserAgent}
	if client.Address.IsValid() {
		e.Address = client.Address.String()
	}
	return e
}

// recordRefusal records a refused password, and returns the refusal. It does so even
// if the client has disconnected.
func (s *Service) recordRefusal(ctx context.Context, client Client, h happening, refused error) error {
	err := s.Store.Statement(context.WithoutCancel(ctx), func(tx *store.Tx) error {
		return tx.RecordRefusal(auditEntry(tx, nextID(tx), client, h))
	})
	if err != nil {
		return err
	}
	return refused
}

// recordCommand records what an operator did to a user, where no event does.
func recordCommand(tx *store.Tx, kind, userID string) error {
	return record(tx, nextID(tx), Operator, happening{kind: kind, reason: ByCommand, user: userID})
}

// recordKey records what became of a server key, in the transaction that did it.
// The key is named by its purpose and id; how says who did it: "by a command",
// "by the schedule".
func recordKey(tx *store.Tx, kind, purpose, id, how string) error {
	return record(tx, nextID(tx), Operator, happening{kind: kind, reason: how + ": " + purpose + " " + id})
}

// RefreshSubscribers reads the subscribers outside. It is called before the first event
// is made, and each second by a server: so soon it knows a subscriber of another
// server. While the database is away the last ones stay: then there are no events.
func (s *Service) RefreshSubscribers(ctx context.Context) error {
	found, err := s.Store.Read(ctx).Subscribers()
	if err != nil {
		return err
	}
	var names []string
	for _, f := range found {
		if !f.SeenAt.IsZero() {
			names = append(names, f.Name)
		}
	}
	s.outside.Store(&names)
	return nil
}
