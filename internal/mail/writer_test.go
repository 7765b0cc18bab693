package mail_test

import (
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"kwai/internal/i18n"
	"kwai/internal/mail"
)

const code = "5f0c3c7e-9a53-4f0a-8d6e-0d8a3c1b2e4f"

var (
	now  = time.Date(2026, 3, 2, 13, 5, 0, 0, time.FixedZone("CET", 3600))
	user = mail.Recipient{Email: "jan@example.org", FirstName: "Jan", LastName: "Janssens"}

	there = mail.Origin{When: now, Address: "192.0.2.7", UserAgent: "Mozilla/5.0 (Windows NT 10.0; rv:140.0) Gecko/20100101 Firefox/140.0"}
)

// where is the sentence of there.
const where = "The request came from the address 192.0.2.7, from what calls itself Firefox on Windows."

func recovery(t *testing.T, to mail.Recipient) mail.Message {
	t.Helper()
	w := &mail.Writer{PublicURL: "https://auth.example.org"}
	m, err := w.Recovery("id-1", to, code, now.Add(2*time.Hour), now)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestMails(t *testing.T) {
	t.Parallel()
	short := mail.Writer{PublicURL: "https://auth.example.org/"}
	long := mail.Writer{PublicURL: "http://127.0.0.1:8080/a/path/that/makes/links/longer/than/any/line/of/seventy-two", Service: "Judo & <Co>\r\nBcc: x@example.com"}
	const longService = "Judo & <Co> Bcc: x@example.com"
	expires := now.Add(2 * time.Hour)
	for _, tc := range []struct {
		name, subject string
		service, home string
		m             func() (mail.Message, error)
		both          []string // in text and HTML
		link          bool
	}{
		{
			"recovery", "Choose a new password for auth.example.org", "auth.example.org", "https://auth.example.org",
			func() (mail.Message, error) { return short.Recovery("a", user, code, expires, now) },
			[]string{"Jan Janssens", "for 2 hours: until 14:05 UTC on Monday 2 March 2026", "ignore this mail"}, true,
		},
		{
			"first password", "Choose a password for auth.example.org", "auth.example.org", "https://auth.example.org",
			func() (mail.Message, error) { return short.FirstPassword("a", user, code, expires, now) },
			[]string{"has no password: none was chosen yet, or the operator took it away"}, true,
		},
		{
			"invitation", "Your account at " + longService, longService, long.PublicURL,
			func() (mail.Message, error) { return long.Invitation("a", user, code, expires, now) },
			[]string{"An account was made for you", "for 2 hours: until 14:05 UTC on Monday 2 March 2026", "ignore this mail"}, true,
		},
		{
			"password changed", "Your password for auth.example.org was changed", "auth.example.org", "https://auth.example.org",
			func() (mail.Message, error) {
				return short.PasswordChanged("a", user, there, mail.Change{By: mail.ByLink}, now)
			},
			[]string{"was changed at 12:05 UTC on Monday 2 March 2026, by the link in a mail. " + where + " All sessions were ended; every device has", "If it was not you"}, false,
		},
		{
			"password changed by the operator", "Your password for auth.example.org was changed", "auth.example.org", "https://auth.example.org",
			func() (mail.Message, error) {
				return short.PasswordChanged("a", user, there, mail.Change{By: mail.ByOperator}, now)
			},
			[]string{"was changed at 12:05 UTC on Monday 2 March 2026, by the operator. All sessions were ended; every device has"}, false,
		},
		{
			"password changed by the user", "Your password for auth.example.org was changed", "auth.example.org", "https://auth.example.org",
			func() (mail.Message, error) {
				return short.PasswordChanged("a", user, there, mail.Change{By: mail.ByUser, Kept: true}, now)
			},
			[]string{"after the old one was typed. " + where + " All sessions were ended but the one in which it was changed; every other device has"}, false,
		},
		{
			"password changed, nobody knows how", "Your password for auth.example.org was changed", "auth.example.org", "https://auth.example.org",
			func() (mail.Message, error) {
				return short.PasswordChanged("a", user, mail.Origin{When: now}, mail.Change{}, now)
			},
			[]string{"was changed at 12:05 UTC on Monday 2 March 2026. All sessions were ended; every device has"}, false,
		},
		{
			"new network", "Someone logged in to " + longService + " from a new network", longService, long.PublicURL,
			func() (mail.Message, error) { return long.NewNetwork("a", user, there, now) },
			[]string{"at 12:05 UTC on Monday 2 March 2026, from a network", "hadn't logged in lately. " + where, "someone else is using your account"}, false,
		},
		{
			"session replayed", "Your session at " + longService + " was used elsewhere", longService, long.PublicURL,
			func() (mail.Message, error) { return long.SessionReplayed("a", user, there, now) },
			[]string{"At 12:05 UTC on Monday 2 March 2026", "we ended that session. " + where, "What to do"}, false,
		},
		{
			"email requested", "Your new address for auth.example.org", "auth.example.org", "https://auth.example.org",
			func() (mail.Message, error) {
				return short.ConfirmEmail("a", user, "01234567.abc-_", now.Add(2*time.Hour), now)
			},
			[]string{"asked to use this address", "https://auth.example.org/account/email/confirm?code=01234567.abc-_", "once, for 2 hours: until 14:05 UTC", "ignore this mail"}, false,
		},
		{
			"password chosen", "Your account at auth.example.org has a password", "auth.example.org", "https://auth.example.org",
			func() (mail.Message, error) { return short.PasswordChosen("a", user, there, now) },
			[]string{"was chosen at 12:05 UTC on Monday 2 March 2026, by the link that we mailed you. " + where, "https://auth.example.org/login", "If it was not you"}, false,
		},
		{
			"email notice", "Someone asked for another address for your account at auth.example.org", "auth.example.org", "https://auth.example.org",
			func() (mail.Message, error) { return short.EmailNotice("a", user, now, now) },
			[]string{"asked at 12:05 UTC on Monday 2 March 2026 to use another e-mail address", "Nothing has changed so far", "Choose a new password at once", "https://auth.example.org/recover"}, false,
		},
		{
			"email changed", "The address of your account at auth.example.org was changed", "auth.example.org", "https://auth.example.org",
			func() (mail.Message, error) { return short.EmailChanged("a", user, "jan@example.net", now, now) },
			[]string{"was changed to jan@example.net at 12:05 UTC on Monday 2 March 2026. From now on", "If it was not you and you didn't ask for it"}, false,
		},
		{
			"deleted", "Your account at " + longService + " was deleted", longService, long.PublicURL,
			func() (mail.Message, error) { return long.Deleted("a", mail.Recipient{Email: user.Email}, now, now) },
			[]string{"was deleted at 12:05 UTC on Monday 2 March 2026. All sessions were ended", "This is the last mail about it.", "If you didn't ask for it"}, false,
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			m, err := tc.m()
			if err != nil {
				t.Fatal(err)
			}
			if m.ID != "a" || m.To != user.Email {
				t.Errorf("message is %q to %q", m.ID, m.To)
			}
			if !m.Date.Equal(now) {
				t.Errorf("its date is %s", m.Date)
			}
			if m.Subject != tc.subject {
				t.Errorf("its subject is %q", m.Subject)
			}
			both := slices.Concat(tc.both, []string{user.Email})
			if tc.name != "email changed" && tc.name != "email requested" && tc.name != "deleted" { // a link would go to nobody, or to the new address
				both = append(both, tc.home+"/recover")
			}
			if tc.link {
				both = append(both, tc.home+"/reset?uuid="+code, ">"+code+"<", tc.home+"/reset<")
			}
			text, html := strings.Join(strings.Fields(m.Text), " "), strings.Join(strings.Fields(m.HTML), " ")
			if want := htmlEscape.Replace(tc.service); !strings.Contains(html, want) {
				t.Errorf("HTML lacks %q", want)
			}
			for _, want := range both {
				if !strings.Contains(apostrophes.Replace(html), want) {
					t.Errorf("HTML lacks %q", want)
				}
			}
			for _, want := range slices.Concat(both, []string{tc.service}) {
				if !strings.Contains(text, strings.Trim(want, "<>")) {
					t.Errorf("text lacks %q", want)
				}
			}
			if tc.link && !regexp.MustCompile(`(?m)^`+regexp.QuoteMeta(tc.home+"/reset?uuid="+code)+`$\n\n(?s:.*)^`+code+`$`).MatchString(m.Text) {
				t.Errorf("link and id don't stand on lines of their own:\n%s", m.Text)
			}
			for l := range strings.Lines(m.Text) {
				if l = strings.TrimSuffix(l, "\n"); utf8.RuneCountInString(l) > 72 && strings.Contains(l, " ") {
					t.Errorf("line of over 72 characters: %s", l)
				}
			}
			if found := regexp.MustCompile(`(?i)<img|<link|<script|@import|\bsrc=|url\(|[^-]color:`).FindString(m.HTML); found != "" {
				t.Errorf("HTML has %q: remote content or colours", found)
			}
			for _, address := range regexp.MustCompile(`https?://[^\s"<]+`).FindAllString(m.HTML+m.Text, -1) {
				if !strings.HasPrefix(address, tc.home) {
					t.Errorf("there is a link elsewhere: %s", address)
				}
			}
			if !strings.Contains(m.HTML, `<html lang="en">`) {
				t.Error("HTML names no language")
			}
		})
	}
}

var (
	htmlEscape  = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;")
	apostrophes = strings.NewReplacer("&#39;", "'")
)

// A name must not carry a message.
func TestGreeting(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ first, last, want string }{
		{"Jan", "Janssens", "Hello Jan Janssens,"},
		{"Jan", "", "Hello Jan,"},
		{"", "", "Hello,"},
		{"Ægir Đặng", "O’Neill-d'Été Jr.", "Hello Ægir Đặng O’Neill-d'Été Jr.,"},
		{"محمد", "علی", "Hello محمد علی,"},
		{"Jan\r\nBcc: a", "b", "Hello,"},
		{"Jan\r\n\r\n", "\x00X", "Hello Jan X,"},
		{"\u202eJan\u2066", "\ufeffX", "Hello Jan X,"},
		{"Win at evil.example", "now", "Hello,"},
		{"https://evil", "", "Hello,"},
		{"<b>Jan</b>", "", "Hello,"},
		{"a@b", "", "Hello,"},
		{"\"Jan\"", "", "Hello,"},
		{"{{.Code}}", "", "Hello,"},
		{strings.Repeat("Jan ", 100), "", "Hello,"},
		{"\xff\xfe", "Jan", "Hello Jan,"},
	} {
		m := recovery(t, mail.Recipient{Email: user.Email, FirstName: tc.first, LastName: tc.last})
		if got, _, _ := strings.Cut(m.Text, "\n"); got != tc.want {
			t.Errorf("%q %q is greeted %q, want %q", tc.first, tc.last, got, tc.want)
		}
	}
}

// Nor must the name that a thief's browser gives itself, in the very mail that warns of
// the thief: only names that we know are shown.
func TestNoticesShowNoTextOfTheClients(t *testing.T) {
	t.Parallel()
	const address = "The request came from the address 2001:db8::1"
	for _, tc := range []struct{ address, agent, want string }{
		{"2001:db8::1", "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.5 Mobile/15E148 Safari/604.1", address + ", from what calls itself Safari on an iPhone."},
		{"2001:db8::1", "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/138.0.0.0 Mobile Safari/537.36", address + ", from what calls itself Chrome on Android."},
		{"2001:db8::1", "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/138.0.0.0 Safari/537.36 Edg/138.0.0.0", address + ", from what calls itself Edge on a Mac."},
		{"2001:db8::1", "curl/8.5.0", address + ", from what calls itself curl."},
		{"2001:db8::1", "Mozilla/5.0 (X11; Linux x86_64) Jigsaw/1", address + ", from what calls itself Linux."},
		{"2001:db8::1", "", address + "."},
		{"2001:db8::1", "JudoClub/2.1", address + "."},
		{"2001:db8::1", "It was us. Confirm your account at https://evil.example/ or evil.example, call +32 2 555 01 23", address + "."},
		{"2001:db8::1", "Firefox. Not you? Go to http://evil.example", address + ", from what calls itself Firefox."},
		{"2001:db8::1", "<a href=//evil.example>Firefox</a>\r\nBcc: x@evil.example\r\n\r\n", address + ", from what calls itself Firefox."},
		{"2001:db8::1", "\u202eFirefox\u2066 \x00 \xff", address + ", from what calls itself Firefox."},
		{"2001:db8::1", "firefox EvilFirefox FirefoxHelp", address + "."},
		{"evil.example", "Firefox", ""},
		{"fe80::1%evil.example", "Firefox", ""},
		{"", "Firefox", ""},
	} {
		o := mail.Origin{When: now, Address: tc.address, UserAgent: tc.agent}
		m, err := (&mail.Writer{PublicURL: "https://x"}).NewNetwork("a", user, o, now)
		if err != nil {
			t.Fatal(err)
		}
		want := "hadn't logged in lately."
		if tc.want != "" {
			want += " " + tc.want
		}
		for part, text := range map[string]string{"text": strings.Join(strings.Fields(m.Text), " ") + "\n", "HTML": apostrophes.Replace(strings.Join(strings.Fields(m.HTML), " "))} {
			if _, after, found := strings.Cut(text, want); !found || !strings.HasPrefix(after, " If it was you") && !strings.HasPrefix(after, "</p>") {
				t.Errorf("from %q, %q: the %s lacks %q alone:\n%s", tc.address, tc.agent, part, want, text)
			}
			if strings.Contains(text, "evil") {
				t.Errorf("from %q, %q: the %s tells it:\n%s", tc.address, tc.agent, part, text)
			}
		}
	}
}

func TestValidityInWords(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]string{
		time.Second:                     "for less than a minute:",
		time.Minute:                     "for 1 minute:",
		59*time.Minute + 40*time.Second: "for 1 hour:",
		90 * time.Minute:                "for 1 hour and 30 minutes:",
		2*time.Hour - time.Second:       "for 2 hours:",
		24 * time.Hour:                  "for 24 hours:",
		48*time.Hour - time.Second:      "for 2 days:",
		49 * time.Hour:                  "for 2 days and 1 hour:",
		7 * 24 * time.Hour:              "for 7 days:",
	} {
		m, err := (&mail.Writer{PublicURL: "https://x"}).Recovery("a", user, code, now.Add(d), now)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(strings.ReplaceAll(m.Text, "\n", " "), want) {
			t.Errorf("%s: want %q in:\n%s", d, want, m.Text)
		}
	}
}

func TestWriterRefuses(t *testing.T) {
	t.Parallel()
	const site = "https://auth.example.org"
	for name, tc := range map[string]struct {
		site, email, code string
		valid             time.Duration
		permanent         bool
	}{
		"expired":        {site, user.Email, code, 0, true},
		"not a UUID":     {site, user.Email, "secret\r\n", time.Hour, true},
		"no address":     {site, "Jan <jan@example.org>", code, time.Hour, true},
		"no URL":         {"", user.Email, code, time.Hour, false},
		"odd URL":        {"javascript:alert(1)", user.Email, code, time.Hour, false},
		"URL with query": {site + "?a=b", user.Email, code, time.Hour, false},
	} {
		_, err := (&mail.Writer{PublicURL: tc.site}).Recovery("a", mail.Recipient{Email: tc.email}, tc.code, now.Add(tc.valid), now)
		if err == nil || mail.Permanent(err) != tc.permanent {
			t.Errorf("%s: error %v, permanent %t", name, err, mail.Permanent(err))
		}
		if err != nil && strings.Contains(err.Error(), strings.TrimSpace(tc.code)) {
			t.Errorf("%s: the error tells the id: %v", name, err)
		}
	}
}

// Each mail leads to the site, if there is one, and to no page that isn't there.
func TestMailsLeadToTheSite(t *testing.T) {
	t.Parallel()
	const site = "https://club.example.org/login?a=b&c=d"
	for _, set := range []string{"", site} {
		w := mail.Writer{PublicURL: "https://auth.example.org", SiteURL: set}
		m, err := w.NewNetwork("a", user, there, now)
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.HasSuffix(m.Text, "\n\n"+site+"\n"); got != (set != "") {
			t.Errorf("with the site %q the text ends so:\n%s", set, m.Text)
		}
		if got := strings.Contains(m.HTML, `href="https://club.example.org/login?a=b&amp;c=d"`); got != (set != "") {
			t.Errorf("with the site %q the HTML is\n%s", set, m.HTML)
		}
		for _, found := range regexp.MustCompile(`https://auth\.example\.org[^\s"<]*`).FindAllString(m.Text+m.HTML, -1) {
			if !strings.HasSuffix(found, "/recover") {
				t.Errorf("with the site %q there is a link to %s", set, found)
			}
		}
	}
}

// Each mail is written in each language, whole, and says that it is.
func TestMailsInEveryLanguage(t *testing.T) {
	t.Parallel()
	w := mail.Writer{PublicURL: "https://auth.example.org", Service: "Judo"}
	for _, l := range i18n.Languages() {
		to := user
		to.Language = l
		for name, write := range map[string]func() (mail.Message, error){
			"recovery":       func() (mail.Message, error) { return w.Recovery("a", to, code, now.Add(49*time.Hour), now) },
			"invitation":     func() (mail.Message, error) { return w.Invitation("a", to, code, now.Add(time.Minute), now) },
			"first password": func() (mail.Message, error) { return w.FirstPassword("a", to, code, now.Add(time.Minute), now) },
			"password changed": func() (mail.Message, error) {
				return w.PasswordChanged("a", to, there, mail.Change{By: mail.ByLink}, now)
			},
			"by nobody": func() (mail.Message, error) { return w.PasswordChanged("a", to, there, mail.Change{}, now) },
			"by the operator": func() (mail.Message, error) {
				return w.PasswordChanged("a", to, there, mail.Change{By: mail.ByOperator}, now)
			},
			"by the user": func() (mail.Message, error) {
				return w.PasswordChanged("a", to, there, mail.Change{By: mail.ByUser, Kept: true}, now)
			},
			"replayed":        func() (mail.Message, error) { return w.SessionReplayed("a", to, there, now) },
			"new network":     func() (mail.Message, error) { return w.NewNetwork("a", to, there, now) },
			"password chosen": func() (mail.Message, error) { return w.PasswordChosen("a", to, there, now) },
			"email notice":    func() (mail.Message, error) { return w.EmailNotice("a", to, now, now) },
			"email changed":   func() (mail.Message, error) { return w.EmailChanged("a", to, "jan@example.net", now, now) },
			"deleted":         func() (mail.Message, error) { return w.Deleted("a", to, now, now) },
			"test":            func() (mail.Message, error) { return w.Test("a", to, now) },
		} {
			m, err := write()
			if err != nil {
				t.Fatal(err)
			}
			if strings.ContainsAny(m.Subject+m.Text, "{}") || strings.ContainsAny(m.HTML, "{}") {
				t.Errorf("%s %s: a name is left:\n%s", l.Code, name, m.Text)
			}
			if !strings.Contains(m.Subject, "Judo") || !strings.Contains(m.Text, "Janssens") || !strings.HasPrefix(m.Text, l.Text("mail.greeting", "name", "Jan Janssens")) {
				t.Errorf("%s %s: %s\n%s", l.Code, name, m.Subject, m.Text)
			}
			if !strings.Contains(m.HTML, `<html lang="`+l.Code+`">`) {
				t.Errorf("%s %s: HTML names another language", l.Code, name)
			}
		}
	}
	// The Writer's language is for those who have none.
	w.Language = i18n.Lookup("nl")
	if m, err := w.Test("a", user, now); err != nil || !strings.HasPrefix(m.Text, "Hallo Jan Janssens,") {
		t.Errorf("%v:\n%s", err, m.Text)
	}
}

// Each mail ends with where its reader gets help, in the language of the mail.
func TestMailsEndWithTheSupportAddress(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ language, support, shown, help string }{
		{"en", "https://club.example.org/help?a=b&c=d", "https://club.example.org/help?a=b&c=d", "Questions? You get help here:"},
		{"nl", "mailto:help@example.org", "help@example.org", "Vragen? Hier krijg je hulp:"},
		{"fr", "mailto:help%2Bclub@example.org?subject=Aide", "help+club@example.org", "Des questions ? Vous trouverez de l’aide ici :"},
		{"de", "mailto:help@example.org", "help@example.org", "Fragen? Hier erhalten Sie Hilfe:"},
		{"en", "", "", ""},
	} {
		w := &mail.Writer{PublicURL: "https://auth.example.org", SiteURL: "https://club.example.org", SupportURL: tt.support}
		m, err := w.Test("a", mail.Recipient{Email: "ann@example.org", Language: i18n.Lookup(tt.language)}, now)
		if err != nil {
			t.Fatal(err)
		}
		text, html := strings.Join(strings.Fields(m.Text), " "), strings.ReplaceAll(strings.Join(strings.Fields(m.HTML), " "), "&#43;", "+")
		if want := strings.Join(strings.Fields(tt.help+" "+tt.shown+" https://club.example.org"), " "); !strings.HasSuffix(text, want) {
			t.Errorf("the text doesn't end with %q:\n%s", want, m.Text)
		}
		link := `<p style="font-size: 0.9em">` + tt.help + ` <a href="` + htmlEscape.Replace(tt.support) + `">` + htmlEscape.Replace(tt.shown) + `</a></p>`
		if got := strings.Contains(apostrophes.Replace(html), apostrophes.Replace(link)); got != (tt.support != "") || strings.Contains(html, "help") != got {
			t.Errorf("the HTML has %s: %t\n%s", link, got, m.HTML)
		}
	}
}

// Each mail about factors says what happened, when and from where, and where its reader
// goes if that was somebody else.
func TestMailsAboutFactors(t *testing.T) {
	t.Parallel()
	const ask, security = "https://auth.example.org/recover", "https://auth.example.org/account/security"
	at := " at 12:05 UTC on Monday 2 March 2026"
	for change, tc := range map[mail.FactorChange]struct {
		subject string
		says    []string
		links   []string
	}{
		mail.AuthenticatorAdded:   {"An authenticator app was set up for your account at Judo", []string{at + ". " + where, "its codes no longer work, nor do the recovery codes", "Choose a new password at once"}, []string{ask, security}},
		mail.AuthenticatorRemoved: {"The authenticator app of your account at Judo was removed", []string{at + ", and the recovery codes with it. " + where, "the password is enough", "Choose a new password at once"}, []string{ask, security}},
		mail.PasskeyAdded:         {"A passkey was added to your account at Judo", []string{at + ". " + where, "with it alone", "Choose a new password at once"}, []string{ask, security}},
		mail.PasskeyRemoved:       {"A passkey of your account at Judo was removed", []string{at + ". " + where, "Nobody can log in with it", "Choose a new password at once"}, []string{ask, security}},
		mail.TwoStepsOn:           {"Two steps were switched on for your account at Judo", []string{at + ". " + where, "All sessions were ended but the one", "Choose a new password at once"}, []string{ask, security}},
		mail.TwoStepsOff:          {"Two steps were switched off for your account at Judo", []string{at + ". " + where, "the password is enough", "Choose a new password at once"}, []string{ask, security}},
		mail.RecoveryCodesMade:    {"New recovery codes for your account at Judo", []string{at + ". " + where, "Those from before no longer work", "Choose a new password at once"}, []string{ask, security}},
		mail.RecoveryCodeUsed:     {"A recovery code of your account at Judo was used", []string{at + ", with your password and a recovery code. " + where, "You can make new ones", "your password and your recovery codes"}, []string{ask, security}},
		mail.CodesRefused:         {"Someone typed your password for Judo, and then wrong codes", []string{"three times within a day. The last time was" + at + ". " + where, "Nobody was let in", "someone else knows your password. Choose a new one at once"}, []string{ask}},
		mail.FactorsReset:         {"Two steps and passkeys of your account at Judo were removed", []string{at + ", by the operator. All sessions were ended", "ask the people who run Judo"}, []string{security}},
	} {
		w := mail.Writer{PublicURL: "https://auth.example.org", Service: "Judo"}
		m, err := w.FactorsChanged("a", user, there, change, mail.Has{Password: true, RecoveryCodes: 9}, now)
		if err != nil {
			t.Fatal(err)
		}
		if m.Subject != tc.subject || m.To != user.Email {
			t.Errorf("%s: %q to %s", change, m.Subject, m.To)
		}
		for part, text := range map[string]string{"text": m.Text, "HTML": apostrophes.Replace(m.HTML)} {
			text = strings.Join(strings.Fields(text), " ")
			for _, want := range tc.says {
				if !strings.Contains(strings.ToLower(text), strings.ToLower(want)) {
					t.Errorf("%s: the %s lacks %q:\n%s", change, part, want, text)
				}
			}
			links := slices.Compact(regexp.MustCompile(`https?://[^\s"<]+`).FindAllString(text, -1))
			if !slices.Equal(links, tc.links) {
				t.Errorf("%s: the %s has the links %q, want %q", change, part, links, tc.links)
			}
		}
		for _, l := range i18n.Languages() {
			to := user
			to.Language = l
			for _, has := range []mail.Has{{}, {Password: true, RecoveryCodes: 9}} {
				m, err := w.FactorsChanged("a", to, there, change, has, now)
				if err != nil {
					t.Fatal(err)
				}
				if strings.ContainsAny(m.Subject+m.Text+m.HTML, "{}") || !strings.Contains(m.Subject, "Judo") || !strings.Contains(m.HTML, `<html lang="`+l.Code+`">`) {
					t.Errorf("%s %s: a name is left, or is missing: %s\n%s", l.Code, change, m.Subject, m.Text)
				}
			}
		}
	}
}

// What is left to do is said where there is something.
func TestMailsAboutFactorsSayWhatIsLeft(t *testing.T) {
	t.Parallel()
	w := mail.Writer{PublicURL: "https://auth.example.org", Service: "Judo"}
	for _, tt := range []struct {
		change     mail.FactorChange
		has        mail.Has
		says, lack string
	}{
		{mail.RecoveryCodeUsed, mail.Has{Password: true, RecoveryCodes: 1}, "Recovery codes left: 1.", "None is left"},
		{mail.RecoveryCodeUsed, mail.Has{Password: true}, "None is left: make new ones", "there is nothing to do"},
		{mail.FactorsReset, mail.Has{Password: true}, "Whatever was set up of authenticator app", "no password"},
		{mail.FactorsReset, mail.Has{}, "no password now. Choose a new one by the link in the mail that comes beside this one.", "nothing to do"},
	} {
		m, err := w.FactorsChanged("a", user, there, tt.change, tt.has, now)
		if err != nil {
			t.Fatal(err)
		}
		if text := strings.Join(strings.Fields(m.Text), " "); !strings.Contains(text, tt.says) || strings.Contains(text, tt.lack) {
			t.Errorf("%s, %+v: want %q, not %q:\n%s", tt.change, tt.has, tt.says, tt.lack, m.Text)
		}
	}
}
