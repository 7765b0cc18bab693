package auth

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	"kwai/internal/store"
	"kwai/internal/token"
)

// Scopes that an app may ask for; it gets no others.
var Scopes = []string{"openid", "profile", "email", "groups", scopeOffline}

const scopeOffline = store.ScopeOffline

// codeLife is how long a code is good. RFC 6749, 4.1.2, allows ten minutes; an app
// exchanges it at once.
const codeLife = time.Minute

// AuthRequest is what an app asks for: an authorization request of OpenID Connect Core,
// as far as it has been checked against the app.
type AuthRequest struct {
	App         store.App
	RedirectURI string
	Scopes      []string
	Nonce       string
	Challenge   string // PKCE's, S256; "" where the app may leave it out
	Prompt      []string
	MaxAge      time.Duration // how old a login may be; negative: any age
	Subject     string        // the user whom the app means; "": anybody
	// Begun is when the browser first came with this request. What is asked for since
	// then has been done: so nobody goes round in circles.
	Begun time.Time
}

// Needs is what a visitor must do before an app gets a code.
type Needs int

// The needs, in their order.
const (
	Nothing     Needs = iota
	AnotherUser       // than the visitor, to log in
	ALogin            // once more, or a fresh one
	AChoice           // consent, or the word that it is this account which goes on
)

// ErrNotAllowed says that the user is in none of the app's groups.
var ErrNotAllowed = refuse(Forbidden, "This account may not use the app.")

// Redirects says whether the app may have people sent to the address.
func (s *Service) Redirects(a store.App, uri string) bool { return redirects(a, uri) }

// Authorize makes a code for a request of a visitor, unless something is still to be
// done. chosen says that the visitor has just agreed. It writes nothing, but the grant of
// one who agreed. ErrNotAllowed where the user may not use the app.
func (s *Service) Authorize(ctx context.Context, client Client, v Visitor, r AuthRequest, chosen bool) (code string, needs Needs, err error) {
	if r.Subject != "" && r.Subject != v.ID {
		return "", AnotherUser, nil
	}
	may, err := mayUse(s.Store.Read(ctx), r.App, v.ID)
	if err == nil && !may {
		err = ErrNotAllowed
	}
	if err != nil {
		return "", Nothing, err
	}
	if loginNeeded(v, r, s.Store.Now()) {
		return "", ALogin, nil
	}
	granted, err := s.Store.Read(ctx).Grant(v.ID, r.App.ID)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return "", Nothing, err
	}
	if !chosen {
		if choiceNeeded(r, granted) {
			return "", AChoice, nil
		}
	} else if r.Grants() {
		if err := s.grant(ctx, client, v, r); err != nil {
			return "", Nothing, err
		}
	}
	code, err = s.makeCode(ctx, v, r, granted.TakenBack)
	return code, Nothing, err
}

// loginNeeded says that an app asks for a login, or for one that isn't as old. A login
// since the request began is what it asks for, as long as it counts as fresh: a mark that
// was kept for longer must not have an old login taken for a new one.
func loginNeeded(v Visitor, r AuthRequest, now time.Time) bool {
	age := now.Sub(v.AuthTime)
	if !v.AuthTime.Before(r.Begun) && age >= -store.ClockSlack && age < freshLife {
		return false
	}
	return slices.Contains(r.Prompt, "login") || r.MaxAge >= 0 && age > r.MaxAge
}

// Grants says that who goes on agrees to what the app asks to see, from then on; else the
// account is chosen, for this once.
func (r AuthRequest) Grants() bool { return r.App.Consent || slices.Contains(r.Prompt, "consent") }

func choiceNeeded(r AuthRequest, granted store.Grant) bool {
	if slices.Contains(r.Prompt, "consent") || slices.Contains(r.Prompt, "select_account") || r.App.Public() && native(r.RedirectURI) {
		return true
	}
	return r.App.Consent && slices.ContainsFunc(r.Scopes, func(scope string) bool { return !slices.Contains(granted.Scopes, scope) })
}

// grant notes what a visitor has agreed to.
func (s *Service) grant(ctx context.Context, client Client, v Visitor, r AuthRequest) error {
	return s.Store.InTx(ctx, func(tx *store.Tx) error {
		if _, err := s.lock(tx, byVisitor(client, v), v.ID); err != nil {
			return err
		}
		if _, err := tx.LockApp(r.App.ID); errors.Is(err, store.ErrNotFound) {
			return errNoApp
		} else if err != nil {
			return err
		}
		g, err := tx.Grant(v.ID, r.App.ID)
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
		more := slices.Concat(g.Scopes, slices.DeleteFunc(slices.Clone(r.Scopes), func(scope string) bool { return slices.Contains(g.Scopes, scope) }))
		if err == nil && len(more) == len(g.Scopes) {
			return nil // as before
		}
		if err := tx.SetGrant(store.Grant{UserID: v.ID, AppID: r.App.ID, Scopes: more}); err != nil {
			return err
		}
		return s.publish(tx, client, happening{kind: EventGranted, reason: ByUser, user: v.ID, session: v.SessionID, app: r.App.ID})
	})
}

// code is what a code stands for. Nothing of it is stored: it is sealed.
type code struct {
	ID          string // of the session that comes of it
	User        string
	AuthVersion int64
	Session     string
	TakenBack   int64 // how often the grant had been
	App         string
	RedirectURI string
	Challenge   string
	Nonce       string
	Scopes      []string
	AuthTime    time.Time
	AMR         string
	MadeAt      time.Time
}

const codeLabel = "kwai code v1"

func (s *Service) makeCode(ctx context.Context, v Visitor, r AuthRequest, takenBack int64) (string, error) {
	keys, err := s.Keys.fresh(ctx)
	if err != nil {
		return "", err
	}
	now := s.Store.Now()
	plain, err := json.Marshal(code{
		ID: newID(now), User: v.ID, AuthVersion: v.User.AuthVersion, Session: v.SessionID, TakenBack: takenBack, App: r.App.ID, RedirectURI: r.RedirectURI,
		Challenge: r.Challenge, Nonce: r.Nonce, Scopes: r.Scopes, AuthTime: v.AuthTime, AMR: v.AMR, MadeAt: now,
	})
	if err != nil {
		return "", err
	}
	text, err := keys.ring.Seal(codeLabel, plain)
	return text, notYet(err)
}

// notYet says that the keys of apps are still being made, just after the first start.
func notYet(err error) error {
	if errors.Is(err, token.ErrNoKey) {
		return ErrBusy
	}
	return err
}

// openCode reads a code; false for anything else.
func (s *Service) openCode(ctx context.Context, text string) (c code, ok bool, err error) {
	plain, ok, err := s.openSealed(ctx, codeLabel, text)
	if err != nil || !ok {
		return c, false, err
	}
	age := s.Store.Now().Sub
	if err := json.Unmarshal(plain, &c); err != nil {
		return c, false, err
	}
	return c, age(c.MadeAt) < codeLife && age(c.MadeAt) > -store.ClockSlack, nil
}

// sidOf is what a browser session is called at an app.
func sidOf(session, app string) string {
	sum := sha256.Sum256([]byte("kwai sid v1\x00" + session + "\x00" + app))
	return hex.EncodeToString(sum[:16])
}

// BeginAuth is the mark of when a browser first came with a request. It is worth nothing
// beside another request, and says nothing without its MAC.
func (s *Service) BeginAuth(ctx context.Context, request string) (string, error) {
	keys, err := s.Keys.fresh(ctx)
	if err != nil {
		return "", err
	}
	at := strconv.FormatInt(s.Store.Now().UnixMicro(), 10)
	return at + "." + keys.ring.FormMAC("authorize", at, request), nil
}

// BegunAuth is when a request began; now where the mark is none of ours. A mark is good
// for an hour: who comes later begins anew.
func (s *Service) BegunAuth(ctx context.Context, request, mark string) (begun time.Time, known bool, err error) {
	now := s.Store.Now()
	keys, err := s.Keys.fresh(ctx)
	if err != nil {
		return now, false, err
	}
	at, mac, _ := strings.Cut(mark, ".")
	if !keys.ring.CheckFormMAC(mac, "authorize", at, request) {
		return now, false, nil
	}
	n, err := strconv.ParseInt(at, 10, 64)
	if err != nil {
		return now, false, err // we made it
	}
	if begun = time.UnixMicro(n); now.Sub(begun) > time.Hour {
		return now, false, nil
	}
	return begun, true, nil
}
