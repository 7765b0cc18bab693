package mail

import (
	"bytes"
	"fmt"
	netmail "net/mail"
	"regexp"
	"strings"
	"time"

	gomail "github.com/wneessen/go-mail"
)

// envelope is a message as it goes over the wire, with its envelope.
type envelope struct {
	date      time.Time
	from, to  string // in angle brackets
	needsUTF8 bool
	open      bool   // it holds no secret: the server's answer may be shown
	data      []byte // RFC 5322, CRLF
}

var messageID = regexp.MustCompile(`^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$`)

// envelope composes m, before anything is dialled: a message that can't be sent costs
// no connection. beyondASCII is the encoding of texts that need one.
func (id identity) envelope(m Message, beyondASCII gomail.Encoding) (*envelope, error) {
	if len(m.ID) > 128 || !messageID.MatchString(m.ID) {
		return nil, permanent("the message's id is not fit for a Message-ID: use letters, digits, dots, dashes and underscores")
	}
	if m.Text == "" {
		return nil, permanent("the message has no text")
	}
	addr, needsUTF8, err := wireAddress(m.To)
	if err != nil {
		return nil, permanent("the recipient's address can't be used: " + err.Error())
	}
	to := &netmail.Address{Address: addr}

	encoding := beyondASCII
	if plain(m.Text) && plain(m.HTML) {
		encoding = gomail.NoEncoding
	}
	g := gomail.NewMsg(gomail.WithNoDefaultUserAgent(), gomail.WithEncoding(encoding))
	g.FromMailAddress(&id.from)
	g.ToMailAddress(to)
	g.Subject(line(m.Subject, 200))
	g.SetDateWithValue(m.Date.UTC())
	g.SetMessageIDWithValue(m.ID + "@" + id.domain)
	// RFC 3834: keeps holiday notices and other robots from answering. Exchange
	// goes by a header of its own; all of that but notices of failed delivery.
	g.SetGenHeader("Auto-Submitted", "auto-generated")
	g.SetGenHeader("X-Auto-Response-Suppress", "DR, RN, NRN, OOF, AutoReply")
	g.SetBodyString(gomail.TypeTextPlain, crlf(m.Text))
	if m.HTML != "" {
		g.AddAlternativeString(gomail.TypeTextHTML, crlf(m.HTML))
	}
	var data bytes.Buffer
	if _, err := g.WriteTo(&data); err != nil {
		return nil, permanent(fmt.Sprintf("the message can't be composed (%T)", err)) // the text might quote it
	}
	wire := data.Bytes()
	if plain(string(wire)) { // the library has no name for it that encodes nothing
		wire = bytes.ReplaceAll(wire, []byte("\r\nContent-Transfer-Encoding: 8bit\r\n"), []byte("\r\nContent-Transfer-Encoding: 7bit\r\n"))
	}
	from := netmail.Address{Address: id.from.Address}
	return &envelope{date: m.Date.UTC(), from: from.String(), to: to.String(), needsUTF8: needsUTF8, data: wire}, nil
}

// plain reports whether a text can be sent as it is (RFC 5322, 2.1.1). In an encoded
// text a link has "=3D" for "=" and may be broken in two, which hurts readers of a
// mail's file.
func plain(text string) bool {
	for line := range strings.Lines(text) {
		if len(line) > 998 {
			return false
		}
	}
	return ascii(text) && !strings.ContainsAny(text, "\x00")
}

func crlf(text string) string {
	return strings.ReplaceAll(strings.ReplaceAll(text, "\r\n", "\n"), "\n", "\r\n")
}
