package auth

import (
	"context"
	"iter"
	"time"

	"kwai/internal/store"
)

// UserData is all that is kept about a user, but for secrets and for what is gone within
// hours: links and mails that are on their way.
type UserData struct {
	Account     AccountData
	Factors     FactorsData
	Networks    iter.Seq2[NetworkData, error]
	Groups      iter.Seq2[string, error]
	Grants      iter.Seq2[GrantData, error]
	Sessions    iter.Seq2[SessionData, error]
	AppSessions iter.Seq2[AppSessionData, error]
	AuditLog    iter.Seq2[EntryData, error]
}

// AccountData is an account, as its user takes it along. A time that isn't there is null,
// here and below.
type AccountData struct {
	ID            string     `json:"id"`
	Email         string     `json:"email"`
	FirstName     string     `json:"first_name"`
	LastName      string     `json:"last_name"`
	Language      string     `json:"language"`
	CreatedAt     time.Time  `json:"created_at"`
	LastLoginAt   *time.Time `json:"last_login_at"`
	PasswordSetAt *time.Time `json:"password_set_at"`
	EmailProvenAt *time.Time `json:"email_proven_at"`
}

// FactorsData is what the user logs in by beside the password.
type FactorsData struct {
	TwoSteps         bool               `json:"two_steps"` // by the user's own choice
	TwoStepsRequired bool               `json:"two_steps_required"`
	Authenticator    *AuthenticatorData `json:"authenticator"`
	RecoveryCodes    int64              `json:"recovery_codes"` // that are left
	Passkeys         []PasskeyData      `json:"passkeys"`
}

// AuthenticatorData is an authenticator app.
type AuthenticatorData struct {
	CreatedAt  time.Time  `json:"created_at"`
	LastUsedAt *time.Time `json:"last_used_at"`
}

// PasskeyData is a passkey.
type PasskeyData struct {
	Name       string     `json:"name"`
	Host       string     `json:"host"` // that it is for
	CreatedAt  time.Time  `json:"created_at"`
	LastUsedAt *time.Time `json:"last_used_at"`
}

// NetworkData is a network that the account knows, or all others, with the logins that
// failed there.
type NetworkData struct {
	Of         string     `json:"of"`      // "passwords", or "codes" behind a right password
	Network    string     `json:"network"` // "": all that the account doesn't know
	Failures   int64      `json:"failed_logins"`
	WaitsUntil *time.Time `json:"waits_until"`
	KeptUntil  time.Time  `json:"kept_until"`
}

// SessionData is a session, live or ended. Where its user was is in the audit log.
type SessionData struct {
	ID         string     `json:"id"`
	Kind       string     `json:"kind"`
	AMR        string     `json:"amr"` // what was shown, RFC 8176
	AuthTime   time.Time  `json:"auth_time"`
	CreatedAt  time.Time  `json:"created_at"`
	LastUsedAt time.Time  `json:"last_used_at"`
	EndedAt    *time.Time `json:"ended_at"`
}

// GrantData is what an app was let see.
type GrantData struct {
	App       string    `json:"app"`
	Scopes    []string  `json:"scopes"` // none: it was taken back
	GrantedAt time.Time `json:"granted_at"`
}

// AppSessionData is a session at an app, live or ended.
type AppSessionData struct {
	ID         string     `json:"id"`
	App        string     `json:"app"`
	Session    string     `json:"session"` // that it came of
	Scopes     []string   `json:"scopes"`
	AMR        string     `json:"amr"`
	AuthTime   time.Time  `json:"auth_time"`
	CreatedAt  time.Time  `json:"created_at"`
	LastUsedAt time.Time  `json:"last_used_at"`
	EndedAt    *time.Time `json:"ended_at"`
}

// EntryData is an entry of the audit log.
type EntryData struct {
	At        time.Time `json:"at"`
	Kind      string    `json:"kind"`
	Reason    string    `json:"reason"`
	Session   string    `json:"session"`
	App       string    `json:"app"`
	Address   string    `json:"address"`
	UserAgent string    `json:"user_agent"`
}

// Data is all that is kept about a visitor with a fresh proof; ErrNotLoggedIn without
// one, Throttled after 20 times within an hour. Its lists are read in pages while they are
// gone through: they may be long. That the visitor took it is recorded, since a thief
// would want it, too.
func (s *Service) Data(ctx context.Context, client Client, v Visitor) (UserData, error) {
	if !v.Fresh {
		return UserData{}, ErrNotLoggedIn
	}
	var u store.User
	err := s.Store.InTx(ctx, func(tx *store.Tx) (err error) {
		if u, err = s.lock(tx, byVisitor(client, v), v.ID); err != nil {
			return err
		}
		if err := s.atMost(tx, ownHour, AuditExported, v.ID, errOften); err != nil {
			return err
		}
		return record(tx, nextID(tx), client, happening{kind: AuditExported, reason: ByUser, user: v.ID, session: v.SessionID})
	})
	if err != nil {
		return UserData{}, err
	}
	factors, err := s.factorsData(ctx, v.ID)
	if err != nil {
		return UserData{}, err
	}
	r := s.Store.Read(ctx)
	sessions := func(after string, n int) ([]store.Session, error) { return r.SessionsOfUserAfter(v.ID, after, n) }
	appSessions := func(after string, n int) ([]store.AppSession, error) { return r.AppSessionsOfUserAfter(v.ID, after, n) }
	return UserData{
		Account:  AccountData{u.ID, u.Email, u.FirstName, u.LastName, u.Language, u.CreatedAt, orNull(u.LastLoginAt), orNull(u.PasswordSetAt), orNull(u.EmailProvenAt)},
		Factors:  factors,
		Networks: s.networkData(r, u),
		Sessions: mapped(paged("", sessions, func(s store.Session) string { return s.ID }), func(s store.Session) SessionData {
			return SessionData{s.ID, string(s.Kind), s.AMR, s.AuthTime, s.CreatedAt, s.RenewedAt, orNull(s.EndedAt)}
		}),
		Groups: listed(func() ([]string, error) { return r.GroupsOf(v.ID) }),
		Grants: mapped(listed(func() ([]store.Grant, error) { return r.Grants(v.ID) }), func(g store.Grant) GrantData {
			return GrantData{g.AppID, append([]string{}, g.Scopes...), g.GrantedAt}
		}),
		AppSessions: mapped(paged("", appSessions, func(s store.AppSession) string { return s.ID }), func(s store.AppSession) AppSessionData {
			return AppSessionData{s.ID, s.AppID, s.ParentID, s.Scopes, s.AMR, s.AuthTime, s.CreatedAt, s.RenewedAt, orNull(s.EndedAt)}
		}),
		AuditLog: mapped(s.AuditLog(ctx, time.Time{}, v.ID), func(e store.AuditEntry) EntryData {
			return EntryData{e.At, e.Kind, e.Reason, e.SessionID, e.AppID, e.Address, e.UserAgent}
		}),
	}, nil
}

func (s *Service) factorsData(ctx context.Context, userID string) (FactorsData, error) {
	f, err := s.Factors(ctx, userID)
	d := FactorsData{TwoSteps: f.TwoSteps, TwoStepsRequired: f.Group, RecoveryCodes: f.RecoveryCodes, Passkeys: []PasskeyData{}}
	if f.Authenticator {
		d.Authenticator = &AuthenticatorData{f.AuthenticatorAt, orNull(f.AuthenticatorUsedAt)}
	}
	for _, p := range f.Passkeys {
		d.Passkeys = append(d.Passkeys, PasskeyData{p.Name, p.RPID, p.CreatedAt, orNull(p.UsedAt)})
	}
	return d, err
}

func (s *Service) networkData(r store.Reader, u store.User) iter.Seq2[NetworkData, error] {
	return func(yield func(NetworkData, error) bool) {
		for _, of := range [][2]string{{"passwords", accountOfKey(u.EmailKey)}, {"codes", codesOf(u.ID)}} {
			counts, err := r.AttemptsOf(of[1])
			for _, a := range counts {
				d := NetworkData{Of: of[0], Network: a.Network, Failures: a.Failures, KeptUntil: a.ExpiresAt}
				if a.Until.After(s.Store.Now()) {
					d.WaitsUntil = &a.Until
				}
				if !yield(d, nil) {
					return
				}
			}
			if err != nil {
				yield(NetworkData{}, err)
				return
			}
		}
	}
}

func orNull(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

// listed are the rows of a list that is read at once.
func listed[T any](read func() ([]T, error)) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		all, err := read()
		for _, row := range all {
			if !yield(row, nil) {
				return
			}
		}
		if err != nil {
			var none T
			yield(none, err)
		}
	}
}

// mapped are the rows as f shows them.
func mapped[T, V any](rows iter.Seq2[T, error], f func(T) V) iter.Seq2[V, error] {
	return func(yield func(V, error) bool) {
		for row, err := range rows {
			if !yield(f(row), err) {
				return
			}
		}
	}
}
