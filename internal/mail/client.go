package mail

import (
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/textproto"
	"strings"

	"github.com/wneessen/go-mail/smtp"
)

// client speaks SMTP (RFC 5321) on one connection. The libraries' clients compare
// the keywords of EHLO with their case: to a server that writes "starttls", mails and
// the password would go in the clear. And they drop the reason why EHLO was refused.
type client struct {
	conn       net.Conn
	text       *textproto.Conn
	tls        bool
	extensions map[string]string // parameters by keyword, both in upper case
}

// newClient reads the server's greeting.
func newClient(conn net.Conn) (*client, error) {
	c := &client{conn: conn, text: textproto.NewConn(conn)}
	_, c.tls = conn.(*tls.Conn)
	_, _, err := c.text.ReadResponse(220)
	return c, err
}

// command returns the answer, and an error unless its code is the one expected;
// 0 expects any.
func (c *client) command(expected int, line ...string) (code int, message string, err error) {
	if err := c.text.PrintfLine("%s", strings.Join(line, " ")); err != nil {
		return 0, "", err
	}
	return c.text.ReadResponse(expected)
}

// hello asks what the server can do. A server that doesn't know EHLO gets HELO.
func (c *client) hello(name string) error {
	c.extensions = make(map[string]string)
	_, message, err := c.command(250, "EHLO", name)
	if reply := (*textproto.Error)(nil); errors.As(err, &reply) && reply.Code/100 == 5 {
		_, _, err = c.command(250, "HELO", name)
		return err
	}
	_, lines, _ := strings.Cut(message, "\n")
	for line := range strings.Lines(lines) {
		words := strings.Fields(strings.ToUpper(line))
		if len(words) == 0 {
			continue
		}
		// Some write AUTH=LOGIN, beside AUTH LOGIN or instead of it.
		keyword, first, _ := strings.Cut(words[0], "=")
		c.extensions[keyword] = strings.Join(append([]string{c.extensions[keyword], first}, words[1:]...), " ")
	}
	return err
}

func (c *client) offers(keyword string) bool {
	_, ok := c.extensions[keyword]
	return ok
}

// startTLS greets anew: earlier answers may have come from an attacker.
func (c *client) startTLS(config *tls.Config, name string) error {
	if _, _, err := c.command(220, "STARTTLS"); err != nil {
		return err
	}
	c.conn = tls.Client(c.conn, config)
	c.text, c.tls = textproto.NewConn(c.conn), true
	return c.hello(name)
}

// auth logs in (RFC 4954).
func (c *client) auth(a smtp.Auth, host string, mechanisms []string) error {
	mechanism, answer, err := a.Start(&smtp.ServerInfo{Name: host, TLS: c.tls, Auth: mechanisms})
	if err != nil {
		return err
	}
	line := []string{"AUTH", mechanism}
	if len(answer) > 0 {
		line = append(line, base64.StdEncoding.EncodeToString(answer))
	}
	for {
		code, message, err := c.command(0, line...)
		if err != nil {
			return err
		}
		challenge := []byte(message)
		switch code {
		case 334:
			challenge, err = base64.StdEncoding.DecodeString(message)
		case 235: // it says no more than yes
		default:
			return &textproto.Error{Code: code, Msg: message}
		}
		if err == nil {
			answer, err = a.Next(challenge, code == 334)
		}
		if err != nil {
			_, _, _ = c.command(501, "*") // gives up
			return err
		}
		if code == 235 {
			return nil
		}
		line = []string{base64.StdEncoding.EncodeToString(answer)}
	}
}

// send sends a message and returns the server's answer to it. The step is where it
// failed.
func (c *client) send(l *envelope) (answer, step string, err error) {
	from := []string{"MAIL", "FROM:" + l.from}
	if c.offers("8BITMIME") {
		from = append(from, "BODY=8BITMIME")
	}
	// Asked for without need, a next hop without it would bounce the message.
	if l.needsUTF8 {
		from = append(from, "SMTPUTF8")
	}
	if _, _, err := c.command(250, from...); err != nil {
		return "", stepFrom, err
	}
	if _, _, err := c.command(25, "RCPT", "TO:"+l.to); err != nil {
		return "", stepTo, err
	}
	if _, _, err := c.command(354, "DATA"); err != nil {
		return "", stepData, err
	}
	w := c.text.DotWriter()
	if _, err = w.Write(l.data); err == nil { // Close sends the final dot: never after half a message
		err = w.Close()
	}
	if err == nil {
		var code int
		code, answer, err = c.text.ReadResponse(250)
		answer = fmt.Sprintf("%d %s", code, answer)
	}
	return answer, stepContent, err
}
