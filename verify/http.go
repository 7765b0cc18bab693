package verify

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Protect passes only requests with a good access token on to next. The token must be
// in exactly one header "Authorization: Bearer" (RFC 6750, section 2.1). FromContext
// then has its claims. Other requests are refused with application/problem+json (RFC
// 9457):
//
//   - 401 with WWW-Authenticate, if there is no token or a bad one;
//   - 503 with Retry-After, if the token can't be checked now.
//
// An answer never says what is wrong with a token. Preflights of CORS have no token:
// answer them outside of Protect.
func (v *Verifier) Protect(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		token, ok := bearer(r.Header)
		if !ok {
			refuse(w, http.StatusUnauthorized, "WWW-Authenticate", "Bearer", unauthorized)
			return
		}
		claims, err := v.VerifyContext(r.Context(), token)
		if err != nil {
			v.server().log.DebugContext(r.Context(), "refused a request", "error", err)
		}
		switch {
		case err == nil:
			next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), claimsKey{}, claims)))
		case errors.Is(err, ErrInvalid):
			refuse(w, http.StatusUnauthorized, "WWW-Authenticate", `Bearer error="invalid_token"`, unauthorized)
		default:
			refuse(w, http.StatusServiceUnavailable, "Retry-After", retryAfter, unavailable)
		}
	})
}

// FromContext returns the claims of a request that Protect passed on. It returns nil
// elsewhere: an unprotected handler has no claims.
func FromContext(ctx context.Context) *Claims {
	claims, _ := ctx.Value(claimsKey{}).(*Claims)
	return claims
}

type claimsKey struct{}

// bearer returns the token of a request that has one.
func bearer(h http.Header) (token string, ok bool) {
	values := h.Values("Authorization")
	if len(values) != 1 {
		return "", false // with two, which one would the next program read?
	}
	scheme, token, _ := strings.Cut(values[0], " ")
	token = strings.TrimLeft(token, " ")
	return token, strings.EqualFold(scheme, "Bearer") && token != ""
}

const (
	unauthorized = `{"type":"about:blank","title":"Unauthorized","status":401,"detail":"A valid access token is required."}` + "\n"
	unavailable  = `{"type":"about:blank","title":"Service Unavailable","status":503,"detail":"Access tokens can't be checked now. Try again soon."}` + "\n"
)

var retryAfter = strconv.Itoa(int(fetchPause / time.Second))

func refuse(w http.ResponseWriter, status int, header, value, problem string) {
	h := w.Header()
	h.Set(header, value)
	h.Set("Content-Type", "application/problem+json")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, _ = w.Write([]byte(problem)) // an error here is a client that went away
}
