package mail

import (
	"bytes"
	"cmp"
	"embed"
	"errors"
	"fmt"
	htmltemplate "html/template"
	"net/url"
	"regexp"
	"strings"
	texttemplate "text/template"
	"time"

	"github.com/google/uuid"
)

// Writer composes the mails. The zero Service means the host of PublicURL: readers
// know the site where they have an account, not the program behind it.
type Writer struct {
	// PublicURL is where the pages /reset and /recover are, without query.
	PublicURL string
	// SiteURL is where mails lead at their end; "": nowhere.
	SiteURL string
	// Service is the name shown, in subjects too.
	Service string
}

// Recipient is the user that gets a mail. The names are used in the greeting, unless
// they hold what no name holds: nobody must be able to make kwai mail an
// advertisement or a link.
type Recipient struct{ Email, FirstName, LastName string }

// Recovery is the mail with the link to choose a new password. It also has the
// unique id by itself, for readers who can't open links. An expired recovery, a
// malformed uuid and an address that can't be mailed to are [Permanent] errors, here
// and below.
func (w *Writer) Recovery(id string, to Recipient, uuid string, expires, now time.Time) (Message, error) {
	return w.link("recovery", id, to, uuid, expires, now)
}

// Invitation is the mail for an account that was made without a password: the
// link to choose one.
func (w *Writer) Invitation(id string, to Recipient, uuid string, expires, now time.Time) (Message, error) {
	return w.link("invitation", id, to, uuid, expires, now)
}

// Change is how a password was changed.
type Change struct {
	By   Actor
	Kept bool // the session in which it was changed goes on
}

// Actor is who made a change.
type Actor int

// The actors. The zero value is for an unknown one.
const (
	ByLink     Actor = iota + 1 // somebody with the link from a mail
	ByOperator                  // somebody who runs the server
	ByUser                      // somebody who was logged in and knew the old password
)

// PasswordChanged says that the password was set.
func (w *Writer) PasswordChanged(id string, to Recipient, o Origin, how Change, now time.Time) (Message, error) {
	c := o.content()
	c.Kept = how.Kept
	switch how.By {
	case ByLink:
		c.By = "by the link in a mail"
	case ByOperator:
		c.By, c.From = "by the operator", ""
	case ByUser:
		c.By = "in a session, by someone who knew the old password"
	}
	return w.compose("password_changed", id, to, c, now)
}

// SessionReplayed says that a session was ended, because one of its refresh tokens
// was used again long after it had been replaced.
func (w *Writer) SessionReplayed(id string, to Recipient, o Origin, now time.Time) (Message, error) {
	return w.compose("session_replayed", id, to, o.content(), now)
}

// NewNetwork says that there was a login from a network that the account didn't know.
func (w *Writer) NewNetwork(id string, to Recipient, o Origin, now time.Time) (Message, error) {
	return w.compose("new_network", id, to, o.content(), now)
}

// Test shows the operator that mails arrive.
func (w *Writer) Test(id string, to Recipient, now time.Time) (Message, error) {
	return w.compose("test", id, to, content{When: utc(now)}, now)
}

func (w *Writer) link(kind, id string, to Recipient, code string, expires, now time.Time) (Message, error) {
	if uuid.Validate(code) != nil { // its error quotes the id
		return Message{}, permanent("the unique id is not a UUID")
	}
	if !expires.After(now) {
		return Message{}, permanent("the unique id has expired")
	}
	return w.compose(kind, id, to, content{Code: code, Valid: words(expires.Sub(now)), Until: utc(expires)}, now)
}

// content is what the templates show.
type content struct {
	Name, Email, Service     string
	Home, Recover, Reset     string // addresses of pages; Home may be empty
	Code, Link, Valid, Until string // of a recovery or invitation
	When, From               string // of a notice; From is a sentence, or empty
	By                       string // of a changed password; may be empty
	Kept                     bool   // of a changed password
}

func (w *Writer) compose(kind, id string, to Recipient, c content, now time.Time) (Message, error) {
	if _, _, err := wireAddress(to.Email); err != nil {
		return Message{}, permanent("the recipient's address can't be used: " + err.Error())
	}
	u, err := url.Parse(w.PublicURL)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return Message{}, &failure{what: "the public URL must look like https://auth.example.org"}
	}
	c.Email, c.Name = to.Email, greetingName(to)
	c.Service = cmp.Or(line(w.Service, 100), u.Hostname())
	c.Home, c.Recover, c.Reset = w.SiteURL, u.JoinPath("recover").String(), u.JoinPath("reset").String()
	c.Link = c.Reset + "?uuid=" + c.Code

	var subject, text, html bytes.Buffer
	err = errors.Join(
		texts[kind].ExecuteTemplate(&subject, "subject", c),
		texts[kind].ExecuteTemplate(&text, kind+".txt", c),
		htmls[kind].ExecuteTemplate(&html, "layout.html", struct {
			content
			Title string
		}{c, subject.String()}),
	)
	if err != nil {
		return Message{}, permanent(fmt.Sprintf("the mail %s can't be composed (%T)", kind, err)) // the text might quote it
	}
	return Message{
		ID: id, To: to.Email, Date: now,
		Subject: subject.String(), Text: fill(text.String(), 72), HTML: fillLines(html.String(), 76),
	}, nil
}

//go:embed templates
var templates embed.FS

// texts and htmls are parsed at start, so that a broken template stops the
// program and not a mail. Each .txt defines its subject, each .html its body.
var texts, htmls = func() (map[string]*texttemplate.Template, map[string]*htmltemplate.Template) {
	t, h := map[string]*texttemplate.Template{}, map[string]*htmltemplate.Template{}
	for _, kind := range []string{"recovery", "invitation", "password_changed", "session_replayed", "new_network", "test"} {
		t[kind] = texttemplate.Must(texttemplate.ParseFS(templates, "templates/layout.txt", "templates/"+kind+".txt"))
		h[kind] = htmltemplate.Must(htmltemplate.ParseFS(templates, "templates/layout.html", "templates/"+kind+".html"))
	}
	return t, h
}()

// A name is letters with the signs that stand in names; a full stop right
// before a letter makes mail programs see a link.
var (
	nameChars  = regexp.MustCompile(`^[\p{L}\p{M}\p{Nd} .,'’ʼ·-]+$`)
	nameDomain = regexp.MustCompile(`\.[\p{L}\p{Nd}]`)
)

// greetingName is the full name (several members of a family may share an
// address), or nothing if it doesn't look like one.
func greetingName(to Recipient) string {
	name := line(to.FirstName+" "+to.LastName, 1000)
	if len([]rune(name)) > 80 || !nameChars.MatchString(name) || nameDomain.MatchString(name) {
		return ""
	}
	return name
}

func utc(t time.Time) string { return t.UTC().Format("15:04 UTC on Monday 2 January 2006") }

// words writes a duration in words, to the minute below two days and to the hour
// above.
func words(d time.Duration) string {
	d = d.Round(time.Minute)
	if d < time.Minute {
		return "less than a minute"
	}
	large, small, unit := int(d/time.Hour), int(d%time.Hour/time.Minute), [2]string{"hour", "minute"}
	if d >= 48*time.Hour {
		d = d.Round(time.Hour)
		large, small, unit = int(d/(24*time.Hour)), int(d%(24*time.Hour)/time.Hour), [2]string{"day", "hour"}
	}
	var parts []string
	for i, n := range []int{large, small} {
		switch {
		case n == 1:
			parts = append(parts, "1 "+unit[i])
		case n > 1:
			parts = append(parts, fmt.Sprintf("%d %ss", n, unit[i]))
		}
	}
	return strings.Join(parts, " and ")
}

// fill breaks the paragraphs of text, which blank lines divide, into lines of
// at most width characters. Longer words, such as links, stay whole.
func fill(text string, width int) string {
	var b strings.Builder
	for paragraph := range strings.SplitSeq(strings.TrimSpace(text), "\n\n") {
		if b.Len() > 0 {
			b.WriteString("\n\n")
		}
		column := 0
		for word := range strings.FieldsSeq(paragraph) {
			n := len([]rune(word))
			switch {
			case column == 0:
			case column+1+n > width:
				b.WriteByte('\n')
				column = 0
			default:
				b.WriteByte(' ')
				column++
			}
			b.WriteString(word)
			column += n
		}
	}
	return b.String() + "\n"
}

// fillLines breaks long lines of HTML, where a line break is a space.
func fillLines(html string, width int) string {
	var b strings.Builder
	for line := range strings.Lines(html) {
		b.WriteString(fill(line, width))
	}
	return b.String()
}
