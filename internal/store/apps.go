package store

import (
	"database/sql"
	"slices"
	"strings"
	"time"

	"kwai/internal/database"
)

// App is a program that lets people in by kwai: a client of OAuth 2.
type App struct {
	ID   string // the client_id
	Name string
	// The SHA-256 of its secret, and of the one before, which is good beside it. A public
	// app has none.
	SecretHash, SecretBefore []byte
	RedirectURIs             []string
	PostLogoutURIs           []string
	HomeURL                  string   // "": it has no tile
	BackchannelURL           string   // "": it hears of no logout
	Consent                  bool     // it asks each user once
	WithoutPKCE              bool     // it may leave PKCE out
	Offline                  bool     // it may ask for offline_access
	Groups                   []string // whose members may use it; none: everybody
	CreatedAt                time.Time
}

// ScopeOffline is the scope for sessions that go on without the user's.
const ScopeOffline = "offline_access"

// Has says whether a session is the app's. One that is older than the app was another
// app's of the same id: its exchange may have met the deletion of that. An offline one is
// of an app that may no longer have such: its exchange has met that.
func (a App) Has(s AppSession) bool {
	return s.AppID == a.ID && !s.CreatedAt.Before(a.CreatedAt) && (!s.Offline || a.Offline)
}

// Public says that the app can keep no secret.
func (a App) Public() bool { return len(a.SecretHash) == 0 }

const (
	optionConsent     = "consent"
	optionWithoutPKCE = "without-pkce"
	optionOffline     = "offline"
)

func (a App) options() string {
	var all []string
	for _, o := range []struct {
		name string
		is   bool
	}{{optionConsent, a.Consent}, {optionWithoutPKCE, a.WithoutPKCE}, {optionOffline, a.Offline}} {
		if o.is {
			all = append(all, o.name)
		}
	}
	return strings.Join(all, " ")
}

const appColumns = `apps.id, apps.name, apps.secret_hash, apps.secret_before, apps.redirect_uris, apps.post_logout_uris, apps.home_url, apps.backchannel_url, apps.options, apps.created_at,
	COALESCE((SELECT string_agg(app_groups.group_name, ' ') FROM app_groups WHERE app_groups.app_id = apps.id), '')`

type appRow struct {
	App
	redirects, logouts, options, groups string
}

func (r *appRow) dest() []any {
	return []any{&r.ID, &r.Name, (*blob)(&r.SecretHash), (*blob)(&r.SecretBefore), &r.redirects, &r.logouts, &r.HomeURL, &r.BackchannelURL, &r.options, (*instant)(&r.CreatedAt), &r.groups}
}

func (r *appRow) app() App {
	r.RedirectURIs, r.PostLogoutURIs = strings.Fields(r.redirects), strings.Fields(r.logouts)
	r.Groups = slices.Sorted(strings.FieldsSeq(r.groups))
	all := strings.Fields(r.options)
	r.Consent, r.WithoutPKCE, r.Offline = slices.Contains(all, optionConsent), slices.Contains(all, optionWithoutPKCE), slices.Contains(all, optionOffline)
	return r.App
}

func scanApp(scan database.Scan) (App, error) {
	var row appRow
	err := scan(row.dest()...)
	return row.app(), err
}

// AppByID finds an app, with its groups; ErrNotFound if there is none.
func (r Reader) AppByID(id string) (App, error) {
	return database.QueryRow(r.db, scanApp, `SELECT `+appColumns+` FROM apps WHERE apps.id = $1`, id)
}

// AppAndGrant is AppByID, with what a user has let the app see; a zero Grant for nothing.
func (r Reader) AppAndGrant(id, userID string) (a App, g Grant, err error) {
	var row appRow
	_, err = database.QueryRow(r.db, func(scan database.Scan) (struct{}, error) {
		var scopes sql.NullString
		var takenBack sql.NullInt64
		err := scan(append(row.dest(), &scopes, (*instant)(&g.GrantedAt), &takenBack)...)
		g.Scopes, g.TakenBack = strings.Fields(scopes.String), takenBack.Int64
		return struct{}{}, err
	}, `SELECT `+appColumns+`, grants.scopes, grants.granted_at, grants.taken_back FROM apps
		LEFT JOIN grants ON grants.app_id = apps.id AND grants.user_id = $2 WHERE apps.id = $1`, id, userID)
	g.UserID, g.AppID = userID, id
	return row.app(), g, err
}

// Apps lists all apps, by their names.
func (r Reader) Apps() ([]App, error) {
	return database.QueryRows(r.db, scanApp, `SELECT `+appColumns+` FROM apps ORDER BY apps.name, apps.id`)
}

// InsertApp adds an app, made now; false if its id is taken.
func (tx *Tx) InsertApp(a App) (bool, error) {
	n, err := tx.Exec(`INSERT INTO apps (id, name, secret_hash, secret_before, redirect_uris, post_logout_uris, home_url, backchannel_url, options, created_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT DO NOTHING`,
		a.ID, a.Name, a.SecretHash, a.SecretBefore, strings.Join(a.RedirectURIs, "\n"), strings.Join(a.PostLogoutURIs, "\n"), a.HomeURL, a.BackchannelURL, a.options(), micros(tx.Now))
	if err != nil || n == 0 {
		return false, err
	}
	return true, tx.setAppGroups(a)
}

// LockApp keeps an app as it is until the transaction ends; ErrNotFound if there is none.
func (tx *Tx) LockApp(id string) (App, error) {
	if n, err := tx.Exec(`UPDATE apps SET name = name WHERE id = $1`, id); err != nil {
		return App{}, err
	} else if n == 0 {
		return App{}, ErrNotFound
	}
	return tx.AppByID(id)
}

// UpdateApp stores all of an app but its id and when it was made, after LockApp.
func (tx *Tx) UpdateApp(a App) error {
	_, err := tx.Exec(`UPDATE apps SET name = $1, secret_hash = $2, secret_before = $3, redirect_uris = $4, post_logout_uris = $5, home_url = $6, backchannel_url = $7, options = $8 WHERE id = $9`,
		a.Name, a.SecretHash, a.SecretBefore, strings.Join(a.RedirectURIs, "\n"), strings.Join(a.PostLogoutURIs, "\n"), a.HomeURL, a.BackchannelURL, a.options(), a.ID)
	if err == nil {
		_, err = tx.Exec(`DELETE FROM app_groups WHERE app_id = $1`, a.ID)
	}
	if err == nil {
		err = tx.setAppGroups(a)
	}
	return err
}

func (tx *Tx) setAppGroups(a App) error {
	for _, group := range a.Groups {
		if _, err := tx.Exec(`INSERT INTO app_groups (app_id, group_name) VALUES ($1, $2)`, a.ID, group); err != nil {
			return err
		}
	}
	return nil
}

// DeleteApp removes an app with its sessions, grants and logouts, after LockApp.
func (tx *Tx) DeleteApp(id string) error {
	for _, table := range []string{"app_sessions", "grants", "app_groups", "logouts"} {
		if _, err := tx.Exec(`DELETE FROM `+table+` WHERE app_id = $1`, id); err != nil {
			return err
		}
	}
	_, err := tx.Exec(`DELETE FROM apps WHERE id = $1`, id)
	return err
}

// Grant is what a user has let an app see.
type Grant struct {
	UserID, AppID string
	Scopes        []string // none: it was taken back
	GrantedAt     time.Time
	TakenBack     int64 // how often: what was made before counts no longer
}

func scanGrant(scan database.Scan) (g Grant, err error) {
	var scopes string
	err = scan(&g.UserID, &g.AppID, &scopes, (*instant)(&g.GrantedAt), &g.TakenBack)
	g.Scopes = strings.Fields(scopes)
	return g, err
}

// Grant finds what a user has let an app see; ErrNotFound if nothing.
func (r Reader) Grant(userID, appID string) (Grant, error) {
	return database.QueryRow(r.db, scanGrant, `SELECT user_id, app_id, scopes, granted_at, taken_back FROM grants WHERE user_id = $1 AND app_id = $2`, userID, appID)
}

// Grants lists what a user has let apps see, and what was taken back, by the apps' ids.
func (r Reader) Grants(userID string) ([]Grant, error) {
	return database.QueryRows(r.db, scanGrant, `SELECT user_id, app_id, scopes, granted_at, taken_back FROM grants WHERE user_id = $1 ORDER BY app_id`, userID)
}

// SetGrant stores a grant instead of the one before, after LockUser and LockApp.
func (tx *Tx) SetGrant(g Grant) error {
	_, err := tx.Exec(`INSERT INTO grants (user_id, app_id, scopes, granted_at, taken_back) VALUES ($1, $2, $3, $4, 0)
		ON CONFLICT (user_id, app_id) DO UPDATE SET scopes = excluded.scopes, granted_at = excluded.granted_at`,
		g.UserID, g.AppID, strings.Join(g.Scopes, " "), micros(tx.Now))
	return err
}

// TakeBackGrant takes a grant back, after LockUser and LockApp. It also counts where
// there was none: for apps that need none.
func (tx *Tx) TakeBackGrant(userID, appID string) error {
	_, err := tx.Exec(`INSERT INTO grants (user_id, app_id, scopes, granted_at, taken_back) VALUES ($1, $2, '', $3, 1)
		ON CONFLICT (user_id, app_id) DO UPDATE SET scopes = '', taken_back = grants.taken_back + 1`, userID, appID, micros(tx.Now))
	return err
}

// DropGrants removes all of a user's grants.
func (tx *Tx) DropGrants(userID string) error {
	_, err := tx.Exec(`DELETE FROM grants WHERE user_id = $1`, userID)
	return err
}
