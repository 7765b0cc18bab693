// Package mail composes kwai's mails and sends them.
//
// A [Writer] makes a [Message] for each thing that a user is told: a recovery,
// an invitation, a changed password, a session that was ended because it was
// used twice, a login from a new network. A [Sender] takes it away: [SMTP] hands it to a mail server,
// [Files] writes it into a folder for those who have none.
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
//     over TLS with a checked certificate, unless the setting says
//     smtp+insecure. No error tells it, nor the SMTP password: what a server
//     answers after it has seen the message is cut down to its status code.
//   - Nothing that a user chose reaches a header except the recipient's address,
//     and that only after a strict check. Display names of recipients are left
//     out of To: they help nobody who reads his own mail, and are the one field
//     in which a stranger's text would stand in a header.
//   - Nothing that a stranger chose reads like a message or a link: of a name only
//     what looks like one is shown, and of what a browser calls itself only names
//     that stand in a list here.
//   - Nothing of the machine is told: no host name in Message-ID or EHLO, no
//     product name, no time zone.
//   - Send returns nil once the server has taken the message, whatever happens
//     to the connection afterwards. An error means that it was not taken, or
//     that the answer was lost; so sending again may deliver twice, with the
//     same Message-ID.
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
	// Date is written in UTC. The zero time means now.
	Date time.Time
}

// Sender sends messages; safe for concurrent use.
type Sender interface {
	// Send returns nil when the message was taken over. See [Permanent] for
	// the errors that a second try will most likely meet again.
	Send(ctx context.Context, m Message) error
}

// Options say who the mails come from.
type Options struct {
	// From is "address" or "Name <address>". Its local part must be ASCII.
	From string
	// Domain is the right side of the Message-ID and the name given in EHLO:
	// a domain or an IP address. Empty means the domain of From.
	Domain string
}

// Permanent reports whether err is a refusal of this recipient that a retry will
// most likely meet again: a reply 5xx to RCPT TO or DATA that speaks of the
// mailbox, an address that can't be mailed to, a message that can't be composed.
// A refused login, sender, certificate or content is not: the settings or the
// server are wrong, and mail waits until they are put right.
func Permanent(err error) bool {
	var f *failure
	return errors.As(err, &f) && f.permanent
}

// fullMailbox reports whether err says that the recipient's mailbox, which is
// there, takes nothing for now: it says nothing of other recipients.
func fullMailbox(err error) bool {
	f, is := errors.AsType[*failure](err)
	return is && f.full
}

// reply is the code of the mail server's answer that err tells of; 0 if of none.
func reply(err error) int {
	if f, is := errors.AsType[*failure](err); is {
		return f.reply
	}
	return 0
}

// failure is every error of Send and of Writer.
type failure struct {
	what      string
	permanent bool
	full      bool  // see fullMailbox
	reply     int   // the SMTP code that it is about; 0: there was no answer
	cause     error // kept only for a context's end, which holds no secrets
}

func (f *failure) Error() string { return "mail: " + f.what }
func (f *failure) Unwrap() error { return f.cause }

// permanent is a failure that no retry mends.
func permanent(what string) error { return &failure{what: what, permanent: true} }
