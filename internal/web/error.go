package web

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"net/http"
	"strconv"

	"kwai/internal/auth"
)

// httpError is a refusal that only HTTP has a reason for: no rule of package auth.
type httpError struct {
	status int
	detail string
}

func (e *httpError) Error() string { return e.detail }

// problem is an error as RFC 9457 has it, and Errors, kwai's own member.
type problem struct {
	Type   string       `json:"type"`
	Title  string       `json:"title"`
	Status int          `json:"status"`
	Detail string       `json:"detail"`
	Errors []auth.Field `json:"errors,omitempty"`
	// AuthSession stands for a login that waits for its second step.
	AuthSession string `json:"auth_session,omitempty"`

	// OAuth 2's members, for its clients alone.
	Error       string `json:"error,omitempty"`
	Description string `json:"error_description,omitempty"`
}

// statusOf maps the rules' codes to HTTP's.
var statusOf = map[auth.Code]int{
	auth.Invalid:         http.StatusUnprocessableEntity,
	auth.Unauthenticated: http.StatusUnauthorized,
	auth.Forbidden:       http.StatusForbidden,
	auth.NotFound:        http.StatusNotFound,
	auth.Conflict:        http.StatusConflict,
	auth.Unavailable:     http.StatusServiceUnavailable,
	auth.Throttled:       http.StatusTooManyRequests,
}

// retryAfter is what a 503 asks for, in seconds.
const retryAfter = 2

// explain is the one place that decides what a client sees of an error, and sets
// the headers that go with it. What isn't known here is a fault of ours: it is
// logged and not shown. It is a refusal, and paced, on a page that shows a form again, too.
func (s *Server) explain(w http.ResponseWriter, r *http.Request, err error) problem {
	s.pace()
	p := problem{Type: "about:blank"}
	if e, ok := errors.AsType[*httpError](err); ok {
		p.Status, p.Detail = e.status, e.detail
	} else {
		if e, ok := errors.AsType[*auth.Error](err); ok {
			p.Detail, p.Errors = e.Detail, e.Fields
			if e.Reason != "" {
				note(w, "reason", e.Reason)
			}
		}
		p.Status = statusOf[auth.CodeOf(err)]
	}
	s.explainMore(&p, err)
	switch {
	case errors.Is(err, context.Canceled) && r.Context().Err() != nil:
		// The client disconnected while it waited: no answer is read, and nothing
		// is wrong with what was canceled.
		p.Status, p.Detail = http.StatusServiceUnavailable, "The request was given up."
	case p.Status == http.StatusServiceUnavailable:
		note(w, "error", err.Error())
		p.Detail = "The server can't do this now. Try again soon."
	case p.Status == 0:
		note(w, "error", err.Error())
		p.Status, p.Detail = http.StatusInternalServerError, "The server made a mistake. It has been logged."
	}
	p.Title = http.StatusText(p.Status)
	if e, ok := errors.AsType[*oauthError](err); ok {
		p.Error, p.Description = e.code(p.Status), describe(p.Detail)
	}
	p.headers(w.Header(), err)
	return p
}

// The types of problems that a program decides by.
const (
	typeSecondFactor = "urn:kwai:second-factor" // a code is missing, or wrong
	typeEnrolment    = "urn:kwai:enrolment"     // what is missing can be shown on the pages alone
)

// explainMore explains that a right password isn't enough.
func (s *Server) explainMore(p *problem, err error) {
	more, ok := errors.AsType[*auth.More](err)
	switch {
	case errors.Is(err, auth.ErrCode):
		p.Type = typeSecondFactor
	case !ok:
	case more.Need == auth.NeedCode:
		p.Type, p.Status, p.AuthSession = typeSecondFactor, http.StatusUnauthorized, more.Login
		p.Detail = "A second step is needed: send a code of your authenticator app, or a recovery code, as otp"
		if more.Login != "" {
			p.Detail += ", with auth_session"
		}
		p.Detail += "."
	case more.Need == auth.NeedPasskey:
		p.Type, p.Status = typeEnrolment, http.StatusUnauthorized
		p.Detail = "Your account needs more than the password. Log in with your passkey at " + s.loginURL() + "."
	default:
		p.Type, p.Status = typeEnrolment, http.StatusUnauthorized
		p.Detail = "Your account needs two steps, and has no authenticator app yet. Log in at " + s.loginURL() + " to set one up."
	}
}

func (s *Server) loginURL() string { return s.PublicURL.JoinPath("login").String() }

// headers sets the headers that go with a status.
func (p problem) headers(h http.Header, err error) {
	h.Set("Cache-Control", "no-store")
	switch {
	case p.Status == http.StatusServiceUnavailable:
		h.Set("Retry-After", strconv.Itoa(retryAfter))
	case p.Status == http.StatusTooManyRequests:
		if e, ok := errors.AsType[*auth.Error](err); ok {
			h.Set("Retry-After", strconv.Itoa(int(math.Ceil(e.RetryAfter.Seconds()))))
		}
	case errors.Is(err, auth.ErrNotLoggedIn):
		h.Set("WWW-Authenticate", "Bearer")
	}
}

// problem answers with an error for a program.
func (s *Server) problem(w http.ResponseWriter, r *http.Request, err error) {
	p := s.explain(w, r, err)
	body, err := json.Marshal(p)
	if err != nil {
		panic(err) // it holds nothing that JSON can't
	}
	w.Header().Set("Content-Type", "application/problem+json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(p.Status)
	_, _ = w.Write(append(body, '\n'))
}

// errorPage answers with an error for a person.
func (s *Server) errorPage(w http.ResponseWriter, r *http.Request, err error) {
	p := s.explain(w, r, err)
	l, key := s.language(r), "error."+strconv.Itoa(p.Status)
	if !l.Has(key + ".title") {
		key = "error.400"
		if p.Status >= http.StatusInternalServerError {
			key = "error.500"
		}
	}
	if err := s.page(w, r, p.Status, "error", messagePage{Title: l.Text(key + ".title"), Text: l.Text(key + ".text")}); err != nil {
		panic(err) // it is a bug in the page
	}
}
