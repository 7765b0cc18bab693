package main

import (
	"net/http"
	"strings"
	"testing"

	"kwai/internal/i18n"
	"kwai/internal/testing/mailtest"
)

func subjectOf(language, mail string) string {
	return i18n.Lookup(language).Text("mail."+mail+".subject", "service", "auth.example.org")
}

// A mail is in the language that its user has chosen, else in that of the page which
// caused it, else in that of --language. Pages without a wish are in the latter, too.
func TestMailsAreInTheLanguageOfTheUserOrThePage(t *testing.T) {
	withMail(t, func(t *testing.T, s *site, mails *mailtest.Server) {
		s.user("ann@example.org", good)
		form := func(accept string) func(*testing.T) {
			return func(t *testing.T) {
				r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL+"/recover", strings.NewReader(encodeURL("email", "ann@example.org")))
				if err != nil {
					t.Fatal(err)
				}
				r.Header.Set("Content-Type", urlencoded)
				r.Header.Set("Accept-Language", accept)
				if a := s.do(r); a.Status != http.StatusSeeOther {
					t.Fatal(a)
				}
			}
		}
		api := func(t *testing.T) {
			r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL+"/api/v1/auth/recover", strings.NewReader(encodeURL("email", "ann@example.org")))
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("Content-Type", urlencoded)
			r.Header.Set("Accept-Language", "fr") // of a program, which nobody reads
			if a := s.do(r); a.Status != http.StatusOK {
				t.Fatal(a)
			}
		}
		n := 0
		for _, step := range []struct {
			what   string
			chosen string
			do     func(*testing.T)
			want   string
		}{
			{"by the API", "", api, "nl"},
			{"by a French page", "", form("fr"), "fr"},
			{"by a page without a wish", "", form(""), "nl"},
			{"by a French page, of a user who chose German", "de", form("fr"), "de"},
			{"by the API, of a user who chose German", "de", api, "de"},
		} {
			s.mustCommand("", "user", "update", "ann@example.org", "--language="+step.chosen)
			step.do(t)
			n++
			if m := waitMails(t, mails, n)[n-1]; m.Subject != subjectOf(step.want, "recovery") {
				t.Errorf("%s: the mail is %q, want it in %s", step.what, m.Subject, step.want)
			}
		}
		if page := s.get("/recover", ""); page.Header.Get("Content-Language") != "nl" {
			t.Errorf("a page is in %s", page.Header.Get("Content-Language"))
		}
	}, "--language=nl", "--limits=off")
}

// The notice of another address goes to the one before, the last mail to the user: both
// in the user's language, and both wait for the mail server and can be sent again.
func TestMailsOfAnAddressChangeAndADeletion(t *testing.T) {
	withMail(t, func(t *testing.T, s *site, mails *mailtest.Server) {
		mails.Refuse(451)
		s.user("ann@example.org", good)
		s.mustCommand("", "user", "update", "ann@example.org", "--email=bob@example.org", "--language=fr")
		s.log.wait(t, 1, "it is tried again")
		list := s.undelivered()
		if len(list) != 1 || list[0].Email != "ann@example.org" || list[0].Type != "user.email-changed" {
			t.Fatalf("the mails that wait are %+v", list)
		}
		s.mustCommand("", "mail", "resend", list[0].ID)
		if again := s.undelivered(); len(again) != 1 || again[0].Email != "ann@example.org" || again[0].ID == list[0].ID {
			t.Errorf("sent again it is %+v", again)
		}
		mails.Refuse(0)
		notice := waitMails(t, mails, 1)[0]
		if notice.To != "ann@example.org" || notice.Subject != subjectOf("fr", "email_changed") || !strings.Contains(strings.Join(strings.Fields(notice.Text), " "), "remplacée par bob@example.org") {
			t.Errorf("the notice is %+v", notice)
		}

		s.settle()
		mails.Refuse(451)
		s.log.forget()
		s.mustCommand("", "user", "delete", "bob@example.org")
		s.log.wait(t, 1, "it is tried again")
		list = s.undelivered()
		if len(list) != 1 || list[0].Email != "bob@example.org" || list[0].Type != "user.deleted" {
			t.Fatalf("the mails that wait are %+v", list)
		}
		s.mustCommand("", "mail", "resend", list[0].ID)
		if again := s.undelivered(); len(again) != 1 || again[0].Email != "bob@example.org" || again[0].ID == list[0].ID {
			t.Errorf("sent again it is %+v", again)
		}
		mails.Refuse(0)
		if last := waitMailTo(t, mails, "bob@example.org"); last.Subject != subjectOf("fr", "deleted") {
			t.Errorf("the last mail is %+v", last)
		}
		s.settle()
	})
}
