package web

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"kwai/internal/auth"
	"kwai/internal/i18n"
)

// The endpoints that apps call by themselves. Their errors are OAuth 2's JSON.

// appError is a refusal of RFC 6749, 5.2, or RFC 6750, 3.
type appError struct {
	status            int
	code, description string
	challenge         string // WWW-Authenticate; "": none
}

func (e *appError) Error() string { return e.code + ": " + e.description }

func badRequest(description string) error {
	return &appError{http.StatusBadRequest, "invalid_request", description, ""}
}

// forApps answers errors as apps read them.
func (s *Server) forApps(handle handler) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		w.Header().Set("Cache-Control", "no-store")
		err := handle(w, r)
		if err == nil {
			return nil
		}
		refused, ok := errors.AsType[*appError](err)
		if !ok {
			p := s.explain(w, r, err)
			refused = &appError{p.Status, "invalid_request", p.Detail, ""}
			switch {
			case errors.Is(err, auth.ErrGrant):
				refused = &appError{http.StatusBadRequest, "invalid_grant", p.Detail, ""}
			case errors.Is(err, auth.ErrClient):
				refused = &appError{http.StatusUnauthorized, "invalid_client", p.Detail, `Basic realm="kwai"`}
			case p.Status == http.StatusServiceUnavailable:
				refused.code = "temporarily_unavailable"
			case p.Status >= http.StatusInternalServerError:
				refused.code = "server_error"
			}
		}
		if ok {
			s.pace()
			note(w, "error", refused.Error())
		}
		w.Header().Del("WWW-Authenticate")
		if refused.challenge != "" {
			w.Header().Set("WWW-Authenticate", refused.challenge)
		}
		body, err := json.Marshal(map[string]string{"error": refused.code, "error_description": describe(refused.description)})
		if err != nil {
			return err
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.WriteHeader(refused.status)
		_, _ = w.Write(append(body, '\n')) // an error here is a client that went away
		return nil
	}
}

// credentials reads who an app says that it is: by HTTP Basic with form-encoded parts (RFC
// 6749, 2.3.1), by fields of the form, or, a public one, by its id alone.
func credentials(r *http.Request, f *form) (id, secret string, err error) {
	id, secret = f.optional("client_id"), f.optional("client_secret")
	if err := f.err(); err != nil {
		return "", "", badRequest("a field is given twice")
	}
	headers := r.Header.Values("Authorization")
	if len(headers) == 0 {
		return id, secret, nil
	}
	user, password, ok := r.BasicAuth()
	if !ok || len(headers) > 1 || f.has("client_secret") {
		return "", "", badRequest("authenticate in one way: by the header, or by client_id and client_secret")
	}
	named := id
	if id, err = url.QueryUnescape(user); err == nil {
		secret, err = url.QueryUnescape(password)
	}
	if err != nil || secret == "" || named != "" && named != id {
		return "", "", auth.ErrClient
	}
	return id, secret, nil
}

// token answers POST /oauth2/token.
func (s *Server) token(w http.ResponseWriter, r *http.Request) error {
	arrived := s.Rules.Now()
	f, err := s.readForm(w, r)
	if err != nil {
		return err
	}
	id, secret, err := credentials(r, f)
	if err != nil {
		return err
	}
	app, err := s.Rules.Authenticate(r.Context(), id, secret)
	noteApp(w, app.ID, id)
	if err != nil {
		return err
	}
	var tokens auth.AppTokens
	switch kind := f.required("grant_type"); kind {
	case "authorization_code":
		code, to, verifier := f.required("code"), f.required("redirect_uri"), f.optional("code_verifier")
		if err := f.err(); err != nil {
			return badRequest(err.Error())
		}
		tokens, err = s.Rules.Exchange(r.Context(), clientOf(r), app, code, to, verifier)
	case "refresh_token":
		refresh := f.required("refresh_token")
		if err := f.err(); err != nil {
			return badRequest(err.Error())
		}
		tokens, err = s.Rules.RenewApp(r.Context(), clientOf(r), app, refresh, arrived)
	case "":
		return badRequest("grant_type is missing, or given twice")
	default:
		return &appError{http.StatusBadRequest, "unsupported_grant_type", "the grant_type must be authorization_code or refresh_token", ""}
	}
	if err != nil {
		return err
	}
	w.Header().Set("Pragma", "no-cache")
	return writeJSON(w, tokenAnswer{
		tokens.Access, "Bearer", int(tokens.ExpiresIn / time.Second), tokens.Refresh, tokens.ID, strings.Join(tokens.Scopes, " "),
	})
}

// tokenAnswer is OpenID Connect Core's, 3.1.3.3.
type tokenAnswer struct {
	AccessToken  string `json:"access_token"`
	TokenType    string `json:"token_type"`
	ExpiresIn    int    `json:"expires_in"`
	RefreshToken string `json:"refresh_token"`
	IDToken      string `json:"id_token"`
	Scope        string `json:"scope"`
}

// revoke answers POST /oauth2/revoke (RFC 7009): alike for every token of the app.
func (s *Server) revoke(w http.ResponseWriter, r *http.Request) error {
	f, err := s.readForm(w, r)
	if err != nil {
		return err
	}
	id, secret, err := credentials(r, f)
	if err != nil {
		return err
	}
	app, err := s.Rules.Authenticate(r.Context(), id, secret)
	noteApp(w, app.ID, id)
	if err != nil {
		return err
	}
	text := f.required("token")
	if err := f.err(); err != nil {
		return badRequest(err.Error())
	}
	return writeEmpty(w, s.Rules.RevokeApp(r.Context(), clientOf(r), app, text))
}

// userInfo answers /oauth2/userinfo: the token is in the header, or a field of a form.
func (s *Server) userInfo(w http.ResponseWriter, r *http.Request) error {
	access, err := s.appAccess(w, r)
	if err != nil {
		return err
	}
	claims, err := s.Rules.UserInfo(r.Context(), access)
	if errors.Is(err, auth.ErrNotLoggedIn) {
		return &appError{http.StatusUnauthorized, "invalid_token", "the access token is not valid (any more)", `Bearer error="invalid_token"`}
	}
	if err != nil {
		return err
	}
	return writeJSON(w, claims)
}

func (s *Server) appAccess(w http.ResponseWriter, r *http.Request) (access string, err error) {
	headers := r.Header.Values("Authorization")
	if len(headers) == 1 {
		scheme, rest, _ := strings.Cut(headers[0], " ")
		if strings.EqualFold(scheme, "Bearer") {
			access = strings.TrimLeft(rest, " ")
		}
	}
	if r.Method == http.MethodPost && r.Header.Get("Content-Type") != "" && r.ContentLength != 0 {
		f, err := s.readForm(w, r)
		if err != nil {
			return "", err
		}
		if f.has("access_token") {
			access = f.optional("access_token")
			if len(headers) > 0 || f.err() != nil {
				return "", badRequest("the access token is given twice")
			}
		}
	}
	if access == "" {
		return "", &appError{http.StatusUnauthorized, "invalid_token", "there is no access token", "Bearer"}
	}
	return access, nil
}

// metadata answers /.well-known/openid-configuration (OpenID Connect Discovery, 3) and
// /.well-known/oauth-authorization-server (RFC 8414).
func (s *Server) metadata(w http.ResponseWriter, _ *http.Request) error {
	at := func(path string) string { return s.PublicURL.JoinPath(path).String() }
	locales := make([]string, 0, len(pages))
	for _, l := range i18n.Languages() {
		locales = append(locales, l.Code)
	}
	w.Header().Set("Cache-Control", "public, max-age="+strconv.Itoa(int(s.Rules.Keys.Settings.JWKSMaxAge.Seconds())))
	return writeJSON(w, map[string]any{
		"issuer":                                         s.Rules.Settings.Issuer,
		"authorization_endpoint":                         at("oauth2/authorize"),
		"token_endpoint":                                 at("oauth2/token"),
		"userinfo_endpoint":                              at("oauth2/userinfo"),
		"revocation_endpoint":                            at("oauth2/revoke"),
		"end_session_endpoint":                           at("oauth2/logout"),
		"jwks_uri":                                       at(".well-known/jwks.json"),
		"scopes_supported":                               auth.Scopes,
		"response_types_supported":                       []string{"code"},
		"response_modes_supported":                       []string{"query"},
		"grant_types_supported":                          []string{"authorization_code", "refresh_token"},
		"subject_types_supported":                        []string{"public"},
		"id_token_signing_alg_values_supported":          []string{"RS256"},
		"token_endpoint_auth_methods_supported":          []string{"client_secret_basic", "client_secret_post", "none"},
		"revocation_endpoint_auth_methods_supported":     []string{"client_secret_basic", "client_secret_post", "none"},
		"code_challenge_methods_supported":               []string{"S256"},
		"claims_supported":                               []string{"sub", "iss", "aud", "exp", "iat", "auth_time", "nonce", "amr", "sid", "at_hash", "name", "given_name", "family_name", "locale", "preferred_username", "email", "email_verified", "groups"},
		"claim_types_supported":                          []string{"normal"},
		"prompt_values_supported":                        []string{"none", "login", "consent", "select_account"},
		"ui_locales_supported":                           locales,
		"request_parameter_supported":                    false,
		"request_uri_parameter_supported":                false,
		"claims_parameter_supported":                     false,
		"authorization_response_iss_parameter_supported": true,
		"backchannel_logout_supported":                   true,
		"backchannel_logout_session_supported":           true,
	})
}
