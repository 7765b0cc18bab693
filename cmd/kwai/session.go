package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"kwai/internal/auth"
	"kwai/internal/store"
)

type sessionCmd struct {
	List sessionListCmd `cmd:"" help:"List a user's live sessions, the latest login first, 1000 at most."`
	End  sessionEndCmd  `cmd:"" help:"End sessions at once, at every server."`
}

// sessionView is a session as it is printed.
type sessionView struct {
	ID         string     `json:"id"`
	CreatedAt  *time.Time `json:"created_at"`
	LastUsedAt *time.Time `json:"last_used_at"` // the login or the latest renewal
	Address    string     `json:"address"`      // of the login; "" where the audit log doesn't go back that far
	UserAgent  string     `json:"user_agent"`
}

func viewSession(o store.OpenedSession) sessionView {
	return sessionView{o.ID, orNull(o.CreatedAt), orNull(o.RenewedAt), o.Address, printable(o.UserAgent)}
}

type sessionListCmd struct {
	User string `arg:"" help:"The e-mail address or the id."`
	JSON bool   `name:"json" help:"Print a JSON array."`
}

func (cmd *sessionListCmd) Run(ctx context.Context, s *Settings, c console) error {
	return withRules(ctx, s, c, func(rules *auth.Service) error {
		found, err := rules.UserSessions(ctx, cmd.User)
		if err != nil {
			return err
		}
		all := func(yield func(sessionView, error) bool) {
			for _, o := range found {
				if !yield(viewSession(o), nil) {
					return
				}
			}
		}
		if cmd.JSON {
			return writeArray(c.out, all)
		}
		t := newTable(c.out, 0, "ID", "CREATED", "LAST USED", "ADDRESS", "USER AGENT")
		return writeRows(t, all, func(v sessionView) {
			t.row(v.ID, formatTime(v.CreatedAt), formatTime(v.LastUsedAt), cmp.Or(v.Address, "-"), cmp.Or(truncate(v.UserAgent), "-"))
		})
	})
}

type sessionEndCmd struct {
	IDs  []string `arg:"" optional:"" name:"id" help:"The sessions' ids, as list prints them."`
	User string   `placeholder:"EMAIL|ID" help:"All of this user's."`
}

func (cmd *sessionEndCmd) Help() string {
	return "The user may log in again; kwai user revoke prevents that."
}

func (cmd *sessionEndCmd) Run(ctx context.Context, s *Settings, c console) error {
	if (len(cmd.IDs) == 0) == (cmd.User == "") {
		return &usageError{"session end", errors.New("give either ids or --user")}
	}
	return withRules(ctx, s, c, func(rules *auth.Service) (err error) {
		ended := int64(0)
		rules.Changed = func(ch auth.Change) { ended += ch.Sessions }
		defer func() { printCount(c, "sessions ended", ended, err) }()
		if cmd.User != "" {
			return rules.EndUserSessions(ctx, cmd.User)
		}
		// Each that can be ended is, whatever is wrong with another.
		var failed []error
		for _, id := range cmd.IDs {
			if err := rules.EndUserSession(ctx, id); err != nil {
				failed = append(failed, fmt.Errorf("%s: %w", id, err))
			}
		}
		return errors.Join(failed...)
	})
}
