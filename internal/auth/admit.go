package auth

import (
	"context"
	"errors"
	"time"

	"kwai/internal/store"
)

// proof is what somebody has shown of an account, verified. It is worth nothing for an
// account that has changed since: its user was read before it was verified, with the
// AuthVersion of then.
type proof struct {
	user     store.User
	amr      string         // RFC 8176
	rehashed store.Password // the same password with today's parameters; zero: the stored hash stays
	// What was shown beside the password, or instead of it; nil: nothing.
	code    *usedCode
	passkey *usedPasskey
	enrols  *enrolment // an authenticator app whose code was shown
}

// The values of RFC 8176 for what can be shown.
const (
	amrPassword = "pwd"
	amrCode     = "otp"
	amrMore     = "mfa"          // more than one of them
	amrPasskey  = "pop user mfa" //nolint:gosec // RFC 8176 has these words
)

// way is how somebody came in, for the audit log.
func (p proof) way() string {
	switch {
	case p.passkey != nil:
		return ByPasskey
	case p.code != nil && p.code.recovery != nil:
		return byRecoveryCode
	case p.code != nil || p.enrols != nil:
		return byCode
	}
	return byPassword
}

// needOf is what is still to be shown; "": nothing.
func needOf(d store.Demands, shown proof) Need {
	switch {
	case shown.passkey != nil || shown.code != nil || !d.TwoSteps && !d.Group:
		return ""
	case d.Authenticator || !d.Group:
		return NeedCode
	case d.Passkey:
		// Who knows the password alone must not enrol an authenticator app of their own.
		return NeedPasskey
	case shown.enrols != nil:
		return ""
	}
	return NeedEnrol
}

// door is where a proof is shown, and what it is to open.
type door struct {
	kind store.Kind
	life time.Duration // of the session, where the settings' isn't; 0: it is
	// proves is a browser session that goes on by the proof, with the number of its
	// cookie; nil: a session is opened.
	proves *Visitor
	// Of the pages: whether the session is to stay on its device, and the cookie of the
	// browser that a second step must come from.
	stay    bool
	browser string
}

// admit is the one way in: every door verifies a proof and comes here, and nothing
// else opens a session, or makes one fresh.
//
// The first statement locks the user's row, and compares its AuthVersion. So a login
// and whatever ends logins (a reset, a revocation) happen one after the other, on every
// server, and the later one counts. It also says what the account demands: if that wasn't
// shown the error is a *More, and nothing has happened.
func (s *Service) admit(ctx context.Context, client Client, a store.Attempt, shown proof, d door) (r loginResult, err error) {
	user := shown.user
	err = s.Store.InTx(ctx, func(tx *store.Tx) error {
		r = loginResult{user: user.ID}
		demands, err := tx.LogIn(user.ID, user.AuthVersion, shown.rehashed, s.passkeyHost())
		if errors.Is(err, store.ErrNotFound) {
			r.refused = reasonChanged
			return nil
		}
		if err != nil {
			return err
		}
		if need := needOf(demands, shown); need != "" {
			return &More{Need: need}
		}
		if err := s.useUp(tx, client, shown, d); err != nil {
			return err
		}
		knew, err := s.succeed(tx, a, shown, demands)
		if err != nil {
			return err
		}
		if d.proves != nil {
			return s.prove(tx, client, a, shown, d.proves, knew, &r)
		}
		return s.openSession(tx, client, a, shown, d, knew, &r)
	})
	return r, err
}

// useUp uses up what was shown and is good once.
func (s *Service) useUp(tx *store.Tx, client Client, shown proof, d door) error {
	switch {
	case shown.code != nil:
		return s.useCode(tx, client, shown.user, *shown.code)
	case shown.passkey != nil:
		return s.usePasskey(tx, shown.user, *shown.passkey)
	case shown.enrols != nil:
		keep := ""
		if d.proves != nil {
			keep = d.proves.SessionID
		}
		return s.enrol(tx, client, shown.user, *shown.enrols, keep)
	}
	return nil
}

// succeed clears what a whole login clears, and has the account know the network from
// then on: for passwords, which a is of, and for codes. It says whether it knew any before.
func (s *Service) succeed(tx *store.Tx, a store.Attempt, shown proof, d store.Demands) (knew bool, err error) {
	switch {
	case shown.code != nil && shown.code.recovery == nil:
		return s.succeedAttempts(tx, a, shown.code.attempt)
	case shown.enrols != nil || d.Authenticator:
		// It was counted nowhere. Two steps may be off now, and on again later: then codes
		// must know the networks that the user has logged in from meanwhile.
		return s.succeedAttempts(tx, a, store.Attempt{Account: codesOf(shown.user.ID), Network: a.Network, Known: a.Known})
	}
	return s.succeedAttempts(tx, a)
}

// prove has a browser session go on, fresh, with the next number.
func (s *Service) prove(tx *store.Tx, client Client, a store.Attempt, shown proof, v *Visitor, knew bool, r *loginResult) (err error) {
	r.session, err = tx.RaiseNumber(v.SessionID, shown.user.ID, v.number, shown.amr, s.Settings.lifetimes())
	if errors.Is(err, store.ErrNotFound) {
		return ErrNotLoggedIn // it has ended meanwhile: the login is undone
	}
	if err != nil {
		return err
	}
	err = record(tx, nextID(tx), client, happening{kind: AuditProved, reason: shown.way(), user: shown.user.ID, session: v.SessionID})
	if err != nil {
		return err
	}
	// The network is known from now on: a login from it would tell nobody.
	if notify, err := s.newNetwork(tx, a, shown.user, knew); err != nil || !notify {
		return err
	}
	return s.publish(tx, client, happening{kind: EventNewNetwork, user: shown.user.ID, session: v.SessionID})
}

func (s *Service) openSession(tx *store.Tx, client Client, a store.Attempt, shown proof, d door, knew bool, r *loginResult) error {
	r.session = store.Session{
		ID: nextID(tx), UserID: shown.user.ID, Kind: d.kind, AMR: shown.amr, AuthTime: tx.Now, CreatedAt: tx.Now, RenewedAt: tx.Now,
	}
	if d.life > 0 {
		r.session.EndsAt = tx.Now.Add(d.life)
	}
	ended, err := tx.OpenSession(r.session, maxLiveSessions)
	if err != nil {
		return err
	}
	notify, err := s.newNetwork(tx, a, shown.user, knew)
	if err != nil {
		return err
	}
	return s.publishLogin(tx, client, r.session, shown.way(), ended, notify)
}

// publishLogin publishes a login, the sessions that it ended, and that it came from
// a new network.
func (s *Service) publishLogin(tx *store.Tx, client Client, session store.Session, way string, ended []string, newNetwork bool) error {
	var all []happening
	for _, id := range ended {
		all = append(all, happening{kind: EventEnded, reason: reasonExcess, user: session.UserID, session: id})
	}
	all = append(all, happening{kind: EventOpened, reason: way, user: session.UserID, session: session.ID})
	if newNetwork {
		all = append(all, happening{kind: EventNewNetwork, user: session.UserID, session: session.ID})
	}
	for _, h := range all {
		if err := s.publish(tx, client, h); err != nil {
			return err
		}
	}
	return nil
}

// maxLiveSessions bounds a user's sessions: else anyone with the password could
// open too many to be ended in one transaction, as a reset must. Tests make it less.
var maxLiveSessions = 10_000

// maxNewNetworkNotices bounds the mails within a day about logins from new networks.
// A user who travels, or whose provider changes the address, must not stop reading them.
const maxNewNetworkNotices = 5

// newNetwork says whether the user is to be mailed about a login from a new network.
// A user who has logged in lately, yet has no known network, did so before networks
// were remembered: then nothing is new. After an absence that is longer than networks
// are remembered, it is.
func (s *Service) newNetwork(tx *store.Tx, a store.Attempt, user store.User, knew bool) (bool, error) {
	lately := tx.Now.Sub(user.LastLoginAt) < s.Settings.Limits.Remember
	if !s.Settings.LoginNotices || a.Network == "" || a.Known || user.LastLoginAt.IsZero() || lately && !knew {
		return false, nil
	}
	n, err := tx.CountAuditEntries(user.ID, EventNewNetwork, firstID(tx.Now.Add(-24*time.Hour)), firstID(tx.Now.Add(store.ClockSlack)))
	return n < maxNewNetworkNotices, err
}
