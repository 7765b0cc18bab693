package auth

import (
	"errors"
	"strings"
	"time"

	"kwai/internal/password"
	"kwai/internal/store"
)

// Code is the kind of an error.
type Code int

// The codes. A protocol maps them to its own, in one place.
const (
	Invalid         Code = iota + 1 // the input breaks a rule; Fields says which
	Unauthenticated                 // not logged in, or the credentials are wrong
	Forbidden                       // known, but not allowed
	NotFound
	Conflict    // it is there already
	Unavailable // it can't be done now; the same may succeed later
	Throttled   // too often; RetryAfter says when it may be tried again
)

// Error is a refusal whose text the client may read.
type Error struct {
	Code   Code
	Detail string
	Fields []Field // for Invalid
	// RetryAfter is for Throttled.
	RetryAfter time.Duration
	// Of is the refusal that this one says more of.
	Of error
	// Reason is for the log alone: what the client must not, or need not, be told.
	Reason string
}

// Field says what is wrong with one input.
type Field struct {
	Name    string `json:"field"`
	Message string `json:"message"`
	// Code names the message, for pages in other languages; "": it has none.
	Code string `json:"-"`
}

func (e *Error) Error() string { return e.Detail }

// Unwrap has errors.Is find the refusal that this one says more of.
func (e *Error) Unwrap() error { return e.Of }

func refuse(code Code, detail string) *Error { return &Error{Code: code, Detail: detail} }

// because is the refusal with a reason for the log.
func (e *Error) because(reason string) error {
	return &Error{Code: e.Code, Detail: e.Detail, Of: e, Reason: reason}
}

// InvalidFields refuses inputs.
func InvalidFields(fields ...Field) *Error {
	messages := make([]string, len(fields))
	for i, f := range fields {
		messages[i] = f.Name + ": " + f.Message
	}
	return &Error{Code: Invalid, Detail: strings.Join(messages, "; "), Fields: fields}
}

// The refusals. Login has one for every reason, so that it reveals nothing.
var (
	ErrCredentials  = refuse(Unauthenticated, "The address or the password is wrong.")
	ErrNotLoggedIn  = refuse(Unauthenticated, "You are not logged in.")
	ErrExpired      = &Error{Code: Unauthenticated, Detail: ErrNotLoggedIn.Detail, Of: ErrNotLoggedIn}
	ErrCode         = refuse(Unauthenticated, "The code is wrong, or was used before.")
	ErrLogin        = refuse(Unauthenticated, "The login has taken too long, or the account has changed: log in again.")
	ErrRefresh      = refuse(Unauthenticated, "The refresh token is not valid (any more). Log in again.")
	errReplay       = &Error{Code: Unauthenticated, Detail: ErrRefresh.Detail, Of: ErrRefresh}
	ErrPassword     = InvalidFields(Field{Name: "password", Message: "This is not your password."})
	ErrNotOwn       = refuse(NotFound, "You have no such session.")
	ErrNoSession    = refuse(NotFound, "The refresh token was not found.")
	ErrNotLive      = refuse(NotFound, "There is no live session with that id.")
	ErrRecovery     = refuse(NotFound, "The unique id is not valid (any more). Ask for a new one.")
	ErrRecoveryID   = &Error{Code: NotFound, Detail: ErrRecovery.Detail, Of: ErrRecovery} // it has not the form of one
	ErrRecoveryOver = &Error{Code: NotFound, Of: ErrRecovery,
		Detail: "The password has been changed, and the unique id has ended with that. If it was you, all is well; if not, ask for a new one."}
	ErrEmailCode       = refuse(NotFound, "The link is not valid (any more), or is for another account.")
	ErrRevoked         = refuse(Forbidden, "The user is revoked.")
	ErrNoUser          = refuse(NotFound, "There is no user with that address.")
	errNoUserID        = &Error{Code: NotFound, Detail: "There is no user with that id.", Of: ErrNoUser}
	ErrUserExists      = refuse(Conflict, "There is a user with that address already.")
	ErrHasPassword     = refuse(Conflict, "The user has a password: who forgot it asks for a link at /recover.")
	ErrUserRevoked     = refuse(Conflict, "The user is revoked: kwai user enact comes first.")
	ErrNoMail          = refuse(NotFound, "There is no undelivered mail with that id.")
	ErrSecret          = refuse(Conflict, "Codes of your authenticator app can't be checked any more. Use a recovery code or a passkey, and set the app up anew.")
	ErrForm            = refuse(Conflict, "The form is too old, or the account has changed since: begin anew.")
	ErrTwoStepsGroup   = refuse(Conflict, "A group of yours requires two steps.")
	ErrNoAuthenticator = refuse(Conflict, "There is no authenticator app.")
	ErrPasskey         = refuse(Unauthenticated, "The passkey is not known here, or was not accepted.")
	ErrPasskeyAnswer   = refuse(Invalid, "No passkey can be made of what the browser sent: begin anew.")
	ErrPasskeyThere    = refuse(Conflict, "This passkey is registered already.")
	ErrManyPasskeys    = refuse(Conflict, "There are 20 passkeys: remove one first.")
	ErrNoPasskey       = refuse(NotFound, "You have no such passkey.")
	ErrNoPasskeys      = refuse(NotFound, "There can be no passkeys at this address.")
	ErrManyCodes       = refuse(Throttled, "Too many wrong codes. Try again later, or use a recovery code or a passkey.")
	errThrottled       = refuse(Throttled, "Too many failed logins. Try again later, or choose a new password by mail.")
	errManyAddresses   = &Error{Code: Throttled, Detail: "Too many addresses were asked for. Try again in an hour.", RetryAfter: time.Hour}
	errOften           = &Error{Code: Throttled, Detail: "You have done this too often. Try again in an hour.", RetryAfter: time.Hour}
	ErrBusy            = refuse(Unavailable, "The server is too busy. Try again soon.")
)

// CodeOf is the code of an Error. An error of the store or the password pool that
// passes by itself is Unavailable; any other has 0.
func CodeOf(err error) Code {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Code
	}
	if errors.Is(err, store.ErrUnavailable) || errors.Is(err, password.ErrBusy) {
		return Unavailable
	}
	return 0
}
