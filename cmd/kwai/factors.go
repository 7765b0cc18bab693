package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"kwai/internal/auth"
)

type userFactorsCmd struct {
	User string `arg:"" help:"The e-mail address or the id."`
	JSON bool   `name:"json" help:"Print JSON."`
}

func (cmd *userFactorsCmd) Run(ctx context.Context, s *Settings, c console) error {
	return withRules(ctx, s, c, func(rules *auth.Service) error {
		user, err := rules.User(ctx, cmd.User)
		if err != nil {
			return err
		}
		factors, err := rules.Factors(ctx, user.ID)
		if err != nil {
			return err
		}
		v := viewFactors(factors)
		if cmd.JSON {
			return writeJSON(c.out, v)
		}
		return writePairs(c, v.rows())
	})
}

// factorsView is what a user can show beside a password, or instead of it, as it is
// printed. It holds nothing secret.
type factorsView struct {
	TwoSteps      twoStepsView       `json:"two_steps"`
	Authenticator *authenticatorView `json:"authenticator"`  // null: there is none
	RecoveryCodes int64              `json:"recovery_codes"` // that are left
	Passkeys      []passkeyView      `json:"passkeys"`
}

// twoStepsView says who wants two steps at a login; nobody: one is enough.
type twoStepsView struct {
	Chosen   bool `json:"chosen"`   // the user
	Required bool `json:"required"` // a group
}

type authenticatorView struct {
	CreatedAt *time.Time `json:"created_at"`
	UsedAt    *time.Time `json:"used_at"`
}

type passkeyView struct {
	ID        string     `json:"id"`
	Name      string     `json:"name"`
	RPID      string     `json:"rp_id"` // the host that it is for
	CreatedAt *time.Time `json:"created_at"`
	UsedAt    *time.Time `json:"used_at"`
}

func viewFactors(f auth.Factors) factorsView {
	v := factorsView{TwoSteps: twoStepsView{f.TwoSteps, f.Group}, RecoveryCodes: f.RecoveryCodes, Passkeys: []passkeyView{}}
	if f.Authenticator {
		v.Authenticator = &authenticatorView{orNull(f.AuthenticatorAt), orNull(f.AuthenticatorUsedAt)}
	}
	for _, p := range f.Passkeys {
		v.Passkeys = append(v.Passkeys, passkeyView{p.ID, p.Name, p.RPID, orNull(p.CreatedAt), orNull(p.UsedAt)})
	}
	return v
}

// rows are for a person.
func (v factorsView) rows() [][2]string {
	steps, authenticator := []string{}, "none"
	if v.TwoSteps.Chosen {
		steps = append(steps, "chosen by the user")
	}
	if v.TwoSteps.Required {
		steps = append(steps, "required by a group")
	}
	if len(steps) == 0 {
		steps = []string{"off"}
	}
	if a := v.Authenticator; a != nil {
		authenticator = fmt.Sprintf("since %s, last used %s", formatTime(a.CreatedAt), formatTime(a.UsedAt))
	}
	rows := [][2]string{{"two steps", strings.Join(steps, ", ")}, {"authenticator app", authenticator}, {"recovery codes", fmt.Sprint(v.RecoveryCodes)}}
	for _, p := range v.Passkeys {
		rows = append(rows, [2]string{"passkey", fmt.Sprintf("%s, for %s, since %s, last used %s", printable(p.Name), p.RPID, formatTime(p.CreatedAt), formatTime(p.UsedAt))})
	}
	return rows
}

type userResetFactorsCmd struct {
	userArg
	PasswordStdin bool `help:"Read a new password from standard input."`
}

func (cmd *userResetFactorsCmd) Help() string {
	return "For a user who has lost them. Two steps are off then; where a group requires them, the user sets an authenticator app up at the next login. " +
		"Whoever knows the password could do that, too. So without --password-stdin the password is good no longer, and the user is mailed a link to choose one; a running server sends it."
}

func (cmd *userResetFactorsCmd) Run(ctx context.Context, s *Settings, c console) error {
	password := ""
	if cmd.PasswordStdin {
		var err error
		if password, err = readSecret(c.in); err != nil {
			return err
		}
	}
	return cmd.change(ctx, s, c, func(rules *auth.Service) error { return rules.ResetFactors(ctx, cmd.User, password) }, func(ch auth.Change) string {
		next := fmt.Sprintf("is mailed a link to choose a password, for the old one is good no longer; the link works for %s, and a running server sends it", formatDuration(s.RecoveryLife))
		switch {
		case password != "":
			next = "has a new password"
		case !ch.RevokedAt.IsZero():
			next = "has no password now, and gets no mail while revoked"
		}
		return fmt.Sprintf("has no factors now, and %s; sessions ended: %d", next, ch.Sessions)
	})
}
