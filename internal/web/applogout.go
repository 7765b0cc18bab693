package web

import (
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"kwai/internal/auth"
)

const appLogoutPath = "oauth2/logout"

// appLogoutPost leads from a form to the same request as an address, as authorizePost.
func (s *Server) appLogoutPost(w http.ResponseWriter, r *http.Request) error {
	f, err := s.readForm(w, r)
	if err != nil {
		return err
	}
	return seeOtherQuery(w, r, appLogoutPath, f)
}

// appLogout answers /oauth2/logout (OpenID Connect RP-Initiated Logout). With an ID token
// of this very browser's session it logs out at once, however old that is; without a
// session here it ends the app's. Anything else asks, and leads nowhere.
func (s *Server) appLogout(w http.ResponseWriter, r *http.Request) error {
	q, err := readQuery(r.URL.RawQuery)
	if err != nil {
		return errForm
	}
	for _, name := range []string{"id_token_hint", "client_id", "post_logout_redirect_uri", "state"} {
		if len(q[name]) > 1 || !plainText(q.Get(name)) {
			return &httpError{http.StatusBadRequest, name + " must be given once."}
		}
	}
	v, err := s.visitor(w, r)
	visits := err == nil
	if err != nil && !errors.Is(err, auth.ErrNotLoggedIn) {
		return err
	}
	hint, known, err := s.Rules.ReadHint(r.Context(), q.Get("id_token_hint"))
	if err != nil {
		return err
	}
	if id := q.Get("client_id"); !known || id != "" && id != hint.App || visits && !hint.IsOf(v) {
		if visits {
			return seeOther(w, r, "logout")
		}
		return seeOther(w, r, "out")
	}
	to := ""
	if app, err := s.Rules.App(r.Context(), hint.App); err == nil {
		if uri := q.Get("post_logout_redirect_uri"); slices.Contains(app.PostLogoutURIs, uri) {
			to = uri
		} else if uri != "" {
			uri, _, _ = strings.Cut(uri, "?")
			note(w, "app", app.ID)
			note(w, "error", "no post_logout_redirect_uri of the app's: "+forLog(uri))
		}
	} else if auth.CodeOf(err) != auth.NotFound {
		return err
	}
	if r.Method != http.MethodHead { // which has no effect
		if visits {
			err = s.Rules.LogoutVisitor(r.Context(), s.pageClient(r), v)
		} else {
			err = s.Rules.LogoutApp(r.Context(), s.pageClient(r), hint)
		}
		if err != nil {
			return err
		}
		if visits { // only now: a session that goes on must not look as if it were over
			s.clearCookie(w)
		}
	}
	if to == "" {
		return seeOther(w, r, "out")
	}
	more := url.Values{}
	if state := q.Get("state"); state != "" {
		more.Set("state", state)
	}
	return leadOut(w, to, more)
}
