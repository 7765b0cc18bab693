package web_test

import (
	"fmt"
	"testing"
	"time"
)

// What an app hears of two steps: by what its user came in, and when that was shown. What
// it may ask for, a login of now, is all that the account demands.
func TestTwoStepsAtApps(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		s.forApps()
		s.user("ann@example.org", good)
		a := s.app(t, "wiki")
		before := a.tokensOf(s.agent(t, "ann@example.org"))
		same(t, "amr of a password", fmt.Sprint(a.idToken(before)["amr"]), "[pwd]")

		phone := s.browser(t).login("ann@example.org", good).enrol()
		b := s.agent(t, "ann@example.org")
		if p := b.goOn(b.open(a.meta.AuthorizationEndpoint + "?" + a.request("acr_values", "phr 2").Encode())); p.out != "" || p.at.Path != "/login/code" {
			t.Fatalf("the password alone leads to %s %q", p.at, p.out)
		}
		b.phone = phone
		first := a.idToken(a.tokensOf(b, "acr_values", "phr 2"))
		same(t, "amr", fmt.Sprint(first["amr"]), "[pwd otp mfa]")
		same[any](t, "acr", first["acr"], nil)
		codes := s.clock.now()

		for name, value := range map[string]string{"prompt": "login", "max_age": "1"} {
			s.clock.advance(time.Hour)
			b.phone = nil
			if p := b.goOn(b.open(a.meta.AuthorizationEndpoint + "?" + a.request(name, value).Encode())); p.out != "" || p.at.Path != "/login/code" {
				t.Fatalf("%s=%s: the password alone leads to %s %q", name, value, p.at, p.out)
			}
			b.phone = phone
			next := a.idToken(a.tokensOf(b, name, value))
			same(t, name+": amr", fmt.Sprint(next["amr"]), "[pwd otp mfa]")
			if at := int64(next["auth_time"].(float64)); at <= codes.Unix() || at > s.clock.now().Unix() {
				t.Errorf("%s: auth_time is %d, now is %d", name, at, s.clock.now().Unix())
			}
		}

		a.refresh(before.RefreshToken).oauthRefusal(t, "what one step had opened before", "invalid_grant")
	})
}
