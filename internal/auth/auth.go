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
	"log/slog"
	"sync/atomic"
	"time"

	"kwai/internal/password"
	"kwai/internal/store"
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
	purger   *purger // of Purge; nil before the first
	purged   purgeCounts
}

// Now is the time by which the rules go: the database's.
func (s *Service) Now() time.Time { return s.Store.Now() }

// Ready says whether use cases can be served: with the database and the keys.
func (s *Service) Ready(ctx context.Context) error {
	if err := s.Store.Ready(ctx); err != nil {
		return err
	}
	return s.Keys.Ready(ctx)
}
