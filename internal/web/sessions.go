package web

import (
	"net/http"
	"time"

	"kwai/internal/auth"
)

type sessionSchema struct {
	ID        string  `json:"id"` // the sid of its access tokens
	CreatedAt string  `json:"created_at"`
	LastUsed  string  `json:"last_used"` // its latest renewal
	Current   bool    `json:"current"`
	Address   *string `json:"address"`    // that the login came from
	UserAgent *string `json:"user_agent"` // as the client wrote it: not to be trusted
}

// sessions answers GET /api/v1/auth/sessions.
func (s *Server) sessions(w http.ResponseWriter, r *http.Request, caller auth.Caller) error {
	found, err := s.Rules.Sessions(r.Context(), caller)
	if err != nil {
		return err
	}
	answer := make([]sessionSchema, len(found))
	for i, f := range found {
		answer[i] = sessionOf(f)
	}
	w.Header().Set("Cache-Control", "no-store")
	return writeJSON(w, answer)
}

func sessionOf(s auth.OwnSession) sessionSchema {
	return sessionSchema{
		ID:        s.ID,
		CreatedAt: s.CreatedAt.Format(time.RFC3339),
		LastUsed:  s.RenewedAt.Format(time.RFC3339),
		Current:   s.Current,
		Address:   optional(s.Address),
		UserAgent: optional(s.UserAgent),
	}
}

// optional is null for "".
func optional(text string) *string {
	if text == "" {
		return nil
	}
	return &text
}

// endSession answers DELETE /api/v1/auth/sessions/{id}.
func (s *Server) endSession(w http.ResponseWriter, r *http.Request, caller auth.Caller) error {
	return writeEmpty(w, s.Rules.EndSession(r.Context(), clientOf(r), caller, r.PathValue("id")))
}

// endOtherSessions answers DELETE /api/v1/auth/sessions.
func (s *Server) endOtherSessions(w http.ResponseWriter, r *http.Request, caller auth.Caller) error {
	return writeEmpty(w, s.Rules.EndOtherSessions(r.Context(), clientOf(r), caller))
}
