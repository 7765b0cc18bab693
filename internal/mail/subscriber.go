package mail

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"kwai/internal/auth"
	"kwai/internal/bus"
	"kwai/internal/i18n"
	"kwai/internal/store"
)

// Subscriber mails users what happens to their accounts. It gets events from the
// bus, asks the rules what to say, and sends it.
type Subscriber struct {
	Rules  *auth.Service
	Writer *Writer
	Sender Sender
	Log    *slog.Logger

	sent, failed, refused, full, overtaken atomic.Int64 // mails
}

// Metrics count attempts at sending a mail.
func (s *Subscriber) Metrics() []prometheus.Collector {
	outcome := func(name string, n *atomic.Int64) prometheus.Collector {
		return prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "kwai_mails_total", Help: "Attempts at sending a mail, by their outcome.", ConstLabels: prometheus.Labels{"outcome": name},
		}, func() float64 { return float64(n.Load()) })
	}
	return []prometheus.Collector{
		outcome("sent", &s.sent),
		outcome("failed", &s.failed),       // it may go out later
		outcome("refused", &s.refused),     // for good, by the mail server
		outcome("full", &s.full),           // the mailbox, which takes nothing for now
		outcome("overtaken", &s.overtaken), // there was no longer anything to say
	}
}

// Name is auth's name for this subscriber.
func (s *Subscriber) Name() string { return auth.SubscriberMail }

// Deliver sends the mail about an event. If there is no longer anything to say, it
// accepts the event without a mail.
func (s *Subscriber) Deliver(ctx context.Context, event store.Event) error {
	log := s.Log.With("event", event.ID, "type", event.Type, "user", event.UserID)
	m, ok, err := s.compose(ctx, event)
	if err == nil && !ok {
		s.overtaken.Add(1)
		log.Info("no mail is sent: its cause was overtaken, or the user is revoked or deleted")
		return nil
	}
	if err == nil {
		err = s.Sender.Send(ctx, m)
	}
	switch {
	case err == nil:
		s.sent.Add(1)
		log.Info("sent a mail")
		return nil
	case Permanent(err):
		s.refused.Add(1)
		return fmt.Errorf("%w: %w", bus.ErrRefused, err)
	}
	f, is := errors.AsType[*failure](err)
	if !is {
		f = &failure{}
	}
	if f.reply == 421 { // "service not available": the next mails are refused, too
		s.failed.Add(1)
		return fmt.Errorf("%w: %w", bus.ErrAllLater, err)
	}
	if f.reply/100 == 4 || f.full { // no user empties a mailbox within seconds
		err = fmt.Errorf("%w: %w", bus.ErrLater, err)
	}
	if f.full {
		s.full.Add(1)
		return fmt.Errorf("%w: %w", bus.ErrAlone, err)
	}
	s.failed.Add(1)
	return err
}

func (s *Subscriber) compose(ctx context.Context, event store.Event) (m Message, ok bool, err error) {
	now := s.Rules.Store.Now()
	switch event.Type {
	case auth.EventRecovery, auth.EventInvitation:
		return s.composeRecovery(ctx, event)
	case auth.EventEmailRequested:
		r, ok, err := s.Rules.MakeEmailCode(ctx, event)
		if err != nil || !ok {
			return m, false, err
		}
		m, err = s.Writer.ConfirmEmail(event.ID, recipient(r.User, event), r.Code, r.ExpiresAt, now)
		return m, true, err
	case auth.EventDeleted: // there is no user left to ask about
		m, err = s.Writer.Deleted(event.ID, recipient(store.User{}, event), event.CreatedAt, now)
		return m, true, err
	}
	user, err := s.Rules.Store.Read(ctx).UserByID(event.UserID)
	if errors.Is(err, store.ErrNotFound) || err == nil && !user.RevokedAt.IsZero() {
		return m, false, nil
	}
	if err != nil {
		return m, false, err
	}
	// A mail that is sent again has a new id, and so no entry.
	entry, err := s.Rules.Store.Read(ctx).AuditEntryByID(event.ID)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return m, false, err
	}
	to, o := recipient(user, event), Origin{When: event.CreatedAt, Address: entry.Address, UserAgent: entry.UserAgent}
	switch event.Type {
	case auth.EventPasswordChanged:
		if entry.Reason == auth.ByInvitation {
			m, err = s.Writer.PasswordChosen(event.ID, to, o, now)
			break
		}
		m, err = s.Writer.PasswordChanged(event.ID, to, o, Change{actors[entry.Reason], event.SessionID != ""}, now)
	case auth.EventReplay:
		m, err = s.Writer.SessionReplayed(event.ID, to, o, now)
	case auth.EventNewNetwork:
		m, err = s.Writer.NewNetwork(event.ID, to, o, now)
	case auth.EventEmailNotice:
		m, err = s.Writer.EmailNotice(event.ID, to, event.CreatedAt, now)
	case auth.EventEmailChanged:
		m, err = s.Writer.EmailChanged(event.ID, to, user.Email, event.CreatedAt, now)
	default:
		if what, ok := factorChanges[event.Type]; ok {
			has := Has{Password: user.PasswordHash != ""}
			if has.RecoveryCodes, err = s.Rules.Store.Read(ctx).RecoveryCodesLeft(user.ID); err == nil {
				m, err = s.Writer.FactorsChanged(event.ID, to, o, what, has, now)
			}
			break
		}
		err = permanent("there is no mail for events of type " + event.Type)
	}
	return m, true, err
}

// composeRecovery makes a recovery, and the mail with its link.
func (s *Subscriber) composeRecovery(ctx context.Context, event store.Event) (m Message, ok bool, err error) {
	r, ok, err := s.Rules.MakeRecovery(ctx, event)
	if err != nil || !ok {
		return m, false, err
	}
	write := s.Writer.Recovery
	switch {
	case event.Type == auth.EventInvitation:
		write = s.Writer.Invitation
	case r.User.PasswordHash == "":
		write = s.Writer.FirstPassword
	}
	m, err = write(event.ID, recipient(r.User, event), r.ID, r.ExpiresAt, s.Rules.Store.Now())
	return m, true, err
}

// actors has who did it, by the reason in the audit log.
var actors = map[string]Actor{auth.ByRecovery: ByLink, auth.ByCommand: ByOperator, auth.ByUser: ByUser}

// factorChanges are the events that FactorsChanged reports.
var factorChanges = map[string]FactorChange{
	auth.EventAuthenticatorAdded: AuthenticatorAdded, auth.EventAuthenticatorRemoved: AuthenticatorRemoved,
	auth.EventPasskeyAdded: PasskeyAdded, auth.EventPasskeyRemoved: PasskeyRemoved,
	auth.EventTwoStepsOn: TwoStepsOn, auth.EventTwoStepsOff: TwoStepsOff,
	auth.EventRecoveryCodes: RecoveryCodesMade, auth.EventRecoveryCodeUsed: RecoveryCodeUsed,
	auth.EventCodesRefused: CodesRefused, auth.EventFactorsReset: FactorsReset,
}

// recipient is whom the mail about an event goes to, in which language: that of the
// user's choice, else that of the page which caused it.
func recipient(u store.User, e store.Event) Recipient {
	return Recipient{
		Email: cmp.Or(e.Recipient, u.Email), FirstName: u.FirstName, LastName: u.LastName,
		Language: cmp.Or(i18n.Lookup(u.Language), i18n.Lookup(e.Language)),
	}
}
