package mail_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/textproto"
	"strings"
	"testing"

	"kwai/internal/mail"
)

// talker is a server of which the test decides each word. It says what it heard,
// each command with a * before it if it came in the clear.
type talker struct {
	tls            *tls.Config
	plain, overTLS []string          // what EHLO is answered, without and with TLS
	answers        map[string]string // by the command's first word; else it is content
}

// send has a mail sent to it over the setting.
func (s talker) send(t *testing.T, setting string) (heard []string, err error) {
	t.Helper()
	smtp := newSMTP(t, setting)
	done := make(chan []string, 1)
	smtp.DialWith(func(context.Context, string, string) (net.Conn, error) {
		ours, theirs := net.Pipe()
		go func() { done <- s.serve(theirs) }()
		return ours, nil
	})
	err = smtp.Send(t.Context(), recovery(t, user))
	return <-done, err
}

func (s talker) serve(conn net.Conn) (heard []string) {
	defer func() { conn.Close() }()
	text := textproto.NewConn(conn)
	keywords, secret := s.plain, ""
	say := func(format string, args ...any) { _ = text.PrintfLine(format, args...) }
	for said := "GREETING"; ; {
		words := strings.Fields(said)
		answer, chosen := s.answers[words[0]]
		switch {
		case chosen:
			say("%s", answer)
		case words[0] == "GREETING", words[0] == "STARTTLS":
			say("220 yes")
		case words[0] == "EHLO":
			for _, k := range keywords {
				say("250-%s", k)
			}
			say("250 HELP")
		case words[0] == "AUTH":
			say("235 yes")
		case words[0] == "DATA":
			say("354 go on")
			_, _ = text.ReadDotBytes()
			say("250 2.0.0 queued as 4711")
		case words[0] == "QUIT":
			say("221 bye")
			return heard
		default:
			say("250 yes")
		}
		if words[0] == "STARTTLS" && !chosen {
			conn = tls.Server(conn, s.tls)
			text, keywords, secret = textproto.NewConn(conn), s.overTLS, "TLS "
		}
		var err error
		if said, err = text.ReadLine(); err != nil {
			return heard
		}
		heard = append(heard, secret+said)
	}
}

// RFC 5321, 2.4: keywords are read in any case. Who misses one sends the password
// and the link in the clear.
func TestKeywordsInAnyCase(t *testing.T) {
	t.Parallel()
	certificate, _ := certificate(t, "mail.example.org")
	const auth = "AUTH PLAIN AHUAcA==" // NUL u NUL p
	for _, tc := range []struct {
		plain, overTLS []string
		want           string // the command with the password
	}{
		{[]string{"mail.example.org", "starttls"}, []string{"x", "auth plain login"}, "TLS " + auth},
		{[]string{"mail.example.org", "StartTLS", "auth login plain"}, []string{"x", "Auth Plain"}, "TLS " + auth},
		{[]string{"mail.example.org", "STARTTLS "}, []string{"x", "auth=plain"}, "TLS " + auth},
		{[]string{"mail.example.org", "8bitmime", "auth Login plain"}, nil, "AUTH LOGIN"},
		{[]string{"mail.example.org", "AUTH=LOGIN PLAIN", "AUTH cram-md5 PLAIN"}, nil, "AUTH CRAM-MD5"},
		{[]string{"starttls", "AUTH PLAIN"}, nil, auth}, // the first line is a name
	} {
		s := talker{tls: certificate, plain: tc.plain, overTLS: tc.overTLS, answers: map[string]string{
			"AUTH": "235 yes", // to anything
		}}
		for _, setting := range []string{"smtp+insecure://u:p@mail.example.org", "smtp://u:p@localhost"} {
			heard, _ := s.send(t, setting)
			if n := len(heard); n < 2 || !strings.Contains(strings.Join(heard, "\n")+"\n", tc.want+"\n") {
				t.Errorf("%q, %s: it heard %q, want %q", tc.plain, setting, heard, tc.want)
			}
			for _, line := range heard {
				if strings.HasPrefix(tc.want, "TLS") && strings.HasPrefix(line, "AUTH") {
					t.Errorf("%q, %s: the password came in the clear: %q", tc.plain, setting, heard)
				}
			}
		}
	}
	s := talker{plain: []string{"x", "smtputf8", "8bitmime"}}
	heard, err := s.send(t, "smtp://localhost")
	if err != nil || !strings.Contains(fmt.Sprint(heard), "MAIL FROM:<noreply@example.org> BODY=8BITMIME RCPT") {
		t.Errorf("it heard %q (%v)", heard, err)
	}
}

// A refusal of EHLO is reported, and only a server that doesn't know it gets HELO.
func TestRefusedHello(t *testing.T) {
	t.Parallel()
	for answer, want := range map[string]string{
		"421 4.3.2 closing":    "EHLO: refused with 421 4.3.2 closing",
		"450 4.7.1 later":      "EHLO: refused with 450 4.7.1 later",
		"502 what":             "",
		"500 5.5.1 unknown":    "",
		"554 5.7.1 not welcom": "",
	} {
		heard, err := talker{answers: map[string]string{"EHLO": answer}}.send(t, "smtp://localhost")
		if want == "" {
			if err != nil || len(heard) < 2 || heard[1] != "HELO auth.example.org" {
				t.Errorf("%s: it heard %q (%v)", answer, heard, err)
			}
		} else if err == nil || !strings.Contains(err.Error(), want) || mail.Permanent(err) {
			t.Errorf("%s: %v", answer, err)
		}
	}
}
