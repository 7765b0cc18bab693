package mail

import (
	"bytes"
	"errors"
	"fmt"
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
func Parse(r io.Reader) (m Message, err error) {
	parsed, err := mail.ReadMessage(io.LimitReader(r, maxParse))
	if err != nil {
		return m, fmt.Errorf("mail: not a mail: %w", err)
	}
	h := parsed.Header
	to, errTo := mail.ParseAddress(h.Get("To"))
	subject, errSubject := new(mime.WordDecoder).DecodeHeader(h.Get("Subject"))
	date, errDate := h.Date()
	kind, params, errKind := mime.ParseMediaType(h.Get("Content-Type"))
	if err := errors.Join(errTo, errSubject, errDate, errKind); err != nil {
		return m, fmt.Errorf("mail: its header can't be read: %w", err)
	}
	id, _, _ := strings.Cut(strings.Trim(h.Get("Message-ID"), "<>"), "@")
	m = Message{ID: id, To: to.Address, Subject: subject, Date: date}
	if !strings.HasPrefix(kind, "multipart/") {
		body := parsed.Body
		if strings.EqualFold(h.Get("Content-Transfer-Encoding"), "quoted-printable") {
			body = quotedprintable.NewReader(body)
		}
		return m, m.addPart(kind, body)
	}
	for parts := multipart.NewReader(parsed.Body, params["boundary"]); ; {
		p, err := parts.NextPart() // decodes quoted-printable
		if errors.Is(err, io.EOF) {
			return m, nil
		}
		if err == nil {
			err = m.addPart(p.Header.Get("Content-Type"), p)
		}
		if err != nil {
			return Message{}, fmt.Errorf("mail: broken parts: %w", err)
		}
	}
}

func (m *Message) addPart(contentType string, r io.Reader) error {
	body, err := io.ReadAll(r)
	if err != nil {
		return err
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
