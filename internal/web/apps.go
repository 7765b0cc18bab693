package web

import (
	"net/http"

	"kwai/internal/auth"
)

// appRow is a row of "apps".
type appRow struct {
	auth.UsedApp
	Sees []string // in words
}

// appsPage lists the visitor's apps, and what each may see.
func (s *Server) appsPage(w http.ResponseWriter, r *http.Request, v auth.Visitor) error {
	used, err := s.Rules.AppsOf(r.Context(), v)
	if err != nil {
		return err
	}
	l := s.language(r)
	rows := make([]appRow, len(used))
	for i, u := range used {
		rows[i].UsedApp = u
		for _, scope := range u.Scopes {
			rows[i].Sees = append(rows[i].Sees, l.Text("scope."+scope))
		}
	}
	return s.visitPage(w, r, v, http.StatusOK, "apps", rows)
}

// appsForm takes back what an app may see, and logs out there.
func (s *Server) appsForm(w http.ResponseWriter, r *http.Request, v auth.Visitor, f *form) error {
	if err := s.Rules.TakeBack(r.Context(), s.pageClient(r), v, f.optional("id")); err != nil {
		return err
	}
	return seeOther(w, r, "account/apps")
}
