package auth

import (
	"cmp"
	"context"
	"errors"
	"iter"
	"strings"
	"time"

	"kwai/internal/store"
)

// What is recorded beside the events.
const (
	AuditCodeRefused     = "login.code-refused"    // a wrong code behind a right password
	AuditPasskeyRefused  = "login.passkey-refused" //nolint:gosec // a name, no secret; a passkey's signature that wasn't right, or came twice
	AuditGroupTwoSteps   = "group.two-steps"       // an operator had a group require two steps, or no longer
	AuditProved          = "session.proved"        // a visitor showed the password again
	AuditLoginFailed     = "login.failed"          // its reason says why; the client doesn't learn it
	AuditPasswordRefused = "user.password-refused" // a session's user gave a wrong current password
	AuditExported        = "user.exported"         // a visitor took all that is kept about the account
	AuditUnlocked        = "user.unlocked"         // an operator had an account's failures forgotten
	AuditMailResent      = "mail.resent"           // an operator had an undelivered mail sent again
	AuditMailDropped     = "mail.dropped"          // an operator gave an undelivered mail up
	AuditAppCreated      = "app.created"           // an operator made an app
	AuditAppUpdated      = "app.updated"           // an operator changed an app, or its secret
	AuditAppDeleted      = "app.deleted"           // an operator deleted an app, and all its sessions
	AuditGroupCreated    = "group.created"         // an operator made a group; its reason has the name
	AuditGroupDeleted    = "group.deleted"
	AuditGroupJoined     = "group.joined" // an operator added a user to a group
	AuditGroupLeft       = "group.left"   // an operator took a user out of a group
	AuditKeyMade         = "key.made"     // a server key, which becomes active later
	AuditKeyRevoked      = "key.revoked"  // what was made with it is refused from now on
	AuditKeyResealed     = "key.resealed" // sealed under another master key
)

// AuditKinds are the kinds of all entries.
var AuditKinds = []string{
	EventCreated, EventInvitation, EventUpdated, EventEmailRequested, EventEmailChanged, EventDeleted, EventRevoked, EventReinstated, EventRecovery, EventPasswordChanged,
	EventOpened, EventNewNetwork, EventEnded, EventReplay, EventAppOpened, EventAppEnded, EventGranted, EventGrantEnded,
	EventAuthenticatorAdded, EventAuthenticatorRemoved, EventPasskeyAdded, EventPasskeyRemoved, EventTwoStepsOn, EventTwoStepsOff, EventRecoveryCodes, EventRecoveryCodeUsed, EventCodesRefused, EventFactorsReset,
	AuditCodeRefused, AuditPasskeyRefused, AuditGroupTwoSteps,
	AuditLoginFailed, AuditProved, AuditPasswordRefused, AuditExported, AuditUnlocked, AuditMailResent, AuditMailDropped, AuditAppCreated, AuditAppUpdated, AuditAppDeleted, AuditGroupCreated, AuditGroupDeleted, AuditGroupJoined, AuditGroupLeft, AuditKeyMade, AuditKeyRevoked, AuditKeyResealed,
}

// How a password was changed, and much else, in the audit log.
const (
	ByRecovery   = "by a recovery"
	ByInvitation = "by an invitation" // or a recovery: it is the first password
	ByCommand    = "by a command"     // of an operator: there is no client
	ByUser       = "by the user"
)

// How somebody came in, in the audit log.
const (
	ByPasskey      = "by passkey"
	byPassword     = "by password"
	byCode         = "by password and code" // of the authenticator app
	byRecoveryCode = "by password and recovery code"
)

// How a session was ended, in the audit log; a logout has no reason. Why a login was
// refused is in login.go.
const (
	ByUserElsewhere = "by the user, from another session"
	reasonExcess    = "too many sessions" // a login ended the oldest
)

// AuditLog reads what was recorded from then on, in the order of time; of one
// account, which may have been deleted, unless email is "": ErrNoUser if there is none
// such.
//
// It reads in pages, each at its own moment. What happens while it reads may be
// left out.
func (s *Service) AuditLog(ctx context.Context, since time.Time, email string) iter.Seq2[store.AuditEntry, error] {
	return func(yield func(store.AuditEntry, error) bool) {
		var user store.User
		if email != "" {
			var err error
			if user, err = s.auditedUser(ctx, email); err != nil {
				yield(store.AuditEntry{}, err)
				return
			}
		}
		// Without an end, a flood could be read for ever. Another server's clock
		// may be ahead.
		end := s.Store.Now().Add(time.Minute)
		r := s.Store.Read(ctx)
		read := r.AuditLogAfter
		if user.ID != "" {
			read = func(after string, n int) ([]store.AuditEntry, error) { return r.AuditLogOfUserAfter(user.ID, after, n) }
		}
		for entry, err := range paged(firstID(since), read, func(e store.AuditEntry) string { return e.ID }) {
			if user.ID != "" {
				entry.Email = user.Email
			}
			if entry.At.After(end) || !yield(entry, err) {
				return
			}
		}
	}
}

// auditedUser is User, and of a user who was deleted the id.
func (s *Service) auditedUser(ctx context.Context, who string) (store.User, error) {
	user, err := s.User(ctx, who)
	if !errors.Is(err, errNoUserID) {
		return user, err
	}
	id := strings.ToLower(who)
	left, readErr := s.Store.Read(ctx).AuditLogOfUserAfter(id, "", 1)
	if readErr != nil || len(left) == 0 {
		return user, cmp.Or(readErr, err)
	}
	return store.User{Profile: store.Profile{ID: id}}, nil
}
