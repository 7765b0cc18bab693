// Package mail composes kwai's mails and sends them.
//
// [Subscriber] gets events from package bus and sends the mail for each. A [Writer]
// makes the [Message]: for a recovery, an invitation, a changed password or address, a
// replayed refresh token, a login from a new network, a deletion. A [Sender] sends it: [SMTP] to a mail
// server; [Files] into a folder, for those who have no server.
//
//	w := &mail.Writer{PublicURL: "https://auth.example.org"}
//	m, err := w.Recovery(event.ID, mail.Recipient{Email: user.Email}, uuid, expires, now)
//	…
//	s, err := mail.NewSMTP("smtp://mail.example.org:587", mail.Options{From: "kwai <noreply@example.org>"})
//	…
//	err = s.Send(ctx, m)
//
// What it promises:
//
//   - A reset link is a secret. It travels to a host that is not loopback only
//     over TLS with a checked certificate, unless the setting says smtp+insecure.
//     No error quotes it, nor the SMTP password: of a server's answer after it has
//     seen the message, only the status code is kept.
//   - Nothing that a user chose reaches a header except the recipient's address,
//     and that only after a strict check. To has no display names: they help no
//     reader, and would be the one header with somebody else's text.
//   - Nothing that somebody else chose reads like a message or a link. A name is
//     shown only if it looks like one. Of a User-Agent header only the names of
//     known programs and systems are shown.
//   - Mails give nothing of the machine away: no host name in Message-ID or EHLO,
//     no product name, no time zone.
//   - Send returns nil once the server has taken the message, whatever happens to
//     the connection afterwards. An error means that it was not taken, or that the
//     answer was lost; so sending again may deliver twice, with the same Message-ID.
//
// Files: subscriber.go the events; writer.go and origin.go what they say,
// by the texts of package i18n;
// envelope.go and address.go what goes over the wire; smtp.go, session.go and
// client.go the SMTP client; files.go and parse.go mails in a folder.
//
// See docs/architecture.md#package-mail for how long mails wait.
package mail

import (
	"context"
	"errors"
	"time"
)

// Message is one mail, ready to send.
type Message struct {
	// ID is unique and stable per delivery; it becomes the left part of the
	// Message-ID: 1 to 128 ASCII letters, digits, dots, dashes and underscores.
	// It is not secret: mail servers log it.
	ID string
	// To is the bare address; "Name <address>" is refused.
	To      string
	Subject string
	// Text and HTML are the two parts; HTML may be missing.
	Text, HTML string
	// Date is written in UTC.
	Date time.Time
}

// Sender sends messages; safe for concurrent use.
type Sender interface {
	// Send returns nil when the message was taken. See [Permanent] for errors
	// that a second try will most likely repeat.
	Send(ctx context.Context, m Message) error
}

// Options name the sender of mails.
type Options struct {
	// From is "address" or "Name <address>". Its local part must be ASCII.
	From string
	// Domain is the right side of the Message-ID and the name given in EHLO:
	// a domain or an IP address. Empty means the domain of From.
	Domain string
}

// Permanent reports whether err is a refusal of this recipient that a retry will
// most likely repeat: a reply 5xx to RCPT TO or DATA that is about the mailbox, an
// address that can't be mailed to, a message that can't be composed. A refused login,
// sender, certificate or content is not permanent: the settings or the server are
// wrong, and mail waits until they are corrected.
func Permanent(err error) bool {
	f, is := errors.AsType[*failure](err)
	return is && f.permanent
}

// failure is every error of Send and of Writer.
type failure struct {
	what      string
	permanent bool
	full      bool  // the mailbox exists and takes nothing for now; others may
	reply     int   // the SMTP code; 0: there was no answer
	cause     error // set only for the end of a context, which holds no secrets
}

func (f *failure) Error() string { return "mail: " + f.what }
func (f *failure) Unwrap() error { return f.cause }

// permanent is a failure that no retry can cure.
func permanent(what string) error { return &failure{what: what, permanent: true} }
