package mail_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"maps"
	"mime"
	"mime/multipart"
	"net"
	netmail "net/mail"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"kwai/internal/mail"
	"kwai/internal/testing/mailtest"
)

var options = mail.Options{From: `"Jüdo, Club" <noreply@example.org>`, Domain: "auth.example.org"}

func newSMTP(t *testing.T, url string) *mail.SMTP {
	t.Helper()
	s, err := mail.NewSMTP(url, options)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// one returns the only mail that server got.
func one(t *testing.T, server *mailtest.Server) mailtest.Mail {
	t.Helper()
	mails := server.Mails()
	if len(mails) != 1 {
		t.Fatalf("the server has %d mails, want 1", len(mails))
	}
	return mails[0]
}

func TestDelivery(t *testing.T) {
	t.Parallel()
	server := mailtest.Serve(t)
	want := recovery(t, user)
	if err := newSMTP(t, server.URL()).Send(t.Context(), want); err != nil {
		t.Fatal(err)
	}
	got := one(t, server)
	if got.From != "noreply@example.org" || got.To != user.Email {
		t.Errorf("the envelope goes from %q to %q", got.From, got.To)
	}
	if got.Helo != "auth.example.org" {
		t.Errorf("EHLO is %q", got.Helo)
	}
	if got.UTF8 {
		t.Error("SMTPUTF8 was asked for")
	}
	if host, err := os.Hostname(); err == nil && bytes.Contains(got.Raw, []byte(host)) {
		t.Errorf("the mail tells the machine's name %s:\n%s", host, got.Raw)
	}
	if got.RecoveryLink() != "https://auth.example.org/reset?uuid="+code || got.RecoveryID() != code {
		t.Errorf("recovery link is %q", got.RecoveryLink())
	}

	m, err := netmail.ReadMessage(bytes.NewReader(got.Raw))
	if err != nil {
		t.Fatal(err)
	}
	kind, params, err := mime.ParseMediaType(m.Header.Get("Content-Type"))
	if err != nil || kind != "multipart/alternative" {
		t.Fatalf("content type %q: %v", kind, err)
	}
	delete(m.Header, "Content-Type") // its boundary is random
	headers := map[string][]string{
		"Auto-Submitted": {"auto-generated"},
		"Date":           {"Mon, 02 Mar 2026 12:05:00 +0000"},
		"From":           {`=?utf-8?b?SsO8ZG8sIENsdWI=?= <noreply@example.org>`},
		"Message-Id":     {"<id-1@auth.example.org>"},
		"Mime-Version":   {"1.0"},
		"Subject":        {"Choose a new password for auth.example.org"},
		"To":             {"<jan@example.org>"},

		"X-Auto-Response-Suppress": {"DR, RN, NRN, OOF, AutoReply"},
	}
	if !maps.EqualFunc(headers, m.Header, slices.Equal) {
		t.Errorf("headers are %v, want %v", m.Header, headers)
	}
	parts := multipart.NewReader(m.Body, params["boundary"])
	for _, want := range []struct{ kind, body string }{
		{"text/plain; charset=UTF-8", want.Text}, // the richest part comes last
		{"text/html; charset=UTF-8", want.HTML},
	} {
		p, err := parts.NextPart()
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(p)
		if err != nil {
			t.Fatal(err)
		}
		if p.Header.Get("Content-Type") != want.kind || strings.ReplaceAll(string(body), "\r\n", "\n") != want.body {
			t.Errorf("part %s:\n%s\nwant %s:\n%s", p.Header.Get("Content-Type"), body, want.kind, want.body)
		}
	}
	if _, err := parts.NextPart(); err != io.EOF {
		t.Errorf("a third part: %v", err)
	}
}

// Whatever is in a message's fields, what arrives has the headers of any other.
func TestInjection(t *testing.T) {
	t.Parallel()
	headers := []string{"Auto-Submitted", "Content-Type", "Date", "From", "Message-Id", "Mime-Version", "Subject", "To", "X-Auto-Response-Suppress"}
	for _, tc := range []struct {
		name    string
		change  func(*mail.Message)
		to      string // at the server; empty: a permanent error
		subject string
	}{
		{"plus", func(m *mail.Message) { m.To = "a+b.c'd@example.org" }, "a+b.c'd@example.org", ""},
		{"quoted", func(m *mail.Message) { m.To = `"a b>,\"c@d"@example.org` }, `a b>,"c@d@example.org`, ""},
		{"IDN", func(m *mail.Message) { m.To = "jan@Bücher.example" }, "jan@xn--bcher-kva.example", ""},
		{"local part", func(m *mail.Message) { m.To = "jürgen@bücher.example" }, "jürgen@xn--bcher-kva.example", ""},
		{"underscore", func(m *mail.Message) { m.To = "a@b_c.example" }, "a@b_c.example", ""},
		{"newline", func(m *mail.Message) { m.To = "a@example.org\r\nBcc: b@example.org" }, "", ""},
		{"quoted newline", func(m *mail.Message) { m.To = "\"a\r\n b\"@example.org" }, "", ""},
		{"command", func(m *mail.Message) { m.To = "a@example.org>\nDATA" }, "", ""},
		{"NUL", func(m *mail.Message) { m.To = "a\x00@example.org" }, "", ""},
		{"RTL mark", func(m *mail.Message) { m.To = "a\u202e@example.org" }, "", ""},
		{"not UTF-8", func(m *mail.Message) { m.To = "a\xff@example.org" }, "", ""},
		{"name", func(m *mail.Message) { m.To = "Jan <a@example.org>" }, "", ""},
		{"brackets", func(m *mail.Message) { m.To = "<a@example.org>" }, "", ""},
		{"comment", func(m *mail.Message) { m.To = "a@example.org (x)" }, "", ""},
		{"group", func(m *mail.Message) { m.To = "g:a@example.org;" }, "", ""},
		{"two", func(m *mail.Message) { m.To = "a@example.org, b@example.org" }, "", ""},
		{"IP address", func(m *mail.Message) { m.To = "a@[127.0.0.1]" }, "", ""},
		{"no domain", func(m *mail.Message) { m.To = "a" }, "", ""},
		{"empty", func(m *mail.Message) { m.To = "" }, "", ""},
		{"long local part", func(m *mail.Message) { m.To = strings.Repeat("a", 65) + "@example.org" }, "", ""},
		{"long", func(m *mail.Message) { m.To = "a@" + strings.Repeat("b.", 127) + "c" }, "", ""},
		{"subject", func(m *mail.Message) { m.Subject = "a\r\nBcc: b@example.org\r\n\r\nx\x00\u202e" }, user.Email, "a Bcc: b@example.org x"},
		{"long subject", func(m *mail.Message) { m.Subject = strings.Repeat("ü", 999) }, user.Email, strings.Repeat("ü", 199) + "…"},
		{"dots", func(m *mail.Message) { m.Text = "a\n.\nQUIT\n" }, user.Email, ""},
		{"id", func(m *mail.Message) { m.ID = "a>\r\nBcc: b" }, "", ""},
		{"no id", func(m *mail.Message) { m.ID = "" }, "", ""},
		{"no text", func(m *mail.Message) { m.Text = "" }, "", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			server := mailtest.Serve(t, mailtest.UTF8())
			m := mail.Message{ID: "a", To: user.Email, Subject: "s", Text: "t\n", HTML: "<p>h\n"}
			tc.change(&m)
			err := newSMTP(t, server.URL()).Send(t.Context(), m)
			if tc.to == "" {
				if !mail.Permanent(err) || len(server.Mails()) != 0 {
					t.Errorf("want a permanent error and no mail, got %v and %v", err, server.Mails())
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			got := one(t, server)
			parsed, err := netmail.ReadMessage(bytes.NewReader(got.Raw))
			if err != nil {
				t.Fatal(err)
			}
			if keys := slices.Sorted(maps.Keys(parsed.Header)); !slices.Equal(keys, headers) {
				t.Errorf("headers are %v, want %v", keys, headers)
			}
			to, err := netmail.ParseAddressList(parsed.Header.Get("To"))
			if err != nil || len(to) != 1 {
				t.Fatalf("To is %v (%v), want one address", to, err)
			}
			if to[0].Address != tc.to || to[0].Name != "" {
				t.Errorf("To is %v, want %s", to[0], tc.to)
			}
			if got.To != tc.to {
				t.Errorf("RCPT TO is %q, want %q", got.To, tc.to)
			}
			if got.Text != m.Text || got.HTML != m.HTML {
				t.Errorf("parts are %q and %q", got.Text, got.HTML)
			}
			if tc.subject != "" && got.Subject != tc.subject {
				t.Errorf("subject is %q, want %q", got.Subject, tc.subject)
			}
			if wantUTF8 := tc.name == "local part"; got.UTF8 != wantUTF8 {
				t.Errorf("SMTPUTF8 asked for: %t", got.UTF8)
			}
		})
	}
}

// Plain text goes as it is, so that a link is whole wherever a mail is looked at:
// in short lines but for links. Other text is encoded, though not into files.
func TestLinksAreWhole(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	files, err := mail.NewFiles(dir, options)
	if err != nil {
		t.Fatal(err)
	}
	server := mailtest.Serve(t)
	long := strings.Repeat("/a/long/path", 10)
	for _, tc := range []struct{ site, name, wire, file string }{ // the encodings
		{"https://auth.example.org", "Jan", "7bit", "7bit"},
		{"https://auth.example.org" + long, "Jan", "7bit", "7bit"},
		{"https://auth.example.org", "Jürgen", "quoted-printable", "8bit"},
	} {
		m, err := (&mail.Writer{PublicURL: tc.site}).Recovery("id-1", mail.Recipient{Email: user.Email, FirstName: tc.name}, code, now.Add(time.Hour), now)
		if err == nil {
			err = errors.Join(newSMTP(t, server.URL()).Send(t.Context(), m), files.Send(t.Context(), m))
		}
		if err != nil {
			t.Fatal(err)
		}
		mails := server.Mails()
		names, err := files.Names()
		if err != nil {
			t.Fatal(err)
		}
		file, err := os.ReadFile(filepath.Join(dir, names[0]))
		if err != nil {
			t.Fatal(err)
		}
		for raw, encoding := range map[string]string{string(mails[len(mails)-1].Raw): tc.wire, string(file): tc.file} {
			if n := strings.Count(raw, "\r\nContent-Transfer-Encoding: "+encoding+"\r\n"); n != 2 {
				t.Errorf("%s, %s: %d parts are %s, want both:\n%s", tc.site, tc.name, n, encoding, raw)
			}
			if encoding == "quoted-printable" {
				continue
			}
			if n := strings.Count(raw, tc.site+"/reset?uuid="+code); n != 2 {
				t.Errorf("%s, %s: the link is there %d times, want twice:\n%s", tc.site, tc.name, n, raw)
			}
			for line := range strings.Lines(raw) {
				if !strings.HasSuffix(line, "\r\n") || len(line) > 80 && !strings.Contains(line, tc.site) {
					t.Errorf("%s, %s: the line %q is long, or has no end", tc.site, tc.name, line)
				}
			}
		}
		if read, err := files.Read(names[0]); err != nil || read.Text != m.Text || read.HTML != m.HTML {
			t.Errorf("%s, %s: what is read is %+v (%v)", tc.site, tc.name, read, err)
		}
		if err := os.Remove(filepath.Join(dir, names[0])); err != nil {
			t.Fatal(err)
		}
	}
}

func TestNonASCIIWithoutSMTPUTF8(t *testing.T) {
	t.Parallel()
	server := mailtest.Serve(t)
	err := newSMTP(t, server.URL()).Send(t.Context(), recovery(t, mail.Recipient{Email: "jürgen@example.org"}))
	if !mail.Permanent(err) || !strings.Contains(err.Error(), "SMTPUTF8") {
		t.Errorf("error is %v", err)
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		step      mailtest.Step
		code      int
		enhanced  string // "- ": none
		permanent bool
		want      string
	}{
		{mailtest.RcptTo, 550, "5.1.1 ", true, "RCPT TO: refused with 550 5.1.1 because of"},
		{mailtest.RcptTo, 550, "5.1.10 ", true, "RCPT TO: refused with 550 5.1.10 because of"},
		{mailtest.RcptTo, 550, "- ", true, "RCPT TO: refused with 550 because of"},
		{mailtest.Content, 550, "5.1.1 ", true, "the message: refused with 550 5.1.1"},
		{mailtest.RcptTo, 550, "", false, "RCPT TO: refused with 550 5.7.1 because of"},
		{mailtest.RcptTo, 553, "5.1.8 ", false, "RCPT TO: refused with 553 5.1.8 because of"}, // the sender's
		{mailtest.RcptTo, 553, "5.1.7 ", false, "RCPT TO: refused with 553 5.1.7 because of"},
		{mailtest.RcptTo, 552, "5.2.2 ", false, "RCPT TO: refused with 552 5.2.2 because of"},
		{mailtest.RcptTo, 451, "", false, "RCPT TO: refused with 451 4.7.1 because of"},
		{mailtest.RcptTo, 451, "- ", false, "RCPT TO: refused with 451 because of"},
		{mailtest.MailFrom, 550, "", false, "MAIL FROM: refused with 550 5.7.1 because of"},
		{mailtest.MailFrom, 550, "5.1.1 ", false, "MAIL FROM: refused with 550 5.1.1 because of"},
		{mailtest.Content, 554, "", false, "the message: refused with 554 5.7.1"},
		{mailtest.Content, 554, "5.2.0 ", false, "the message: refused with 554 5.2.0"},
		{mailtest.Content, 554, "- ", false, "the message: refused with 554"},
		{mailtest.Content, 451, "", false, "the message: refused with 451 4.7.1"},
		{mailtest.RcptTo, mailtest.HangUp, "", false, "RCPT TO: "},
		{mailtest.Content, mailtest.HangUp, "", false, "the message: "},
	} {
		server := mailtest.Serve(t)
		m := recovery(t, user)
		s := newSMTP(t, server.URL())
		quote := "because of"
		if tc.step == mailtest.Content { // what filters do
			quote = "because of https://auth.example.org/reset?uuid=" + code
		}
		server.RefuseAt(tc.step, tc.code, tc.enhanced+quote)
		err := s.Send(t.Context(), m)
		if err == nil || mail.Permanent(err) != tc.permanent || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s %d: error %v, permanent %t", tc.step, tc.code, err, mail.Permanent(err))
		}
		if err != nil && (strings.Contains(err.Error(), code) || strings.Contains(err.Error(), "/reset")) {
			t.Errorf("%s %d: the error tells the link: %v", tc.step, tc.code, err)
		}
		server.RefuseAt(tc.step, 0, "")
		if err := s.Send(t.Context(), m); err != nil {
			t.Errorf("%s %d: after the refusal: %v", tc.step, tc.code, err)
		}
	}
}

func TestServerAwayAndBack(t *testing.T) {
	t.Parallel()
	server := mailtest.Serve(t)
	s := newSMTP(t, server.URL())
	server.Stop()
	if err := s.Send(t.Context(), recovery(t, user)); err == nil || mail.Permanent(err) {
		t.Errorf("with no server: %v", err)
	}
	server.Restart()
	if err := s.Send(t.Context(), recovery(t, user)); err != nil {
		t.Error(err)
	}
	if mails, err := server.Wait(t.Context(), 1); err != nil || len(mails) != 1 {
		t.Errorf("%d mails, %v", len(mails), err)
	}
}

// A server that accepts connections and says nothing costs no more than ctx,
// and at most 20 s without one.
func TestSilentServer(t *testing.T) {
	t.Parallel()
	for name, limit := range map[string]time.Duration{"context": 3 * time.Second, "no context": time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			s := newSMTP(t, "smtp://mail.example.org")
			s.DialWith(func(context.Context, string, string) (net.Conn, error) {
				ours, theirs := net.Pipe()
				go func() { _, _ = io.Copy(io.Discard, theirs) }()
				return ours, nil
			})
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			defer cancel()
			start := time.Now()
			err := s.Send(ctx, recovery(t, user))
			if !errors.Is(err, context.DeadlineExceeded) || mail.Permanent(err) {
				t.Errorf("%s: error %v", name, err)
			}
			if took, want := time.Since(start), min(limit, 20*time.Second); took != want {
				t.Errorf("%s: took %s, want %s", name, took, want)
			}
		})
	}
}

// A server that never stops talking is cut off.
func TestEndlessGreeting(t *testing.T) {
	t.Parallel()
	s := newSMTP(t, "smtp://mail.example.org")
	s.DialWith(func(context.Context, string, string) (net.Conn, error) {
		ours, theirs := net.Pipe()
		go func() {
			for err := error(nil); err == nil; {
				_, err = theirs.Write(bytes.Repeat([]byte("2"), 1<<16))
			}
		}()
		return ours, nil
	})
	if err := s.Send(t.Context(), recovery(t, user)); err == nil || !strings.Contains(err.Error(), "sends too much") {
		t.Errorf("error is %v", err)
	}
}
