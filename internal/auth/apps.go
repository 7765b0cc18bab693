package auth

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"kwai/internal/loopback"
	"kwai/internal/store"
)

// App is a program that lets people in by kwai.
type App = store.App

// MinSecret is how long an app's secret must be, in characters.
const MinSecret = 32

// Bounds of an app.
const (
	maxAppName = 100
	maxURIs    = 20
	maxURI     = 2000 // characters
)

var (
	errNoApp    = refuse(NotFound, "There is no app with that id: `kwai app list` shows them.")
	errAppTaken = refuse(Conflict, "There is an app with that id already.")
	appID       = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$`)
)

// CreateApp makes an app. Its id is a random one, if it has none. It gets a new secret
// unless it is public or one is given; that is returned, and kept nowhere. Invalid if
// something is wrong with the input, Conflict if the id is taken.
func (s *Service) CreateApp(ctx context.Context, a store.App, public bool, secret string) (store.App, string, error) {
	if a.ID == "" {
		a.ID = uuid.NewString()
	}
	switch {
	case public && secret != "":
		return a, "", InvalidFields(Field{Name: "secret", Message: "A public app has no secret."})
	case public && a.WithoutPKCE:
		return a, "", InvalidFields(Field{Name: "without-pkce", Message: "A public app can't do without PKCE: nothing else binds a code to it."})
	case !public && secret == "":
		secret = rand.Text() + rand.Text()
	}
	if !public {
		if err := checkSecret(secret); err != nil {
			return a, "", err
		}
		a.SecretHash = hashSecret(secret) // before checkApp: it has an app Public without one
	}
	if err := s.checkApp(a); err != nil {
		return a, "", err
	}
	err := s.Store.InTx(ctx, func(tx *store.Tx) error {
		if err := groupsThere(tx, a.Groups); err != nil {
			return err
		}
		if made, err := tx.InsertApp(a); err != nil {
			return err
		} else if !made {
			return errAppTaken
		}
		a.CreatedAt = tx.Now
		return recordApp(tx, AuditAppCreated, a.ID)
	})
	return a, secret, err
}

// App finds an app; NotFound if there is none.
func (s *Service) App(ctx context.Context, id string) (store.App, error) {
	// What is no id is asked of no database: PostgreSQL takes neither a NUL nor what isn't
	// UTF-8.
	if !appID.MatchString(id) {
		return store.App{}, errNoApp
	}
	a, err := s.Store.Read(ctx).AppByID(id)
	if errors.Is(err, store.ErrNotFound) || err == nil && s.isAPI(id) {
		err = errNoApp
	}
	return a, err
}

// isAPI says that an id is the --audience of the API. No app is made with it, but the
// setting can change later: programs that check tokens would then take the app's for the
// API's. So the app is none as long as that is so.
func (s *Service) isAPI(id string) bool { return id == s.Settings.Audience }

// UpdateApp changes an app by a function, which must leave id and secrets alone.
func (s *Service) UpdateApp(ctx context.Context, id string, change func(*store.App)) (a store.App, err error) {
	err = s.changeApp(ctx, id, AuditAppUpdated, func(tx *store.Tx, app *store.App) error {
		change(app)
		a = *app
		if err := s.checkApp(*app); err != nil {
			return err
		}
		if app.Public() && app.WithoutPKCE {
			return InvalidFields(Field{Name: "without-pkce", Message: "A public app can't do without PKCE: nothing else binds a code to it."})
		}
		if err := groupsThere(tx, app.Groups); err != nil {
			return err
		}
		if !app.Offline {
			// What it was let do before must not go on for months.
			if err := tx.DropOffline(app.ID); err != nil {
				return err
			}
		}
		return tx.UpdateApp(*app)
	})
	return a, err
}

// NewAppSecret gives an app another secret, a new one if none is given. The one before
// stays good beside it, until the next change or until alone has it dropped at once.
func (s *Service) NewAppSecret(ctx context.Context, id, secret string, alone bool) (string, error) {
	if secret == "" {
		secret = rand.Text() + rand.Text()
	}
	if err := checkSecret(secret); err != nil {
		return "", err
	}
	return secret, s.changeApp(ctx, id, AuditAppUpdated, func(tx *store.Tx, app *store.App) error {
		if app.Public() {
			return refuse(Conflict, "The app is public: it has no secret.")
		}
		app.SecretHash, app.SecretBefore = hashSecret(secret), app.SecretHash
		if alone {
			app.SecretBefore = nil
		}
		return tx.UpdateApp(*app)
	})
}

// DeleteApp deletes an app. All its sessions are gone at once, and nobody tells it.
func (s *Service) DeleteApp(ctx context.Context, id string) error {
	return s.changeApp(ctx, id, AuditAppDeleted, func(tx *store.Tx, app *store.App) error { return tx.DeleteApp(app.ID) })
}

func (s *Service) changeApp(ctx context.Context, id, kind string, change func(*store.Tx, *store.App) error) error {
	return s.Store.InTx(ctx, func(tx *store.Tx) error {
		app, err := tx.LockApp(id)
		if errors.Is(err, store.ErrNotFound) {
			return errNoApp
		}
		if err != nil {
			return err
		}
		if err := change(tx, &app); err != nil {
			return err
		}
		return recordApp(tx, kind, id)
	})
}

func recordApp(tx *store.Tx, kind, id string) error {
	return record(tx, nextID(tx), Operator, happening{kind: kind, reason: ByCommand, app: id})
}

func hashSecret(secret string) []byte {
	sum := sha256.Sum256([]byte(secret))
	return sum[:]
}

// checkSecret refuses what could be guessed: the hash that is stored is a fast one.
func checkSecret(secret string) error {
	if len(secret) < MinSecret || len(secret) > 200 || strings.ContainsFunc(secret, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return InvalidFields(Field{Name: "secret", Message: fmt.Sprintf("It must have %d to 200 printable ASCII characters, and no spaces.", MinSecret)})
	}
	return nil
}

// hasSecret compares in a time that says nothing of the secret.
func hasSecret(a store.App, secret string) bool {
	sum := hashSecret(secret)
	now, before := subtle.ConstantTimeCompare(sum, a.SecretHash), subtle.ConstantTimeCompare(sum, a.SecretBefore)
	return now|before == 1
}

// checkApp refuses an app that would be of no use, or a danger.
func (s *Service) checkApp(a store.App) error {
	var wrong []Field
	refuse := func(field, format string, args ...any) {
		wrong = append(wrong, Field{Name: field, Message: fmt.Sprintf(format, args...)})
	}
	if !appID.MatchString(a.ID) || s.isAPI(a.ID) {
		refuse("id", "It must be letters, digits, dots, dashes and underscores, and not the --audience of the API.")
	}
	if strings.TrimSpace(a.Name) == "" || len([]rune(a.Name)) > maxAppName || len(checkName("name", a.Name)) > 0 {
		refuse("name", "It must be 1 to %d characters that can be seen.", maxAppName)
	}
	if len(a.RedirectURIs) == 0 || len(a.RedirectURIs) > maxURIs || len(a.PostLogoutURIs) > maxURIs {
		refuse("redirect-uri", "Give 1 to %d of them.", maxURIs)
	}
	for _, uri := range a.RedirectURIs {
		if why := wrongURI(uri, a.Public()); why != "" {
			refuse("redirect-uri", "%s: %s", uri, why)
		}
	}
	for _, uri := range a.PostLogoutURIs {
		if why := wrongURI(uri, a.Public()); why != "" {
			refuse("post-logout-uri", "%s: %s", uri, why)
		}
	}
	if why := wrongURI(a.HomeURL, false); a.HomeURL != "" && why != "" {
		refuse("home-url", "%s: %s", a.HomeURL, why)
	}
	if u, err := url.Parse(a.BackchannelURL); a.BackchannelURL != "" && (err != nil || u.Scheme != "http" || u.Hostname() == "" || u.User != nil || u.Fragment != "" || !plainURI(a.BackchannelURL)) {
		if why := wrongURI(a.BackchannelURL, false); why != "" {
			refuse("backchannel-logout-uri", "%s: %s", a.BackchannelURL, why)
		}
	}
	if len(wrong) > 0 {
		return InvalidFields(wrong...)
	}
	return nil
}

// wrongURI says why nobody may be sent to an address; "": one may. Allowed are https,
// http on this machine, and for public apps private schemes with a dot (RFC 8252, 7.1).
func wrongURI(text string, public bool) string {
	u, err := url.Parse(text)
	switch {
	case err != nil || !plainURI(text) || !u.IsAbs() || u.Opaque != "" && !strings.Contains(u.Scheme, "."):
		return "it is no absolute URL"
	case strings.Contains(text, "#"):
		return "it must have no fragment"
	case strings.Contains(text, "*"):
		return "an address is compared letter by letter: there are no wildcards"
	case strings.Contains(text, ",http"):
		return "give each address on its own"
	case u.User != nil:
		return "it must name no user"
	case u.Scheme == "https" && u.Hostname() != "", u.Scheme == "http" && loopback.Is(u.Hostname()):
		return ""
	case u.Scheme == "http":
		return "http is for this machine alone: use https"
	case u.Scheme == "https":
		return "it names no host"
	case !strings.Contains(u.Scheme, "."):
		return "a private scheme must have a dot, such as org.example.app:/callback"
	case !public:
		return "a private scheme is for public apps"
	}
	return ""
}

// plainURI refuses what browsers and servers read in different ways.
func plainURI(text string) bool {
	return len(text) <= maxURI && !strings.ContainsAny(text, "\\\"<>^`{|} ") && !strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r >= 0x7f })
}

// redirects says whether an app may have people sent to an address: one of its own, letter
// by letter; for an IP of this machine with any port (RFC 8252, 7.3), as programs on a
// desk listen where they can.
func redirects(a store.App, uri string) bool {
	if slices.Contains(a.RedirectURIs, uri) {
		return true
	}
	bare, ok := withoutPort(uri)
	return ok && slices.ContainsFunc(a.RedirectURIs, func(own string) bool {
		ownBare, ok := withoutPort(own)
		return ok && ownBare == bare
	})
}

// loopbackURI is an address at an IP of this machine, as it is written down.
var loopbackURI = regexp.MustCompile(`^http://(127\.0\.0\.1|\[::1\])(:[0-9]{1,5})?(/[^#]*)?$`)

func withoutPort(uri string) (string, bool) {
	m := loopbackURI.FindStringSubmatch(uri)
	if m == nil || !plainURI(uri) {
		return "", false
	}
	return m[1] + m[3], true
}

// native says that anybody's program could stand behind an address: whoever listens at a
// port, or has registered the scheme.
func native(uri string) bool {
	u, err := url.Parse(uri)
	return err != nil || u.Scheme != "https" // http is for this machine alone: see wrongURI
}

// TakeBack has an app see nothing of a visitor any longer: its grant and its sessions
// end, and it hears of that.
func (s *Service) TakeBack(ctx context.Context, client Client, v Visitor, app string) error {
	if !appID.MatchString(app) {
		return nil
	}
	return s.Store.InTx(ctx, func(tx *store.Tx) error {
		if _, err := s.lock(tx, byVisitor(client, v), v.ID); err != nil {
			return err
		}
		if _, err := tx.LockApp(app); errors.Is(err, store.ErrNotFound) {
			return nil // all is gone with it
		} else if err != nil {
			return err
		}
		grant, err := tx.Grant(v.ID, app)
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
		// Also without a grant: a code that is on its way must not come after this.
		if err := tx.TakeBackGrant(v.ID, app); err != nil {
			return err
		}
		ended, err := tx.EndAppSessions(v.ID, app, "", store.EndLogout, true)
		if err != nil || len(grant.Scopes) == 0 && ended == 0 {
			return err
		}
		return s.publish(tx, client, happening{kind: EventGrantEnded, reason: ByUser, user: v.ID, session: v.SessionID, app: app})
	})
}

// UsedApp is an app that a user may use.
type UsedApp struct {
	store.App
	Scopes []string // that it may see, as far as it has a grant or a session
	In     bool     // the visitor is logged in there
}

// AppsOf lists the apps that a visitor may use, by their names.
func (s *Service) AppsOf(ctx context.Context, v Visitor) (used []UsedApp, err error) {
	r := s.Store.Read(ctx)
	all, err := r.Apps()
	if err != nil || len(all) == 0 {
		return nil, err
	}
	groups, err := r.GroupsOf(v.ID)
	if err != nil {
		return nil, err
	}
	live, err := r.LiveApps(v.ID, s.Store.Now(), s.Settings.lifetimes())
	if err != nil {
		return nil, err
	}
	for _, a := range all {
		u := UsedApp{App: a}
		grant, err := r.Grant(v.ID, a.ID)
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return nil, err
		}
		sees := grant.Scopes
		for _, session := range live {
			if session.AppID == a.ID {
				u.In, sees = true, append(sees, session.Scopes...)
			}
		}
		for _, scope := range Scopes { // each once, in this order
			if slices.Contains(sees, scope) {
				u.Scopes = append(u.Scopes, scope)
			}
		}
		if admits(a, groups) || u.In {
			used = append(used, u)
		}
	}
	return used, nil
}

// AppsEvery is how often a server reads which apps have tiles.
const AppsEvery = 5 * time.Second

// RefreshTiles reads them, so that the account page asks the database nothing more
// while no app is for some groups alone.
func (s *Service) RefreshTiles(ctx context.Context) error {
	all, err := s.Store.Read(ctx).Apps()
	if err != nil {
		return err
	}
	tiles := slices.DeleteFunc(all, func(a store.App) bool { return a.HomeURL == "" })
	s.tiles.Store(&tiles)
	return nil
}

// Tiles are the apps that lead on from a visitor's account page.
func (s *Service) Tiles(ctx context.Context, v Visitor) (shown []App, err error) {
	all := s.tiles.Load()
	if all == nil {
		return nil, nil
	}
	var groups []string
	if slices.ContainsFunc(*all, func(a App) bool { return len(a.Groups) > 0 }) {
		if groups, err = s.Store.Read(ctx).GroupsOf(v.ID); err != nil {
			return nil, err
		}
	}
	for _, a := range *all {
		if admits(a, groups) {
			shown = append(shown, a)
		}
	}
	return shown, nil
}

// mayUse says whether a user may use an app. Only of a user of an app that has groups it
// reads those.
func mayUse(r store.Reader, a store.App, userID string) (bool, error) {
	if len(a.Groups) == 0 {
		return true, nil
	}
	groups, err := r.GroupsOf(userID)
	return err == nil && admits(a, groups), err
}

// admits says whether members of these groups may use an app.
func admits(a store.App, groups []string) bool {
	return len(a.Groups) == 0 || slices.ContainsFunc(a.Groups, func(g string) bool { return slices.Contains(groups, g) })
}
