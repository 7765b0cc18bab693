// Package auth has kwai's rules of accounts and sessions. It knows neither HTTP nor
// SQL: package web calls it for requests, cmd/kwai for commands, and it calls package
// store.
//
// A [Service] has the use cases. Make one with its store, password pool and, to serve
// requests, its [Keys]:
//
//	keys, err := auth.EnsureKeys(ctx, db, master, keySettings, log)
//	rules := &auth.Service{Store: db, Passwords: pool, Keys: keys, Settings: settings, Log: log}
//	tokens, err := rules.Login(ctx, client, email, password)
//
// A server also calls, each at its interval, Keys.Tend, TakeAllRecoveries,
// RefreshSubscribers, RefreshCosts, RefreshTiles and Purge.
//
// What it promises:
//
//   - Neither an answer nor its time reveals whether an account exists.
//   - What ends a session holds from the moment in which it is answered, on every server.
//   - An event and its audit entry are written in the transaction of the change.
//   - An error is an [Error] with a code, whose text may be shown to the client, or an
//     unknown error, whose text may not.
//
// The files, by what they are for:
//
//	auth.go         Settings, Service
//	client.go       the client of a request, or the operator
//	error.go        refusals and their codes
//
//	login.go        a login by password
//	admit.go        the one way in: what opens every session
//	pending.go      a login that waits for its second step; totp.go: codes of authenticator apps
//	passkeys.go     passkeys: registered, shown, removed
//	factors.go      what users set up to show beside a password
//	check.go        whose an access token is; tokencache.go: tokens that were verified
//	renew.go        new tokens for a refresh token; replays
//	logout.go       the end of a session by its refresh token
//	recover.go      recoveries: requested, made, mailed
//	reset.go        a new password by a recovery
//	password.go     passwords: changed, set, chosen, hashed; what unknown addresses cost
//	sessions.go     sessions: listed and ended, by their user and by an operator
//	tokens.go       the tokens of a session
//
//	actor.go        who changes an account: an operator, or its own user
//	user.go         accounts, as operators make, find and revoke them
//	update.go       names, language and address are changed
//	emailchange.go  another address, asked for and confirmed by the user
//	delete.go       the end of an account
//	data.go         all that is kept about a user
//	import.go       accounts of another system
//	mail.go         mail that wasn't delivered
//	email.go        when two addresses are the same
//
//	apps.go         apps, as operators make them and users see them; groups.go: who may use them
//	authorize.go    a code for an app, or what is still to be done
//	apptokens.go    an app's tokens: exchanged, renewed, read, revoked; its logout
//	logouts.go      apps hear of logouts
//
//	limits.go       throttling: the limits, and what an operator sees and clears
//	attempt.go      throttling: one attempt, from its begin to its end
//	keys.go         the server's keys: settings, reading, use
//	keys_rotate.go  the server's keys: schedule, rotation, revocation
//	keys_seal.go    the server's keys: sealing under a master key
//
//	event.go        events and audit entries are written
//	audit.go        the audit log is read
//	purge.go        what is over is removed
//	metrics.go      outcomes are counted
//	id.go           ids that are sorted by time; the later of two times
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
	// LoginNotices: users get a mail about a login from a new network.
	LoginNotices bool
}

// Defaults are the defaults of Settings; Issuer has none.
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
	Name      string // of this server, as the owner of leases; "": a random one
	// Changed is called after a command's change has been committed; it may be nil.
	Changed func(Change)

	costs    atomic.Pointer[[]store.CostCount]
	outside  atomic.Pointer[[]string] // subscribers that get every event
	tiles    atomic.Pointer[[]App]    // of RefreshTiles
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
