package auth

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"kwai/internal/password"
	"kwai/internal/store"
	"kwai/internal/token"
)

// shortLife is how long a browser session lasts that isn't to stay on its device.
const shortLife = 12 * time.Hour

const (
	// freshLife is how long a proof counts as fresh: to be shown a form that changes a
	// password, an address or what a login must show.
	freshLife = 10 * time.Minute
	// FormLife is how long such a form may then be sent.
	FormLife = 15 * time.Minute
)

// Cookie is what holds a browser session.
type Cookie struct {
	Value   string
	Expires time.Time // zero: when the browser ends
}

// Visitor is the user whose browser sent a cookie.
type Visitor struct {
	Caller
	User store.User
	// Fresh says that everything the account demands was shown within freshLife, and
	// that the cookie is the one that was given for it.
	Fresh bool
	// FreshForm is Fresh, also for the form that was just taken and was shown while it was.
	FreshForm bool
	// AuthTime is when its user proved to be that, as far as this cookie says, and AMR
	// by what.
	AuthTime time.Time
	AMR      string

	number int64     // of the cookie
	inTime bool      // to send a form that was shown while the cookie was fresh
	at     time.Time // when the session was read
}

// LoginBrowser is Login for the login page. A session that is to stay lasts as long as
// those of the API, another one twelve hours, and its cookie until the browser ends. A
// second step must come from the same browser, which a cookie of its own names.
func (s *Service) LoginBrowser(ctx context.Context, client Client, email, password string, stay bool, browser string) (Cookie, error) {
	d := door{kind: store.KindBrowser, stay: stay, browser: browser}
	if !stay {
		d.life = min(shortLife, s.Settings.SessionLife)
	}
	session, err := s.login(ctx, client, email, password, "", d)
	if err != nil {
		return Cookie{}, err
	}
	return s.cookie(ctx, session)
}

// Prove is a fresh proof: the visitor shows the password again, and the session's
// cookie is replaced by one that counts as fresh. As long as nobody has come with that
// one, a proof by the cookie from before gives the same once more. Its errors are
// Login's, for the account that the visitor has, and ErrNotLoggedIn where the cookie is
// dead by now.
func (s *Service) Prove(ctx context.Context, client Client, v Visitor, password, browser string) (Cookie, error) {
	session, err := s.login(ctx, client, v.User.Email, password, "", door{kind: store.KindBrowser, proves: &v, browser: browser})
	if err != nil {
		return Cookie{}, err
	}
	return s.cookie(ctx, session)
}

// cookie is the newest of a browser session.
func (s *Service) cookie(ctx context.Context, session store.Session) (Cookie, error) {
	id, err := uuid.Parse(session.ID)
	if err != nil {
		return Cookie{}, err
	}
	keys, err := s.Keys.fresh(ctx)
	if err != nil {
		return Cookie{}, err
	}
	c := Cookie{Value: keys.ring.Browser(id, uint64(session.Counter))}
	if session.EndsAt.IsZero() {
		c.Expires = session.CreatedAt.Add(s.Settings.SessionLife)
	}
	return c, nil
}

// Visitor says whose browser sent the cookie; ErrNotLoggedIn for every reason.
//
// The newest number is fresh for freshLife after its proof. The one before it is good,
// and not fresh, until the newest has come back once: an answer may have been lost. All
// older ones are dead, which is no replay and ends nothing: an old cookie comes back
// with a browser that was restored. A number above the newest means that the database
// lost history: it is good, and not fresh.
func (s *Service) Visitor(ctx context.Context, cookie string) (Visitor, error) {
	v, session, err := s.findVisitor(ctx, cookie)
	if err == nil && v.number == session.Counter && !session.Seen() {
		// Read anew after that: else the visit could be before a new password, by which user
		// it has, and after it, since the number from before is dead by now.
		err = s.Store.Statement(ctx, func(tx *store.Tx) error {
			_, err := tx.SeeNumber(session.ID, v.number)
			return err
		})
		if err == nil {
			v, session, err = s.findVisitor(ctx, cookie)
		}
	}
	// From time to time it is noted that the session is used. Most visits write nothing.
	if err == nil && v.at.Sub(session.RenewedAt) > min(time.Hour, s.Settings.RefreshIdle/10) {
		err = s.Store.Statement(ctx, func(tx *store.Tx) error { return tx.TouchSession(session.ID) })
	}
	if err != nil {
		return Visitor{}, err
	}
	return v, nil
}

// PeekVisitor is Visitor for a request that has no effect (HEAD): the number isn't
// seen by it, nor does the idle time begin anew.
func (s *Service) PeekVisitor(ctx context.Context, cookie string) (Visitor, error) {
	v, _, err := s.findVisitor(ctx, cookie)
	return v, err
}

// findVisitor reads the session of a cookie, and is all that a dead one costs.
func (s *Service) findVisitor(ctx context.Context, cookie string) (v Visitor, session store.Session, err error) {
	id, number, err := s.Keys.parseBrowser(ctx, cookie)
	if errors.Is(err, token.ErrRefresh) {
		return v, session, ErrNotLoggedIn
	}
	if err != nil {
		return v, session, err
	}
	now := s.Store.Now()
	session, user, group, err := s.Store.Read(ctx).BrowserSession(id.String(), now, s.Settings.lifetimes())
	if errors.Is(err, store.ErrNotFound) {
		return v, session, ErrNotLoggedIn
	}
	if err != nil {
		return v, session, err
	}
	v = Visitor{Caller: Caller{user.Profile, session.ID}, User: user, AuthTime: session.CreatedAt, AMR: session.AMR, number: int64(number), at: now}
	switch newest := session.Counter; {
	case v.number == newest:
		v.AuthTime = session.AuthTime
		age := now.Sub(session.AuthTime)
		// A clock that was ahead must not make a proof that is fresh for long.
		v.Fresh, v.inTime = age >= -store.ClockSlack && age < freshLife, age >= -store.ClockSlack && age < freshLife+FormLife
		if (group || !user.TwoStepsAt.IsZero()) && !slices.Contains(strings.Fields(session.AMR), amrMore) {
			// It demands more since than it did when it was shown.
			v.Fresh, v.inTime = false, false
		}
		v.FreshForm = v.Fresh
	case v.number > newest, v.number == newest-1 && !session.Seen():
	default:
		return Visitor{}, session, ErrNotLoggedIn
	}
	return v, session, nil
}

// LogoutVisitor ends the visitor's session, everywhere: from then on its cookie is
// worth nothing. It has ended already, perhaps by another tab: then nothing is wrong.
func (s *Service) LogoutVisitor(ctx context.Context, client Client, v Visitor) error {
	err := s.EndSession(ctx, client, v.Caller, v.SessionID)
	if errors.Is(err, ErrNotOwn) {
		return nil
	}
	return err
}

// ChoosePassword gives a visitor with a fresh proof a new password, and ends all other
// sessions. The cookie of this one is replaced, as by a proof, so that a copy of it ends
// too. Its errors: ErrNotLoggedIn without the proof, or where the password was
// changed or the session ended meanwhile; Invalid for a password that breaks the policy;
// Throttled after 10 changes within an hour.
func (s *Service) ChoosePassword(ctx context.Context, client Client, v Visitor, chosen string) (cookie Cookie, err error) {
	defer func() { s.counts.count(changes, succeeded, err) }()
	if !v.FreshForm {
		return cookie, ErrNotLoggedIn
	}
	ctx = password.InTurn(ctx, client.network(), accountOfKey(v.User.EmailKey))
	fresh, err := s.choose(ctx, chosen, v.User)
	if err != nil {
		return cookie, err
	}
	var session store.Session
	err = s.Store.InTx(ctx, func(tx *store.Tx) error {
		changed, err := s.storePassword(tx, client, v.Caller, v.User, fresh)
		if err == nil && !changed {
			err = ErrNotLoggedIn
		}
		// Who guessed codes behind the password before has to find the new one first. The
		// visitor has shown a code, unlike who resets by mail.
		if err == nil {
			err = tx.ForgetFailures(codesOf(v.ID))
		}
		if err == nil {
			session, err = tx.RaiseNumber(v.SessionID, v.ID, v.number, "", s.Settings.lifetimes())
		}
		if errors.Is(err, store.ErrNotFound) { // a proof has replaced the cookie meanwhile
			err = ErrNotLoggedIn
		}
		return err
	})
	if err != nil {
		return cookie, err
	}
	return s.cookie(ctx, session)
}

// activityShown bounds a list of what happened.
const activityShown = 100

// Activity is what was recorded of the visitor before the entry of that id, the latest
// first, at most 100 entries; and whether there are more. "" has it begin at the latest.
func (s *Service) Activity(ctx context.Context, v Visitor, before string) (found []store.AuditEntry, more bool, err error) {
	found, err = s.Store.Read(ctx).RecentAuditLog(v.ID, before, activityShown+1)
	if len(found) > activityShown {
		found, more = found[:activityShown], true
	}
	return found, more, err
}

// FormMAC binds a form to the visitor's session. A second part says that it was shown
// while the visitor was fresh, by which proof: a form that was shown later must not be
// sent in its place. more is what else the form is bound to.
func (s *Service) FormMAC(ctx context.Context, v Visitor, more ...string) (string, error) {
	keys, err := s.Keys.fresh(ctx)
	if err != nil {
		return "", err
	}
	mac := keys.ring.FormMAC(formParts(v, more)...)
	if v.Fresh {
		mac += " " + keys.ring.FormMAC(freshParts(v, more)...)
	}
	return mac, nil
}

// TakeForm says whether the form was made for this visitor. The visitor that it returns
// is a FreshForm if this form was shown while the visitor was fresh, at most FormLife
// after that.
func (s *Service) TakeForm(ctx context.Context, v Visitor, mac string, more ...string) (Visitor, bool, error) {
	keys, err := s.Keys.fresh(ctx)
	if err != nil {
		return v, false, err
	}
	bound, proof, _ := strings.Cut(mac, " ")
	if !keys.ring.CheckFormMAC(bound, formParts(v, more)...) {
		return v, false, nil
	}
	v.FreshForm = v.Fresh || v.inTime && keys.ring.CheckFormMAC(proof, freshParts(v, more)...)
	return v, true, nil
}

func formParts(v Visitor, more []string) []string {
	return append([]string{v.SessionID, v.ID}, more...)
}

func freshParts(v Visitor, more []string) []string {
	return append([]string{"fresh", strconv.FormatInt(v.number, 10)}, formParts(v, more)...)
}
