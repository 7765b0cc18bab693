package web

import (
	"errors"
	"net/http"
	"sync"
	"time"

	"github.com/google/uuid"

	"kwai/internal/auth"
)

// visitPage is page for a visitor: the layout leads to the account and the logout, and
// forms are sealed for the visitor.
func (s *Server) visitPage(w http.ResponseWriter, r *http.Request, v auth.Visitor, status int, name string, data any) error {
	return s.writeVisit(w, r, v, status, name, data)
}

// boundPage is visitPage for a form that is also bound to something else.
func (s *Server) boundPage(w http.ResponseWriter, r *http.Request, v auth.Visitor, name string, data any, to string) error {
	return s.writeVisit(w, r, v, http.StatusOK, name, data, to)
}

func (s *Server) writeVisit(w http.ResponseWriter, r *http.Request, v auth.Visitor, status int, name string, data any, to ...string) error {
	seal := sync.OnceValues(func() (string, error) { return s.Rules.FormMAC(r.Context(), v, to...) })
	return s.write(w, r, status, name, view{Visitor: v.User.Email, Data: data, seal: seal})
}

// homePage answers GET / where there is no site to go on to.
func (s *Server) homePage(w http.ResponseWriter, r *http.Request, _ auth.Visitor) error {
	return seeOther(w, r, "account")
}

// accountPage is the data of "account".
type accountPage struct {
	auth.Visitor
	Done      string     // what has just been done; "": nothing
	CanDelete bool       // the account
	Apps      []auth.App // that lead on from here
}

// accountPage is the overview.
func (s *Server) accountPage(w http.ResponseWriter, r *http.Request, v auth.Visitor) error {
	page := accountPage{Visitor: v, CanDelete: s.SelfDelete, Done: s.done(r)}
	var err error
	if page.Apps, err = s.Rules.Tiles(r.Context(), v); err != nil {
		return err
	}
	return s.visitPage(w, r, v, http.StatusOK, "account", page)
}

// done is what has just been done, as the page says that led here; "": nothing.
func (s *Server) done(r *http.Request) string {
	if key, l := "account.done."+r.URL.Query().Get("done"), s.language(r); l.Has(key) && ledHere(r) {
		return l.Text(key)
	}
	return ""
}

// passwordPage is the data of "password".
type passwordPage struct {
	Email         string // for password managers
	PasswordError string
	Notice        string // why it can't be done now
	MinLength     int    // in characters
}

// passwordPage shows the form that changes the password. The fresh proof before it has
// shown the old one.
func (s *Server) passwordPage(w http.ResponseWriter, r *http.Request, v auth.Visitor) error {
	return s.visitPage(w, r, v, http.StatusOK, "password", passwordPage{Email: v.User.Email, MinLength: auth.MinPassword})
}

// passwordForm takes what was typed into it.
func (s *Server) passwordForm(w http.ResponseWriter, r *http.Request, v auth.Visitor, f *form) error {
	page := passwordPage{Email: v.User.Email, MinLength: auth.MinPassword}
	chosen := f.optional("password")
	var cookie auth.Cookie
	err := error(auth.InvalidFields(auth.Field{Name: "password", Message: "Type the new password.", Code: "password.missing"}))
	if chosen != "" {
		cookie, err = s.Rules.ChoosePassword(r.Context(), s.pageClient(r), v, chosen)
	}
	if err == nil {
		s.setCookie(w, cookie)
		return seeOther(w, r, "account?done=password")
	}
	if errors.Is(err, auth.ErrNotLoggedIn) { // the password was changed meanwhile, perhaps by another tab
		return seeOther(w, r, "login?prompt=login&next=account/password")
	}
	refused, ok := errors.AsType[*auth.Error](err)
	if !ok || refused.Code != auth.Invalid && refused.Code != auth.Throttled {
		return err
	}
	if refused.Code == auth.Throttled {
		page.Notice = s.language(r).Text("profile.often", "wait", s.language(r).Duration(refused.RetryAfter))
	}
	for _, field := range refused.Fields {
		page.PasswordError = s.language(r).Text(field.Code, "least", auth.MinPassword)
	}
	return s.visitPage(w, r, v, s.explain(w, r, err).Status, "password", page)
}

// sessionRow is a row of "sessions".
type sessionRow struct {
	ID, Device, Address  string
	CreatedAt, RenewedAt time.Time
	Current              bool
}

// sessionsPage lists where the visitor is logged in.
func (s *Server) sessionsPage(w http.ResponseWriter, r *http.Request, v auth.Visitor) error {
	found, err := s.Rules.Sessions(r.Context(), v.Caller)
	if err != nil {
		return err
	}
	l := s.language(r)
	rows := make([]sessionRow, len(found))
	for i, f := range found {
		rows[i] = sessionRow{f.ID, l.Device(f.UserAgent), f.Address, f.CreatedAt, f.RenewedAt, f.Current}
	}
	return s.visitPage(w, r, v, http.StatusOK, "sessions", rows)
}

// sessionsForm ends one of them, or all others.
func (s *Server) sessionsForm(w http.ResponseWriter, r *http.Request, v auth.Visitor, f *form) error {
	var err error
	if f.has("id") { // also an empty one, or two
		err = s.Rules.EndSession(r.Context(), s.pageClient(r), v.Caller, f.optional("id"))
	} else {
		err = s.Rules.EndOtherSessions(r.Context(), s.pageClient(r), v.Caller)
	}
	if err != nil && !errors.Is(err, auth.ErrNotOwn) { // which has ended by itself
		return err
	}
	return seeOther(w, r, "account/sessions")
}

// activityRow is a row of "activity".
type activityRow struct {
	At                         time.Time
	What, App, Device, Address string
}

// activityList is the data of "activity".
type activityList struct {
	Rows   []activityRow
	Before string // "": from the latest on
	Older  string // the id before which there are more; "": these are all
}

// activityPage is the visitor's own part of the audit log, in plain words.
func (s *Server) activityPage(w http.ResponseWriter, r *http.Request, v auth.Visitor) error {
	var page activityList
	if before := r.URL.Query().Get("before"); uuid.Validate(before) == nil {
		page.Before = before
	}
	found, more, err := s.Rules.Activity(r.Context(), v, page.Before)
	if err != nil {
		return err
	}
	if more {
		page.Older = found[len(found)-1].ID
	}
	l := s.language(r)
	for _, e := range found {
		if key := "activity." + activityOf(e.Kind, e.Reason); l.Has(key) {
			page.Rows = append(page.Rows, activityRow{e.At, l.Text(key), e.AppName, l.Device(e.UserAgent), e.Address})
		}
	}
	return s.visitPage(w, r, v, http.StatusOK, "activity", page)
}

// activityOf names what happened, in the catalogue.
func activityOf(kind, reason string) string {
	switch {
	case kind == auth.EventOpened && reason == auth.ByPasskey:
		return kind + ".passkey"
	case kind != auth.EventEnded || reason == "":
		return kind
	case reason == auth.ByUserElsewhere:
		return kind + ".elsewhere"
	}
	return kind + ".otherwise"
}

// changePassword answers /.well-known/change-password (W3C), by which password
// managers find the page.
func (s *Server) changePassword(w http.ResponseWriter, r *http.Request) error {
	return seeOther(w, r, "account/password")
}
