package mail

import (
	"bytes"
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	"net/mail"
	"strings"
)

// maxParse bounds what Parse reads, in bytes; kwai's mails are far smaller.
const maxParse = 1 << 20

// Parse reads back a message as the senders of this package write it: for the
// page that shows sent mail, and for tests. Parts other than text and HTML are
// skipped.
func Parse(r io.Reader) (Message, error) {
	parsed, err := mail.ReadMessage(io.LimitReader(r, maxParse))
	if err != nil {
		return Message{}, errors.New("mail: not a mail")
	}
	m, err := parseHeader(parsed.Header)
	if err != nil {
		return Message{}, err
	}
	kind, params, err := mime.ParseMediaType(parsed.Header.Get("Content-Type"))
	if err != nil {
		return Message{}, errors.New("mail: no content type")
	}
	if !strings.HasPrefix(kind, "multipart/") {
		body := parsed.Body
		if strings.EqualFold(parsed.Header.Get("Content-Transfer-Encoding"), "quoted-printable") {
			body = quotedprintable.NewReader(body)
		}
		return m, m.addPart(kind, body)
	}
	for parts := multipart.NewReader(parsed.Body, params["boundary"]); ; {
		p, err := parts.NextPart() // decodes quoted-printable
		if err == io.EOF {
			return m, nil
		}
		if err != nil {
			return Message{}, errors.New("mail: broken parts")
		}
		if err := m.addPart(p.Header.Get("Content-Type"), p); err != nil {
			return Message{}, err
		}
	}
}

func parseHeader(h mail.Header) (m Message, err error) {
	id, _, _ := strings.Cut(strings.Trim(h.Get("Message-ID"), "<>"), "@")
	to, err := mail.ParseAddress(h.Get("To"))
	if err != nil {
		return m, errors.New("mail: no recipient")
	}
	subject, err := new(mime.WordDecoder).DecodeHeader(h.Get("Subject"))
	if err != nil {
		return m, errors.New("mail: the subject can't be decoded")
	}
	date, err := h.Date()
	if err != nil {
		return m, errors.New("mail: no date")
	}
	return Message{ID: id, To: to.Address, Subject: subject, Date: date}, nil
}

func (m *Message) addPart(contentType string, r io.Reader) error {
	body, err := io.ReadAll(r)
	if err != nil {
		return errors.New("mail: a part can't be decoded")
	}
	text := string(bytes.ReplaceAll(body, []byte("\r\n"), []byte("\n")))
	switch kind, _, _ := mime.ParseMediaType(contentType); kind {
	case "text/plain":
		m.Text = text
	case "text/html":
		m.HTML = text
	}
	return nil
}
