package auth

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode"

	"github.com/google/uuid"

	"kwai/internal/store"
)

// Back-channel logout: apps hear of the ends of their sessions (OpenID Connect
// Back-Channel Logout 1.0). What they are to hear is written in the transaction that ends
// the session, and sent by one server at a time.

const (
	logoutTry    = 5 * time.Second // for one attempt
	logoutsOfApp = 2               // of one app at a time
	logoutBatch  = 50              // of one app are read at once
	logoutLook   = time.Second     // for apps with due logouts, while others are sent theirs
	logoutLease  = "logouts"
	logoutHold   = 15 * time.Second
	longestRetry = 10 * time.Minute
	// logoutTokenLife is short: the token is made for the attempt.
	logoutTokenLife = 2 * time.Minute
)

// logoutEvent is the member that says what the token is for (2.4 of the standard).
const logoutEvent = "http://schemas.openid.net/event/backchannel-logout"

// LogoutSender sends logouts to apps. Run calls it until the server ends.
type LogoutSender struct {
	Rules *Service
	Keep  time.Duration // for how long one is tried
	// Transport is how apps are reached; nil: over the network.
	Transport http.RoundTripper

	owner string
}

// Send sends what is due until nothing is. Only the holder of a lease does: at worst two
// processes send an app the same logout. Each app is served on its own: one that hangs
// holds up no other.
func (l *LogoutSender) Send(ctx context.Context) error {
	if l.owner == "" {
		l.owner = uuid.NewString()
	}
	type result struct {
		app string
		err error
	}
	running, failed, ended := make(map[string]bool), make(map[string]bool), make(chan result)
	var errs []error
	var sending sync.WaitGroup
	defer sending.Wait()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	for ctx.Err() == nil {
		apps, err := l.Rules.Store.Read(ctx).AppsWithDueLogouts(l.Rules.Store.Now())
		// What can't be written down for one app holds up no other.
		apps = slices.DeleteFunc(apps, func(app string) bool { return failed[app] })
		if err != nil || len(apps) == 0 && len(running) == 0 {
			return errors.Join(append(errs, err)...)
		}
		if held, err := l.hold(ctx); err != nil || !held {
			return err
		}
		for _, app := range apps {
			if running[app] {
				continue
			}
			running[app] = true
			sending.Go(func() {
				select {
				case ended <- result{app, l.app(ctx, app)}:
				case <-ctx.Done():
				}
			})
		}
		select {
		case r := <-ended:
			if r.err != nil {
				errs = append(errs, fmt.Errorf("app %s: %w", r.app, r.err))
				failed[r.app] = true
			}
			delete(running, r.app)
		case <-time.After(logoutLook):
		case <-ctx.Done():
		}
	}
	return errors.Join(errs...)
}

// hold makes this process the one that sends; false if another one is.
func (l *LogoutSender) hold(ctx context.Context) (held bool, err error) {
	err = l.Rules.Store.Statement(ctx, func(tx *store.Tx) (err error) {
		held, err = tx.HoldLease(logoutLease, l.owner, tx.Now.Add(logoutHold))
		return err
	})
	return held, err
}

// app sends one app what is due, some at a time, until nothing is.
func (l *LogoutSender) app(ctx context.Context, app string) error {
	for ctx.Err() == nil {
		// Read under the lease: its last holder may have just sent them.
		due, err := l.Rules.Store.Read(ctx).DueLogouts(app, l.Rules.Store.Now(), logoutBatch)
		if err != nil || len(due) == 0 {
			return err
		}
		var sending sync.WaitGroup
		var next atomic.Int64
		errs := make([]error, len(due))
		for range logoutsOfApp {
			sending.Go(func() {
				for ctx.Err() == nil {
					i := int(next.Add(1) - 1)
					if i >= len(due) {
						return
					}
					errs[i] = l.one(context.WithoutCancel(ctx), due[i])
				}
			})
		}
		sending.Wait()
		if err := errors.Join(errs...); err != nil {
			return err
		}
	}
	return nil
}

// one sends one logout, and writes down what came of it.
func (l *LogoutSender) one(ctx context.Context, d store.Logout) error {
	app, err := l.Rules.Store.Read(ctx).AppByID(d.AppID)
	if errors.Is(err, store.ErrNotFound) || err == nil && app.BackchannelURL == "" {
		return l.record(ctx, func(tx *store.Tx) error { _, err := tx.LogoutDelivered(d.ID); return err })
	}
	if err != nil {
		return err
	}
	err = l.post(ctx, app, d)
	log := l.Rules.Log.With("app", d.AppID, "user", d.UserID, "logout", d.ID)
	if err == nil {
		return l.record(ctx, func(tx *store.Tx) error { _, err := tx.LogoutDelivered(d.ID); return err })
	}
	now := l.Rules.Store.Now()
	due := now.Add(min(time.Second<<min(d.Attempts, 20), longestRetry))
	if !due.Before(d.CreatedAt.Add(l.Keep)) {
		due = time.Time{}
		log.Error("a logout could not be sent to its app in time; it is kept", "attempts", d.Attempts+1, "error", err)
	} else {
		log.Warn("a logout could not be sent to its app; it is tried again", "attempts", d.Attempts+1, "due", due, "error", err)
	}
	reason := err.Error()
	reason = strings.Map(func(r rune) rune { // the app may have chosen it
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, strings.ToValidUTF8(reason[:min(len(reason), 300)], ""))
	return l.record(ctx, func(tx *store.Tx) error { return tx.LogoutFailed(d.ID, reason, due) })
}

func (l *LogoutSender) record(ctx context.Context, outcome func(*store.Tx) error) error {
	return l.Rules.Store.Statement(ctx, outcome)
}

// network bounds what an app may answer, as post does of the body.
var network = func() http.RoundTripper {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.MaxResponseHeaderBytes = 64 << 10
	return t
}()

// post sends one logout token. Every 2xx counts: programs answer 204, too. A redirect is
// followed nowhere.
func (l *LogoutSender) post(ctx context.Context, app store.App, d store.Logout) error {
	ctx, cancel := context.WithTimeout(ctx, logoutTry)
	defer cancel()
	text, err := l.Rules.logoutToken(ctx, app, d)
	if err != nil {
		return err
	}
	body := strings.NewReader(url.Values{"logout_token": {text}}.Encode())
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, app.BackchannelURL, body)
	if err != nil {
		return errors.New("the address can't be asked")
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	client := &http.Client{Transport: cmp.Or[http.RoundTripper](l.Transport, network), CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	answer, err := client.Do(r)
	if err != nil {
		if inner, ok := errors.AsType[*url.Error](err); ok {
			err = inner.Err // without the address
		}
		return err
	}
	defer answer.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(answer.Body, 64<<10))
	if answer.StatusCode/100 != 2 {
		return fmt.Errorf("the app answered %d", answer.StatusCode)
	}
	return nil
}

// logoutToken says that a session is over. It has an id of its own at each attempt.
func (s *Service) logoutToken(ctx context.Context, app store.App, d store.Logout) (string, error) {
	keys, err := s.Keys.fresh(ctx)
	if err != nil {
		return "", err
	}
	now := s.Store.Now()
	return keys.ring.SignID("logout+jwt", map[string]any{
		"iss": s.Settings.Issuer, "aud": app.ID, "iat": now.Unix(), "exp": now.Add(logoutTokenLife).Unix(), "jti": uuid.NewString(),
		"sub": d.UserID, "sid": d.SID, "events": map[string]any{logoutEvent: struct{}{}},
	})
}

// Logouts lists those that apps are still to hear of, or never heard of.
func (s *Service) Logouts(ctx context.Context) iter.Seq2[store.Logout, error] {
	return paged("", s.Store.Read(ctx).Logouts, func(l store.Logout) string { return l.ID })
}

// ResendLogout has a logout sent anew; NotFound if there is none.
func (s *Service) ResendLogout(ctx context.Context, id string) error {
	return s.Store.InTx(ctx, func(tx *store.Tx) error {
		there, err := tx.ResendLogout(id)
		if err == nil && !there {
			err = refuse(NotFound, "There is no logout with that id that an app is to hear of.")
		}
		return err
	})
}
