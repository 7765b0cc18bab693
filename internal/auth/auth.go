// Package auth has kwai's rules: who may log in, how long a session lives, when
// a recovery is made and what ends what. It knows neither HTTP nor SQL.
//
// One file per use case: login.go, check.go, logout.go, renew.go, recover.go,
// reset.go, password.go, sessions.go; limit.go says how often a password may be
// tried, audit.go what is recorded, purge.go what goes again; user.go has what an operator does to
// accounts, email.go when two addresses are the same. The server's keys are in
// keys.go, how they change in rotate.go, how they are sealed in reseal.go.
//
// Its errors are [Error] values with a code, whose text may be shown to the
// client, or unknown errors, whose text may not.
package auth

import (
	"context"
	"encoding/binary"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"kwai/internal/password"
	"kwai/internal/store"
	"kwai/verify"
)

// Settings are the rules' numbers and names.
type Settings struct {
	Issuer   string // of access tokens: the public URL
	Audience string // of access tokens, and their client_id

	AccessTTL      time.Duration // of an access token
	RefreshIdle    time.Duration // of a session that isn't renewed
	SessionLife    time.Duration // of a session at most
	ReuseWindow    time.Duration // in which a replaced refresh token still works
	RecoveryLife   time.Duration // of a recovery since it was requested
	InvitationLife time.Duration // of a recovery that an operator started with the account

	Limits    Limits
	AuditKeep time.Duration // how long the audit log is kept at least, and mail that was given up
	// LoginNotices has users told by mail of logins from networks that are new.
	LoginNotices bool

	KeyRotation time.Duration // how long a server key is active; 0: until an operator rotates it
	JWKSMaxAge  time.Duration // how long anyone may cache the public keys
}

// Defaults are the settings where nothing else is said; Issuer has none.
var Defaults = Settings{
	Audience:       "kwai",
	AccessTTL:      time.Hour,
	RefreshIdle:    30 * 24 * time.Hour,
	SessionLife:    90 * 24 * time.Hour,
	ReuseWindow:    time.Minute,
	RecoveryLife:   2 * time.Hour,
	InvitationLife: 72 * time.Hour,
	Limits: Limits{
		Free: 5, FirstWait: time.Second, LongestWait: time.Hour, Most: 100, Remember: 90 * 24 * time.Hour,
		NetworkBurst: 300, NetworkHour: 200,
		MailPause: time.Minute, MailHour: 5,
	},
	AuditKeep:    400 * 24 * time.Hour,
	LoginNotices: true,
	KeyRotation:  90 * 24 * time.Hour,
	JWKSMaxAge:   5 * time.Minute,
}

func (s Settings) lifetimes() store.Lifetimes {
	return store.Lifetimes{Idle: s.RefreshIdle, Session: s.SessionLife}
}

// Service applies the rules. Its fields are set once, before its first use.
type Service struct {
	Store     *store.Store
	Passwords *password.Pool
	Keys      *Keys // nil in commands, which make and check no tokens
	Settings  Settings
	Log       *slog.Logger
	Name      string // of this server, as the holder of leases; "" for one of its own
	// Changed is called after a command's change has been committed; it may be nil.
	Changed func(Change)

	costs    atomic.Pointer[[]store.CostCount]
	outside  atomic.Pointer[[]string] // subscribers who are told every event
	requests atomic.Int64             // recovery requests taken since all had been looked at
	underWay underWay
	counts   counts
	purged   purgeCounts
}

// Tokens are what a login or a renewal answers.
type Tokens struct {
	Access    string // a JWT as RFC 9068 has it
	Refresh   string
	ExpiresAt time.Time // of the access token
	ExpiresIn time.Duration
}

// tokens makes a session's current refresh token and a new access token, which
// never outlives the session.
func (s *Service) tokens(ctx context.Context, session store.Session, now time.Time) (Tokens, error) {
	id, err := uuid.Parse(session.ID)
	if err != nil {
		return Tokens{}, err
	}
	// What a key signs that is active no more might outlive it.
	keys, err := s.Keys.fresh(ctx)
	if err != nil {
		return Tokens{}, err
	}
	// JWTs count in seconds; what is promised is the earlier one.
	now = now.Truncate(time.Second)
	expires := now.Add(s.Settings.AccessTTL)
	for _, end := range []time.Time{session.CreatedAt.Add(s.Settings.SessionLife), session.RenewedAt.Add(s.Settings.RefreshIdle)} {
		if expires.After(end) {
			expires = end.Truncate(time.Second)
		}
	}
	access, err := keys.ring.Sign(verify.Claims{
		Issuer:    s.Settings.Issuer,
		Audience:  s.Settings.Audience,
		ClientID:  s.Settings.Audience,
		Subject:   session.UserID,
		SessionID: session.ID,
		ID:        uuid.NewString(),
		IssuedAt:  now,
		AuthTime:  session.CreatedAt.Truncate(time.Second),
		ExpiresAt: expires,
	})
	if err != nil {
		return Tokens{}, err
	}
	keys.verified.put(access, tokenInfo{session.ID, session.UserID, expires})
	return Tokens{
		Access:    access,
		Refresh:   keys.ring.Refresh(id, uint64(session.Counter)),
		ExpiresAt: expires,
		ExpiresIn: expires.Sub(now),
	}, nil
}

// newID is a UUID v7 of that time: sorted by it, for what nobody outside sees or
// what tells its time anyway. Users' ids are v4. Not the library's, which knows
// only the machine's clock; that of the database is what counts.
func newID(now time.Time) string {
	id := uuid.New()
	stamp(&id, now)
	return id.String()
}

// nextID is newID of a transaction's time. Those of one transaction, or of several
// that are committed together, are sorted by when they were made.
func nextID(tx *store.Tx) string {
	id := uuid.New()
	stamp(&id, tx.Now)
	n := tx.Next()
	id[8], id[9], id[10] = 0x80|byte(n>>16)&0x3f, byte(n>>8), byte(n) // above the variant's bits and the random ones
	return id.String()
}

// firstID is the least id of that time.
func firstID(at time.Time) string {
	var id uuid.UUID
	id[8] = 0x80
	stamp(&id, at)
	return id.String()
}

// stamp writes the milliseconds, and of the next one the fraction in 4096ths
// (RFC 9562, 5.7 and 6.2, method 3).
func stamp(id *uuid.UUID, t time.Time) {
	us := max(t.UnixMicro(), 0)
	binary.BigEndian.PutUint64(id[:8], uint64(us/1000)<<16|0x7000|uint64(us%1000*4096/1000))
}
