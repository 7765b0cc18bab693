package main

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"text/tabwriter"
	"time"

	"kwai/internal/auth"
)

type mailCmd struct {
	List   mailListCmd   `cmd:"" help:"List the mail that waits, and what could not be delivered."`
	Resend mailResendCmd `cmd:"" help:"Send undelivered mail again, a recovery with a new link."`
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
		all := cmd.views(rules.UndeliveredMail(ctx))
		if cmd.JSON {
			return writeArray(c.out, all)
		}
		t := tabwriter.NewWriter(c.out, 0, 0, 2, ' ', 0)
		fmt.Fprintln(t, "ID\tTYPE\tEMAIL\tSTATE\tCREATED\tATTEMPTS\tLAST ERROR")
		for v, err := range all {
			if err != nil {
				return err
			}
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%d\t%s\n", v.ID, v.Type, v.Email, v.State, when(v.CreatedAt), v.Attempts, v.LastError)
		}
		return t.Flush()
	})
}

func (cmd *mailListCmd) views(all iter.Seq2[auth.Undelivered, error]) iter.Seq2[mailView, error] {
	return func(yield func(mailView, error) bool) {
		for d, err := range all {
			if err == nil && cmd.Dead && d.DeadAt.IsZero() {
				continue
			}
			if !yield(viewMail(d), err) {
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
		defer func() { sayCount(c, "mails that are sent again", sent, err) }()
		if cmd.ID != "" {
			err := rules.ResendMail(ctx, cmd.ID)
			if err == nil {
				sent++
			}
			return err
		}
		for d, err := range rules.UndeliveredMail(ctx) {
			if err != nil {
				return err
			}
			if d.DeadAt.IsZero() {
				continue
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
