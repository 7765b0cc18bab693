package mail

import (
	"bytes"
	"cmp"
	_ "embed"
	"fmt"
	"html/template"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"kwai/internal/i18n"
)

// Writer composes the mails, in the recipient's language. The zero Service means the
// host of PublicURL: a reader knows the site that has the account, not the program
// behind it.
type Writer struct {
	// PublicURL is where the pages /reset and /recover are, without query.
	PublicURL string
	// SiteURL is where mails lead at their end; "": nowhere.
	SiteURL string
	// SupportURL is where their readers get help, https: or mailto:; "": nowhere.
	SupportURL string
	// Service is the name shown, in subjects too.
	Service string
	// Language is for recipients who have none; nil: English.
	Language *i18n.Language
}

// Recipient is the user a mail goes to. The names are used in the greeting, unless
// they hold what no name holds: nobody must be able to have kwai mail an
// advertisement or a link.
type Recipient struct {
	Email, FirstName, LastName string
	Language                   *i18n.Language // nil: the Writer's
}

// Recovery is the mail with the link to choose a new password. The unique id
// stands in it alone, too, for those who can't open links. A recovery that has
// expired at now, a uuid that is none and an address that can't be mailed to
// are [Permanent] errors, here and below.
func (w *Writer) Recovery(id string, to Recipient, uuid string, expires, now time.Time) (Message, error) {
	return w.choose("recovery", id, to, uuid, expires, now)
}

// FirstPassword is Recovery for an account that has no password: none was chosen yet, or
// the operator took it away.
func (w *Writer) FirstPassword(id string, to Recipient, uuid string, expires, now time.Time) (Message, error) {
	return w.choose("first_password", id, to, uuid, expires, now)
}

// Invitation is the mail for an account that was made without a password: the
// link to choose one.
func (w *Writer) Invitation(id string, to Recipient, uuid string, expires, now time.Time) (Message, error) {
	return w.choose("invitation", id, to, uuid, expires, now)
}

// Change is how a password was changed.
type Change struct {
	By   Actor
	Kept bool // the session in which it was changed goes on
}

// Actor is who made a change.
type Actor int

// The actors. The zero value is for where it isn't known.
const (
	ByLink     Actor = iota + 1 // somebody who has the link from a mail
	ByOperator                  // somebody who runs the server
	ByUser                      // somebody who was logged in and knew the old password
)

// PasswordChanged reports that the password was set.
func (w *Writer) PasswordChanged(id string, to Recipient, o Origin, how Change, now time.Time) (Message, error) {
	return w.compose("password_changed", id, to, now, func(m *draft) {
		what := map[Actor]string{0: "what", ByLink: "by_link", ByOperator: "by_operator", ByUser: "by_user"}[how.By]
		ended := "all"
		if how.Kept {
			ended = "others"
		}
		if how.By == ByOperator {
			o.Address = "" // a command has none
		}
		m.paragraph(m.text(what, "when", m.lang.Time(o.When)), m.from(o), m.text(ended))
		m.paragraph(m.lang.Text("mail.you"))
		m.paragraph(m.text("else"))
		m.link(m.lang.Text("mail.ask"), m.page("recover"))
	})
}

// SessionReplayed reports that a session was ended, because a token of it that had
// long been replaced was used again.
func (w *Writer) SessionReplayed(id string, to Recipient, o Origin, now time.Time) (Message, error) {
	return w.compose("session_replayed", id, to, now, func(m *draft) {
		m.paragraph(m.text("what", "when", m.lang.Time(o.When)), m.from(o))
		m.paragraph(m.text("do"))
		m.link(m.lang.Text("mail.ask"), m.page("recover"))
	})
}

// NewNetwork reports a login from a network that the account didn't know.
func (w *Writer) NewNetwork(id string, to Recipient, o Origin, now time.Time) (Message, error) {
	return w.compose("new_network", id, to, now, func(m *draft) {
		m.paragraph(m.text("what", "when", m.lang.Time(o.When)), m.from(o))
		m.paragraph(m.lang.Text("mail.you"))
		m.paragraph(m.text("else"))
		m.link(m.lang.Text("mail.ask"), m.page("recover"))
	})
}

// FactorChange is what became of what a user logs in by beside the password, as the
// catalogue names it.
type FactorChange string

// The changes there are mails for.
const (
	AuthenticatorAdded   FactorChange = "authenticator_added"
	AuthenticatorRemoved FactorChange = "authenticator_removed"
	PasskeyAdded         FactorChange = "passkey_added"
	PasskeyRemoved       FactorChange = "passkey_removed"
	TwoStepsOn           FactorChange = "two_steps_on"
	TwoStepsOff          FactorChange = "two_steps_off"
	RecoveryCodesMade    FactorChange = "recovery_codes"
	RecoveryCodeUsed     FactorChange = "recovery_code_used"
	CodesRefused         FactorChange = "codes_refused" // behind the right password
	FactorsReset         FactorChange = "factors_reset" // by an operator
)

// Has is what an account has since a FactorChange.
type Has struct {
	Password      bool
	RecoveryCodes int64 // that are left
}

// FactorsChanged reports a FactorChange, or that somebody came near one.
func (w *Writer) FactorsChanged(id string, to Recipient, o Origin, what FactorChange, has Has, now time.Time) (Message, error) {
	return w.compose(string(what), id, to, now, func(m *draft) {
		if what == FactorsReset {
			o.Address = "" // a command has none
		}
		m.paragraph(m.text("what", "when", m.lang.Time(o.When)), m.from(o), m.text("more"))
		look := func(text string) { m.link(text, m.page("account/security")) }
		switch what {
		case FactorsReset:
			if !has.Password {
				m.paragraph(m.text("choose"))
			}
			m.paragraph(m.text("else"))
			look(m.text("look"))
			return
		case RecoveryCodeUsed:
			if has.RecoveryCodes == 0 {
				m.paragraph(m.text("none"))
			} else {
				m.paragraph(m.text("left", "n", has.RecoveryCodes))
				m.paragraph(m.lang.Text("mail.you"))
			}
			m.paragraph(m.text("else"))
		case CodesRefused:
			m.paragraph(m.lang.Text("mail.you"))
			m.paragraph(m.text("else"))
		default:
			m.paragraph(m.lang.Text("mail.you"))
			m.paragraph(m.lang.Text("mail.factors.else", "service", m.service))
		}
		m.link(m.lang.Text("mail.ask"), m.page("recover"))
		if what != CodesRefused {
			look(m.lang.Text("mail.factors.look"))
		}
	})
}

// ConfirmEmail is the mail to an address that a user has asked for: the link by which the
// account gets it. The user's name isn't said, in case the mailbox is somebody else's.
func (w *Writer) ConfirmEmail(id string, to Recipient, code string, expires, now time.Time) (Message, error) {
	if !expires.After(now) {
		return Message{}, permanent("the link has expired")
	}
	to.FirstName, to.LastName = "", ""
	return w.compose("email_requested", id, to, now, func(m *draft) {
		m.paragraph(m.text("what"))
		m.add(block{Text: m.text("confirm"), Link: m.page("account/email/confirm") + "?code=" + url.QueryEscape(code), Button: true})
		m.paragraph(m.text("valid", "valid", m.lang.Duration(expires.Sub(now)), "until", m.lang.Time(expires)))
		m.paragraph(m.text("else"))
	})
}

// PasswordChosen reports the first password of an account that was made without one.
func (w *Writer) PasswordChosen(id string, to Recipient, o Origin, now time.Time) (Message, error) {
	return w.compose("password_chosen", id, to, now, func(m *draft) {
		m.paragraph(m.text("what", "when", m.lang.Time(o.When)), m.from(o))
		m.link(m.text("login"), cmp.Or(w.SiteURL, m.page("login")))
		m.paragraph(m.text("else"))
		m.link(m.lang.Text("mail.ask"), m.page("recover"))
	})
}

// EmailNotice reports to the address of an account that another one was asked for.
func (w *Writer) EmailNotice(id string, to Recipient, when, now time.Time) (Message, error) {
	return w.compose("email_notice", id, to, now, func(m *draft) {
		m.paragraph(m.text("what", "when", m.lang.Time(when)), m.text("link"))
		m.paragraph(m.lang.Text("mail.you"))
		m.paragraph(m.text("else"))
		m.link(m.lang.Text("mail.ask"), m.page("recover"))
	})
}

// EmailChanged reports to the address that an account had that it has another one now.
func (w *Writer) EmailChanged(id string, to Recipient, email string, when, now time.Time) (Message, error) {
	return w.compose("email_changed", id, to, now, func(m *draft) {
		m.paragraph(m.text("what", "email", email, "when", m.lang.Time(when)), m.text("mails"))
		m.paragraph(m.lang.Text("mail.you"))
		m.paragraph(m.text("else"))
	})
}

// Deleted is the last mail to a user: the account is gone.
func (w *Writer) Deleted(id string, to Recipient, when, now time.Time) (Message, error) {
	return w.compose("deleted", id, to, now, func(m *draft) {
		m.paragraph(m.text("what", "when", m.lang.Time(when)), m.text("gone"))
		m.paragraph(m.text("else"))
	})
}

// Test is for the operator: it shows that mails arrive.
func (w *Writer) Test(id string, to Recipient, now time.Time) (Message, error) {
	return w.compose("test", id, to, now, func(m *draft) {
		m.paragraph(m.text("what", "when", m.lang.Time(now)))
	})
}

func (w *Writer) choose(kind, id string, to Recipient, code string, expires, now time.Time) (Message, error) {
	if uuid.Validate(code) != nil { // its error quotes the id
		return Message{}, permanent("the unique id is not a UUID")
	}
	if !expires.After(now) {
		return Message{}, permanent("the unique id has expired")
	}
	return w.compose(kind, id, to, now, func(m *draft) {
		m.paragraph(m.text("what"))
		m.add(block{Text: m.lang.Text("mail.choose"), Link: m.page("reset") + "?uuid=" + code, Button: true})
		m.link(m.lang.Text("mail.open"), m.page("reset"))
		m.paragraph(m.lang.Text("mail.type"))
		m.add(block{Code: code})
		m.link(m.lang.Text("mail.valid", "valid", m.lang.Duration(expires.Sub(now)), "until", m.lang.Time(expires)), m.page("recover"))
		m.paragraph(m.text("else"))
	})
}

// draft is a mail that is being written.
type draft struct {
	kind    string
	service string
	lang    *i18n.Language
	base    *url.URL // of the pages
	blocks  []block
}

// block is a paragraph, a link with the text before it or, as a button, on it, or a
// code that stands alone.
type block struct {
	Text, Link, Code string
	Button           bool
}

func (m *draft) add(b block) { m.blocks = append(m.blocks, b) }

// paragraph adds sentences, of which those that are empty are left out.
func (m *draft) paragraph(sentences ...string) {
	m.add(block{Text: strings.TrimSpace(strings.Join(sentences, " "))})
}

func (m *draft) link(text, to string) { m.add(block{Text: text, Link: to}) }

// text is one of this mail's own.
func (m *draft) text(key string, pairs ...any) string {
	return m.lang.Text("mail."+m.kind+"."+key, append(pairs, "service", m.service)...)
}

func (m *draft) page(name string) string { return m.base.JoinPath(name).String() }

func (w *Writer) compose(kind, id string, to Recipient, now time.Time, write func(*draft)) (Message, error) {
	if _, _, err := wireAddress(to.Email); err != nil {
		return Message{}, permanent("the recipient's address can't be used: " + err.Error())
	}
	u, err := url.Parse(w.PublicURL)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return Message{}, &failure{what: "the public URL must look like https://auth.example.org"}
	}
	m := &draft{kind: kind, service: cmp.Or(line(w.Service, 100), u.Hostname()), lang: cmp.Or(to.Language, w.Language, i18n.English), base: u}
	write(m)
	subject := m.text("subject")
	greeting := m.lang.Text("mail.hello")
	if name := greetingName(to); name != "" {
		greeting = m.lang.Text("mail.greeting", "name", name)
	}
	end := m.lang.Text("mail.end", "service", m.service, "email", to.Email)

	text := []string{greeting}
	for _, b := range m.blocks {
		if b.Button {
			b.Text = ""
		}
		text = append(text, b.Text, b.Link, b.Code)
	}
	help, support := "", supportShown(w.SupportURL)
	if support != "" {
		help = m.lang.Text("mail.help")
	}
	text = slices.DeleteFunc(append(text, end, strings.TrimSpace(help+" "+support), w.SiteURL), func(paragraph string) bool { return paragraph == "" })

	var html bytes.Buffer
	err = layout.Execute(&html, map[string]any{
		"Lang": m.lang.Code, "Title": subject, "Greeting": greeting, "Blocks": m.blocks, "End": end, "Home": w.SiteURL,
		"Help": help, "Support": w.SupportURL, "SupportShown": support,
	})
	if err != nil {
		return Message{}, permanent(fmt.Sprintf("the mail %s can't be composed (%T)", kind, err)) // the text might quote it
	}
	return Message{
		ID: id, To: to.Email, Date: now,
		Subject: subject, Text: fill(strings.Join(text, "\n\n"), 72), HTML: fillLines(html.String(), 76),
	}, nil
}

// supportShown is a support URL as people read it: of mailto:, the address.
func supportShown(link string) string {
	address, isMail := strings.CutPrefix(link, "mailto:")
	if !isMail {
		return link
	}
	address, _, _ = strings.Cut(address, "?")
	if plain, err := url.PathUnescape(address); err == nil {
		return plain
	}
	return address
}

//go:embed layout.html
var layoutText string

// layout is parsed at start, so that a broken one stops the program and not a mail.
var layout = template.Must(template.New("layout").Parse(layoutText))

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
