package auth_test

import (
	"errors"
	"testing"

	"kwai/internal/bus"
	"kwai/internal/mail"
	"kwai/internal/testing/mailtest"
)

// What the mail server answers decides how long a mail waits, and whether others
// wait with it.
func TestWhatTheMailServerAnswersDecidesTheWait(t *testing.T) {
	each(t, func(t *testing.T, s *server, c *clock) {
		s.user(t, ann)
		event := s.event(t, ann)
		server := mailtest.Serve(t)
		sender := must(mail.NewSMTP(server.URL(), mail.Options{From: "noreply@example.org"}))(t)
		mails := &mail.Subscriber{Rules: s.Service, Writer: &mail.Writer{PublicURL: s.Settings.Issuer}, Sender: sender, Log: s.Log}
		for _, tc := range []struct {
			step                    mailtest.Step
			code                    int
			text                    string
			refused, later, allOfIt bool
		}{
			{mailtest.RcptTo, 450, "4.7.1 greylisted", false, true, false},
			{mailtest.RcptTo, 451, "- later", false, true, false},
			{mailtest.MailFrom, 452, "4.3.1 no room", false, true, false},
			{mailtest.Content, 451, "4.7.0 later", false, true, false},
			{mailtest.MailFrom, 421, "4.7.0 too many", false, true, true},
			{mailtest.RcptTo, 421, "- closing", false, true, true},
			{mailtest.Content, 421, "4.3.2 closing", false, true, true},
			{mailtest.RcptTo, 550, "5.1.1 nobody", true, false, false},
			{mailtest.RcptTo, 554, "5.7.1 relay access denied", false, false, false},
			{mailtest.MailFrom, 550, "5.7.1 not you", false, false, false},
			{mailtest.RcptTo, mailtest.HangUp, "", false, false, false},
		} {
			server.RefuseAt(tc.step, tc.code, tc.text)
			err := mails.Deliver(t.Context(), event)
			if err == nil || errors.Is(err, bus.ErrRefused) != tc.refused || errors.Is(err, bus.ErrLater) != tc.later || errors.Is(err, bus.ErrAllLater) != tc.allOfIt {
				t.Errorf("%s: %d %s: %v", tc.step, tc.code, tc.text, err)
			}
			server.RefuseAt(tc.step, 0, "")
		}
		server.Stop()
		if err := mails.Deliver(t.Context(), event); err == nil || errors.Is(err, bus.ErrLater) || errors.Is(err, bus.ErrRefused) {
			t.Errorf("away: %v", err)
		}
	})
}
