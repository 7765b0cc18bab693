package main

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net/netip"
	"net/url"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/uuid"

	"kwai/internal/auth"
	"kwai/internal/i18n"
	"kwai/internal/loopback"
	"kwai/internal/mail"
)

type mailCmd struct {
	List   mailListCmd   `cmd:"" help:"List the mail that waits, and what could not be delivered."`
	Resend mailResendCmd `cmd:"" help:"Send undelivered mail again, a recovery with a new link."`
	Drop   mailDropCmd   `cmd:"" help:"Give undelivered mail up: it is neither sent nor kept."`
	Test   mailTestCmd   `cmd:"" help:"Send a mail now, and say what the mail server answered."`
}

// mailView is an undelivered mail as it is printed.
type mailView struct {
	ID        string     `json:"id"`
	Type      string     `json:"type"`
	Email     string     `json:"email"`
	State     string     `json:"state"` // waiting or dead
	CreatedAt *time.Time `json:"created_at"`
	DueAt     *time.Time `json:"due_at"` // null where it is dead
	Attempts  int        `json:"attempts"`
	LastError string     `json:"last_error"`
}

func viewMail(d auth.Undelivered) mailView {
	v := mailView{
		ID: d.ID, Type: d.Type, Email: d.Email, State: "waiting", CreatedAt: orNull(d.CreatedAt),
		DueAt: orNull(d.DueAt), Attempts: d.Attempts, LastError: d.LastError,
	}
	if !d.DeadAt.IsZero() {
		v.State, v.DueAt = "dead", nil
	}
	return v
}

type mailListCmd struct {
	Dead bool `help:"Only what isn't tried any more."`
	JSON bool `name:"json" help:"Print a JSON array."`
}

func (cmd *mailListCmd) Run(ctx context.Context, s *Settings, c console) error {
	return withRules(ctx, s, c, func(rules *auth.Service) error {
		found := rules.UndeliveredMail(ctx)
		if cmd.Dead {
			found = onlyDead(found)
		}
		all := views(found, viewMail)
		if cmd.JSON {
			return writeArray(c.out, all)
		}
		t := newTable(c.out, 0, "ID", "TYPE", "EMAIL", "STATE", "CREATED", "ATTEMPTS", "LAST ERROR")
		return writeRows(t, all, func(v mailView) {
			t.row(v.ID, v.Type, v.Email, v.State, formatTime(v.CreatedAt), v.Attempts, v.LastError)
		})
	})
}

// onlyDead are those that aren't tried any more.
func onlyDead(all iter.Seq2[auth.Undelivered, error]) iter.Seq2[auth.Undelivered, error] {
	return func(yield func(auth.Undelivered, error) bool) {
		for d, err := range all {
			if (err != nil || !d.DeadAt.IsZero()) && !yield(d, err) {
				return
			}
		}
	}
}

type mailResendCmd struct {
	ID   string `arg:"" optional:"" help:"The mail's id, as list prints it."`
	Dead bool   `help:"All that isn't tried any more."`
}

func (cmd *mailResendCmd) Run(ctx context.Context, s *Settings, c console) error {
	if (cmd.ID == "") != cmd.Dead {
		return &usageError{"mail resend", errors.New("give either an id or --dead")}
	}
	return withRules(ctx, s, c, func(rules *auth.Service) (err error) {
		sent := int64(0)
		defer func() { printCount(c, "mails that are sent again", sent, err) }()
		if cmd.ID != "" {
			err := rules.ResendMail(ctx, cmd.ID)
			if err == nil {
				sent++
			}
			return err
		}
		for d, err := range onlyDead(rules.UndeliveredMail(ctx)) {
			if err != nil {
				return err
			}
			// Somebody else may have just sent it.
			if err := rules.ResendMail(ctx, d.ID); err == nil {
				sent++
			} else if !errors.Is(err, auth.ErrNoMail) {
				return err
			}
		}
		return nil
	})
}

type mailDropCmd struct {
	IDs []string `arg:"" name:"id" help:"The mails' ids, as list prints them."`
}

func (cmd *mailDropCmd) Run(ctx context.Context, s *Settings, c console) error {
	return withRules(ctx, s, c, func(rules *auth.Service) error {
		var unknown []string
		for _, id := range cmd.IDs {
			switch err := rules.DropMail(ctx, id); {
			case errors.Is(err, auth.ErrNoMail):
				unknown = append(unknown, id)
			case err != nil:
				return err
			}
		}
		if n := len(cmd.IDs) - len(unknown); n > 0 {
			fmt.Fprintf(c.out, "%d dropped\n", n)
		}
		if len(unknown) > 0 {
			return fmt.Errorf("%w (%s)", auth.ErrNoMail, strings.Join(unknown, ", "))
		}
		return nil
	})
}

type mailTestCmd struct {
	Address string `arg:"" help:"Whom to send it to."`
}

func (cmd *mailTestCmd) Help() string {
	return "It takes the server's settings (--smtp, --mail-from, --public-url, --service-name, --support-url, --language), and needs neither the server nor the database."
}

func (cmd *mailTestCmd) Run(ctx context.Context, s *Settings, c console) error {
	if s.publicURL == nil && !onLoopback(s.Listen) {
		return &usageError{"--public-url", errors.New("it is required: the sender and the links are made of it")}
	}
	if s.publicURL == nil { // as serve would make it
		s.publicURL = &url.URL{Scheme: s.scheme(), Host: s.Listen}
	}
	sender, err := s.mailSender()
	if err != nil {
		return err
	}
	m, err := s.mailWriter().Test(uuid.NewString(), mail.Recipient{Email: cmd.Address}, time.Now())
	if err != nil {
		return err
	}
	switch sender := sender.(type) {
	case *mail.SMTP:
		answer, err := sender.Try(ctx, m)
		if err != nil {
			return err
		}
		fmt.Fprintf(c.out, "%s took the mail to %s: %s\n", sender, m.To, oneLine(errors.New(answer)))
	case *mail.Files:
		if err := errors.Join(sender.MakeFolder(), sender.Send(ctx, m)); err != nil {
			return err
		}
		fmt.Fprintf(c.out, "No mail server is set (--smtp): the mail was written to %s.\n", sender.Folder())
	}
	return nil
}

// mailWriter composes mails as the settings say.
func (s *Settings) mailWriter() *mail.Writer {
	return &mail.Writer{
		PublicURL: s.publicURL.String(), SiteURL: s.SiteURL, SupportURL: s.SupportURL, Service: s.ServiceName, Language: i18n.Lookup(s.Language),
	}
}

// mailSender is what takes mails away.
func (s *Settings) mailSender() (mail.Sender, error) {
	o := mail.Options{From: s.MailFrom, Domain: strings.TrimSuffix(s.publicURL.Hostname(), ".")}
	if o.From == "" {
		o.From = "noreply@" + mailDomain(s.publicURL.Hostname())
		o.Domain = ""
	}
	if s.SMTP != "" {
		smtp, err := mail.NewSMTP(s.SMTP, o)
		if err != nil {
			return nil, &usageError{"--smtp, --mail-from", err}
		}
		return smtp, nil
	}
	files, err := mail.NewFiles(filepath.Join(s.Data, "mail"), o)
	if err != nil {
		return nil, &usageError{"--mail-from", err}
	}
	return files, nil
}

// noDomain stands for a domain where the public URL has none.
const noDomain = "localhost.localdomain"

// mailDomain is the domain of mails where none is set. An address is none: mail
// servers hardly take a sender at one.
func mailDomain(host string) string {
	host = strings.TrimSuffix(host, ".")
	if _, err := netip.ParseAddr(host); err == nil || loopback.Is(host) {
		return noDomain
	}
	return host
}
