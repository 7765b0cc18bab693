package web

import (
	"net/http"
	"strings"
	"time"

	"kwai/internal/auth"
)

// currentUser is the user whose access token the request bears (RFC 6750, 2.1).
// A token in the query or the body is not looked at.
func (s *Server) currentUser(w http.ResponseWriter, r *http.Request) (auth.Caller, error) {
	headers := r.Header.Values("Authorization")
	if len(headers) != 1 {
		return auth.Caller{}, auth.ErrNotLoggedIn
	}
	scheme, access, _ := strings.Cut(headers[0], " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return auth.Caller{}, auth.ErrNotLoggedIn
	}
	user, err := s.Rules.Check(r.Context(), strings.TrimLeft(access, " "))
	if err == nil {
		note(w, "user", user.ID)
	}
	return user, err
}

// loggedIn checks the access token before anything else of the request.
func (s *Server) loggedIn(handle func(http.ResponseWriter, *http.Request, auth.Caller) error) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		caller, err := s.currentUser(w, r)
		if err != nil {
			return err
		}
		return handle(w, r, caller)
	}
}

type userSchema struct {
	ID        string  `json:"id"`
	Email     string  `json:"email"`
	FirstName string  `json:"first_name"`
	LastName  string  `json:"last_name"`
	LastLogin *string `json:"last_login"`
	CreatedAt string  `json:"created_at"`
}

// user answers GET /api/v1/auth/user.
func (s *Server) user(w http.ResponseWriter, _ *http.Request, user auth.Caller) error {
	answer := userSchema{
		ID:        user.ID,
		Email:     user.Email,
		FirstName: user.FirstName,
		LastName:  user.LastName,
		CreatedAt: user.CreatedAt.Format(time.RFC3339),
	}
	if !user.LastLoginAt.IsZero() {
		last := user.LastLoginAt.Format(time.RFC3339)
		answer.LastLogin = &last
	}
	w.Header().Set("Cache-Control", "no-store")
	return writeJSON(w, answer)
}
