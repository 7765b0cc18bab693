package web

import (
	"cmp"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"net/http"
	"strings"

	"kwai/internal/auth"
)

// securityPage is the data of "security".
type securityPage struct {
	auth.Factors
	Done string // what has just been done; "": nothing
}

// securityPage shows what the visitor's logins demand, and leads to what changes that.
func (s *Server) securityPage(w http.ResponseWriter, r *http.Request, v auth.Visitor) error {
	factors, err := s.Rules.Factors(r.Context(), v.ID)
	if err != nil {
		return err
	}
	return s.visitPage(w, r, v, http.StatusOK, "security", securityPage{factors, s.done(r)})
}

// offerPage is the data of "app", which sets an authenticator app up, and of "codes",
// which makes new recovery codes. Both show a secret that isn't stored yet.
type offerPage struct {
	auth.Enrolment
	QR       qrCode
	Replaces bool // an app that there is
	Ends     bool // all other sessions
	Kept     bool // the recovery codes, as it was ticked
	// What is wrong with a field; "" when nothing is.
	KeptError, CodeError string
	Notice               string // why it can't be done now
	Login, Next          string // of the login that waits for an app; "": it is the account's page
	Proves               bool   // that login is a fresh proof

	name    string
	in      string                                      // the session, or the waiting login, that it is shown in
	refused string                                      // an offer that isn't good any more, sealed
	visitor *auth.Visitor                               // nil at a login
	offer   func(sealed string) (auth.Enrolment, error) // what a form was shown with; with "" a new one
}

// offerCookie has a page show the same offer when it is loaded again: a phone may drop the
// page while its user is in the authenticator app, which has that offer's secret by then.
// The offer is sealed for the account. What stands before it has it shown again only where
// it was shown: not to who uses the same browser next.
func (s *Server) offerCookie(page offerPage) *http.Cookie {
	in := sha256.Sum256([]byte(page.in))
	c := s.cookie(base64.RawURLEncoding.EncodeToString(in[:16]) + "." + page.Sealed) //nolint:gosec // Secure over https; see cookie
	c.Name += "-" + page.name
	c.MaxAge = int(auth.FormLife.Seconds())
	return c
}

// shownBefore is the offer that the browser's cookie has; "" for none.
func (s *Server) shownBefore(r *http.Request, page offerPage) string {
	page.Sealed = ""
	c := s.offerCookie(page)
	if all := r.CookiesNamed(c.Name); len(all) == 1 {
		if sealed, ok := strings.CutPrefix(all[0].Value, c.Value); ok {
			return sealed
		}
	}
	return ""
}

// showOffer shows what the form was shown with that sends it back sealed. Where that is ""
// or over, it is what this browser was shown last, or a new one.
func (s *Server) showOffer(w http.ResponseWriter, r *http.Request, status int, page offerPage, sealed string) error {
	err := error(auth.ErrForm)
	if sealed != "" {
		if page.Enrolment, err = page.offer(sealed); errors.Is(err, auth.ErrForm) { // whatever else is wrong
			page.Notice, page.Kept = s.language(r).Text("app.anew"), false
		}
	}
	before := s.shownBefore(r, page)
	if errors.Is(err, auth.ErrForm) && before != "" && before != page.refused {
		page.Enrolment, err = page.offer(before)
	}
	if errors.Is(err, auth.ErrForm) {
		page.Enrolment, err = page.offer("")
	}
	if err == nil && page.URI != "" {
		page.QR, err = newQRCode(page.URI)
	}
	if err != nil {
		return err
	}
	if before != page.Sealed && r.Method != http.MethodHead {
		http.SetCookie(w, s.offerCookie(page))
	}
	if page.visitor == nil {
		return s.page(w, r, status, page.name, page)
	}
	return s.visitPage(w, r, *page.visitor, status, page.name, page)
}

// takeOffer takes what was typed beside an offer, and has it accepted. What is wrong is said
// on the page, which shows the same offer: that may be in the app and on paper by now.
func (s *Server) takeOffer(w http.ResponseWriter, r *http.Request, page offerPage, f *form, accept func(sealed, code string) error) (done bool, err error) {
	sealed, code := f.optional("offer"), f.optional("code")
	page.Kept = f.optional("kept") != ""
	if page.name == "app" {
		err = missing(code)
	}
	if !page.Kept {
		page.KeptError = s.language(r).Text("codes.unkept")
		err = cmp.Or(err, errNotKept)
	}
	if err == nil {
		err = accept(sealed, code)
	}
	refused := true
	switch {
	case err == nil:
		cookie := s.offerCookie(page) //nolint:gosec // as above
		cookie.Value, cookie.MaxAge = "", -1
		http.SetCookie(w, cookie)
		return true, nil
	case errors.Is(err, errNotKept):
	case errors.Is(err, auth.ErrForm):
		page.Notice, page.Kept, page.refused, sealed = s.language(r).Text("app.anew"), false, sealed, ""
	default:
		page.CodeError, page.Notice, refused = s.refuseCode(r, err, "app.wrong")
	}
	if !refused {
		return false, err
	}
	return false, s.showOffer(w, r, s.explain(w, r, err).Status, page, sealed)
}

var errNotKept error = auth.InvalidFields(auth.Field{Name: "kept", Message: "Keep the recovery codes first."})

// service is what an authenticator app calls the site.
func (s *Server) service() string { return cmp.Or(s.Brand.Name, s.PublicURL.Hostname()) }

// enrolPage offers an authenticator app to a login that waits for one.
func (s *Server) enrolPage(w http.ResponseWriter, r *http.Request, l waiting, _ *form) error {
	return s.showOffer(w, r, http.StatusOK, s.appAtLogin(r, l), "")
}

// enrolForm finishes that login.
func (s *Server) enrolForm(w http.ResponseWriter, r *http.Request, l waiting, f *form) error {
	var cookie auth.Cookie
	done, err := s.takeOffer(w, r, s.appAtLogin(r, l), f, func(sealed, code string) (err error) {
		cookie, err = s.Rules.EnrolAtLogin(r.Context(), s.pageClient(r), l.Login, l.browser, sealed, code)
		return err
	})
	if !done {
		return err
	}
	return s.enterWaiting(w, r, l, cookie)
}

func (s *Server) appAtLogin(r *http.Request, l waiting) offerPage {
	return offerPage{name: "app", in: l.Login, Login: l.Login, Next: l.Next, Proves: l.Proves, Ends: true, offer: func(sealed string) (auth.Enrolment, error) {
		if sealed == "" {
			return s.Rules.OfferAtLogin(r.Context(), l.Login, l.browser, s.service())
		}
		return s.Rules.ReadOffer(r.Context(), l.User, sealed, s.service())
	}}
}

// appPage offers the visitor an authenticator app.
func (s *Server) appPage(w http.ResponseWriter, r *http.Request, v auth.Visitor) error {
	page, err := s.appOf(r, v)
	if err != nil {
		return err
	}
	return s.showOffer(w, r, http.StatusOK, page, "")
}

// appForm switches it on.
func (s *Server) appForm(w http.ResponseWriter, r *http.Request, v auth.Visitor, f *form) error {
	page, err := s.appOf(r, v)
	if err != nil {
		return err
	}
	var cookie auth.Cookie
	done, err := s.takeOffer(w, r, page, f, func(sealed, code string) (err error) {
		cookie, err = s.Rules.EnrolAuthenticator(r.Context(), s.pageClient(r), v, sealed, code)
		return err
	})
	if !done {
		return err
	}
	if page.Replaces {
		return s.secured(w, r, cookie, "app-replaced")
	}
	return s.secured(w, r, cookie, "app")
}

func (s *Server) appOf(r *http.Request, v auth.Visitor) (offerPage, error) {
	factors, err := s.Rules.Factors(r.Context(), v.ID)
	return offerPage{name: "app", in: v.SessionID, visitor: &v, Replaces: factors.Authenticator, Ends: !factors.TwoSteps, offer: func(sealed string) (auth.Enrolment, error) {
		if sealed == "" {
			return s.Rules.OfferAuthenticator(r.Context(), v.User, s.service())
		}
		return s.Rules.ReadOffer(r.Context(), v.User, sealed, s.service())
	}}, err
}

// secured leads to the page that says what was done. A cookie that isn't the zero one
// replaces the visitor's.
func (s *Server) secured(w http.ResponseWriter, r *http.Request, cookie auth.Cookie, done string) error {
	if cookie.Value != "" {
		s.setCookie(w, cookie)
	}
	return seeOther(w, r, "account/security?done="+done)
}

// codesPage offers the visitor new recovery codes.
func (s *Server) codesPage(w http.ResponseWriter, r *http.Request, v auth.Visitor) error {
	return s.withApp(w, r, v, func(auth.Factors) error { return s.showOffer(w, r, http.StatusOK, s.codesOf(r, v), "") })
}

// codesForm has them take the place of those before.
func (s *Server) codesForm(w http.ResponseWriter, r *http.Request, v auth.Visitor, f *form) error {
	done, err := s.takeOffer(w, r, s.codesOf(r, v), f, func(sealed, _ string) error {
		return s.Rules.TakeRecoveryCodes(r.Context(), s.pageClient(r), v, sealed)
	})
	switch {
	case errors.Is(err, auth.ErrNoAuthenticator): // it was removed meanwhile
		return seeOther(w, r, "account/security")
	case !done:
		return err
	}
	return s.secured(w, r, auth.Cookie{}, "codes")
}

func (s *Server) codesOf(r *http.Request, v auth.Visitor) offerPage {
	return offerPage{name: "codes", in: v.SessionID, visitor: &v, offer: func(sealed string) (auth.Enrolment, error) {
		if sealed == "" {
			return s.Rules.OfferRecoveryCodes(r.Context(), v.User)
		}
		return s.Rules.ReadOffer(r.Context(), v.User, sealed, s.service())
	}}
}

// withApp leads a visitor who has no authenticator app to the page that says so.
func (s *Server) withApp(w http.ResponseWriter, r *http.Request, v auth.Visitor, show func(auth.Factors) error) error {
	factors, err := s.Rules.Factors(r.Context(), v.ID)
	switch {
	case err != nil:
		return err
	case !factors.Authenticator:
		return seeOther(w, r, "account/security")
	}
	return show(factors)
}

// removePage asks whether the authenticator app is to be removed.
func (s *Server) removePage(w http.ResponseWriter, r *http.Request, v auth.Visitor) error {
	return s.withApp(w, r, v, func(f auth.Factors) error { return s.visitPage(w, r, v, http.StatusOK, "remove", f) })
}

// removeForm removes it.
func (s *Server) removeForm(w http.ResponseWriter, r *http.Request, v auth.Visitor, _ *form) error {
	err := s.Rules.RemoveAuthenticator(r.Context(), s.pageClient(r), v)
	switch {
	case auth.CodeOf(err) == auth.Conflict: // something has changed meanwhile: the page says it
		return seeOther(w, r, "account/security/remove")
	case err != nil:
		return err
	}
	return s.secured(w, r, auth.Cookie{}, "app-removed")
}

// twoStepsPage asks whether two steps are to be switched on, or off.
func (s *Server) twoStepsPage(w http.ResponseWriter, r *http.Request, v auth.Visitor) error {
	return s.withApp(w, r, v, func(f auth.Factors) error { return s.visitPage(w, r, v, http.StatusOK, "twosteps", f) })
}

// twoStepsForm switches them.
func (s *Server) twoStepsForm(w http.ResponseWriter, r *http.Request, v auth.Visitor, f *form) error {
	on, done := true, "two-steps-on"
	switch f.optional("two_steps") {
	case "on":
	case "off":
		on, done = false, "two-steps-off"
	default:
		return errForm
	}
	cookie, err := s.Rules.SwitchTwoSteps(r.Context(), s.pageClient(r), v, on)
	switch {
	case auth.CodeOf(err) == auth.Conflict: // something has changed meanwhile: the page says it
		return seeOther(w, r, "account/security/two-steps")
	case err != nil:
		return err
	}
	return s.secured(w, r, cookie, done)
}
