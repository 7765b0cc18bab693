package auth

import (
	"context"
	"iter"
	"time"

	"kwai/internal/store"
)

// What is recorded beside the events.
const (
	TraceLoginFailed = "login.failed"          // its reason says why, which the client isn't told
	TraceNotChanged  = "user.password-refused" // a session's user gave a wrong current password
	TraceUnlocked    = "user.unlocked"         // an operator had an account's failures forgotten
	TraceResent      = "mail.resent"           // an operator had an undelivered mail sent again
	TraceDropped     = "mail.dropped"          // an operator gave an undelivered mail up
	TraceKeyMade     = "key.made"              // a server key, which becomes active later
	TraceKeyRevoked  = "key.revoked"           // what was made with it is refused from now on
	TraceKeyResealed = "key.resealed"          // sealed under another master key
)

// TraceThrottled is the kind of entries that count what throttling refused.
const TraceThrottled = "throttled"

// TrailKinds are the kinds of all entries.
var TrailKinds = []string{
	EventCreated, EventInvitation, EventRevoked, EventEnacted, EventRecovery, EventPasswordChanged,
	EventOpened, EventNewNetwork, EventEnded, EventReplay,
	TraceLoginFailed, TraceNotChanged, TraceUnlocked, TraceResent, TraceDropped, TraceKeyMade, TraceKeyRevoked, TraceKeyResealed, TraceThrottled,
}

// Why a login failed, in the trail.
const (
	reasonUnknown  = "no such account"
	reasonPassword = "wrong password"
	reasonRevoked  = "the user is revoked"
	reasonInvited  = "no password is chosen yet"
	reasonExcess   = "too many sessions" // of a session that was ended by a login
	reasonChanged  = "the password was changed meanwhile"
)

// How a password was changed, and much else, in the trail.
const (
	ByRecovery = "by a recovery"
	ByCommand  = "by a command" // of an operator: there is no client
	ByUser     = "by the user"
)

// How a session was ended, in the trail; a logout has no reason.
const reasonElsewhere = "by the user, from another session"

// record adds to the trail, in the transaction of what it tells.
func record(tx *store.Tx, id, kind, reason, userID, sessionID string, c Client) error {
	t := store.Trace{ID: id, At: tx.Now, Kind: kind, Reason: reason, UserID: userID, SessionID: sessionID, UserAgent: c.UserAgent}
	if c.Address.IsValid() {
		t.Address = c.Address.String()
	}
	return tx.Record(t)
}

// recordCommand records what an operator did to a user, where no event tells it.
func recordCommand(tx *store.Tx, kind, userID string) error {
	return record(tx, nextID(tx), kind, ByCommand, userID, "", Client{})
}

// recordKey records what became of a server key, in the transaction that did it.
// The key is named by its purpose and id; how says who did it: "by a command",
// "by the schedule".
func recordKey(tx *store.Tx, kind, purpose, id, how string) error {
	return record(tx, nextID(tx), kind, how+": "+purpose+" "+id, "", "", Client{})
}

// Entry is an entry of the trail: something that happened, or how often
// throttling refused attempts at an account, from a network, within an hour.
type Entry struct {
	store.Trace
	// Count is how often, within the hour that begins at At, for TraceThrottled;
	// its Address is that of the network, and its Email is there if the account is.
	Count int64
}

// Trail reads what was recorded from then on, in the order of time; of one
// account unless email is "": ErrNoUser if there is none such. Of the hour that
// since is in, all refusals are counted.
//
// It reads in pages, each at its own moment. What happens while it reads may be
// left out; so are the refusals of the latest seconds, as they are written then.
func (s *Service) Trail(ctx context.Context, since time.Time, email string) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		user, end, err := s.trailOf(ctx, email)
		if err != nil {
			yield(Entry{}, err)
			return
		}
		happened, stop := iter.Pull2(s.happened(ctx, since, end, user))
		defer stop()
		refused, stop := iter.Pull2(s.refused(ctx, since, end, user))
		defer stop()
		h, herr, more := happened()
		r, rerr, moreRefused := refused()
		for more || moreRefused {
			if moreRefused && (!more || !r.At.After(h.At)) {
				if !yield(r, rerr) || rerr != nil {
					return
				}
				r, rerr, moreRefused = refused()
				continue
			}
			if !yield(h, herr) || herr != nil {
				return
			}
			h, herr, more = happened()
		}
	}
}

// Happened is Trail without the counts of refusals.
func (s *Service) Happened(ctx context.Context, since time.Time, email string) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		user, end, err := s.trailOf(ctx, email)
		if err != nil {
			yield(Entry{}, err)
			return
		}
		s.happened(ctx, since, end, user)(yield)
	}
}

// trailOf says whom the trail is read of, and up to when. Another server's clock
// may be ahead. Without an end, a flood could be read for ever.
func (s *Service) trailOf(ctx context.Context, email string) (user store.User, end time.Time, err error) {
	if email != "" {
		user, err = s.User(ctx, email)
	}
	return user, s.Store.Now().Add(time.Minute), err
}

const trailPage = 500

// happened reads the traces.
func (s *Service) happened(ctx context.Context, since, end time.Time, user store.User) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		for after := firstID(since); ; {
			r := s.Store.Read(ctx)
			var traces []store.Trace
			var err error
			if user.ID != "" {
				traces, err = r.TrailOfUserAfter(user.ID, after, trailPage)
			} else {
				traces, err = r.TrailAfter(after, trailPage)
			}
			if err != nil {
				yield(Entry{}, err)
				return
			}
			for _, t := range traces {
				if user.ID != "" {
					t.Email = user.Email
				}
				if t.At.After(end) || !yield(Entry{Trace: t}, nil) {
					return
				}
				after = t.ID
			}
			if len(traces) < trailPage {
				return
			}
		}
	}
}

// refused reads the counts of refusals.
func (s *Service) refused(ctx context.Context, since, end time.Time, user store.User) iter.Seq2[Entry, error] {
	account := ""
	if user.ID != "" {
		account = accountOfKey(user.EmailKey)
	}
	return func(yield func(Entry, error) bool) {
		var known map[string]store.Profile
		// Behind all of the hours before.
		for after := (store.Refusals{Hour: since.Truncate(time.Hour).Add(-time.Microsecond)}); ; {
			found, err := s.Store.Read(ctx).RefusalsSince(after, account, trailPage)
			if err == nil && known == nil && len(found) > 0 {
				known, err = s.accounts(ctx, user)
			}
			if err != nil {
				yield(Entry{}, err)
				return
			}
			for _, f := range found {
				of := known[f.Account]
				e := Entry{Trace: store.Trace{At: f.Hour, Kind: TraceThrottled, UserID: of.ID, Address: f.Network, Email: of.Email}, Count: f.Count}
				if f.Hour.After(end) || !yield(e, nil) {
					return
				}
				after = f
			}
			if len(found) < trailPage {
				return
			}
		}
	}
}

// accounts are the users by what they are counted under; of one user if it is
// given.
func (s *Service) accounts(ctx context.Context, one store.User) (map[string]store.Profile, error) {
	if one.ID != "" {
		return map[string]store.Profile{accountOfKey(one.EmailKey): one.Profile}, nil
	}
	known := make(map[string]store.Profile)
	for user, err := range s.Users(ctx) {
		if err != nil {
			return nil, err
		}
		known[accountOfKey(user.EmailKey)] = store.Profile{ID: user.ID, Email: user.Email}
	}
	return known, nil
}
