package mail

import (
	"bytes"
	"fmt"
	netmail "net/mail"
	"regexp"
	"time"

	gomail "github.com/wneessen/go-mail"
)

// letter is a message as it goes over the wire, with its envelope.
type letter struct {
	date      time.Time
	from, to  string // in angle brackets
	needsUTF8 bool
	data      []byte // RFC 5322, CRLF
}

var messageID = regexp.MustCompile(`^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$`)

// letter composes m. It does so before anything is dialled, so that a message
// that can't be sent costs no connection.
func (id identity) letter(m Message) (*letter, error) {
	if len(m.ID) > 128 || !messageID.MatchString(m.ID) {
		return nil, hopeless("the message's id is not fit for a Message-ID: use letters, digits, dots, dashes and underscores")
	}
	if m.Text == "" {
		return nil, hopeless("the message has no text")
	}
	addr, needsUTF8, err := wireAddress(m.To)
	if err != nil {
		return nil, hopeless("the recipient's address can't be used: " + err.Error())
	}
	if m.Date.IsZero() {
		m.Date = time.Now()
	}
	to := &netmail.Address{Address: addr}

	g := gomail.NewMsg(gomail.WithNoDefaultUserAgent())
	g.FromMailAddress(&id.from)
	g.ToMailAddress(to)
	g.Subject(line(m.Subject, 200))
	g.SetDateWithValue(m.Date.UTC())
	g.SetMessageIDWithValue(m.ID + "@" + id.domain)
	// RFC 3834: keeps holiday notices and other robots from answering.
	g.SetGenHeader("Auto-Submitted", "auto-generated")
	g.SetBodyString(gomail.TypeTextPlain, m.Text)
	if m.HTML != "" {
		g.AddAlternativeString(gomail.TypeTextHTML, m.HTML)
	}
	var data bytes.Buffer
	if _, err := g.WriteTo(&data); err != nil {
		return nil, hopeless(fmt.Sprintf("the message can't be composed (%T)", err)) // the text might quote it
	}
	from := netmail.Address{Address: id.from.Address}
	return &letter{m.Date.UTC(), from.String(), to.String(), needsUTF8, data.Bytes()}, nil
}
