package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/alecthomas/kong"

	"kwai/internal/auth"
	"kwai/internal/password"
	"kwai/internal/store"
)

type userCmd struct {
	Create   userCreateCmd   `cmd:"" help:"Make an account and print its id."`
	Show     userShowCmd     `cmd:"" help:"Show an account."`
	List     userListCmd     `cmd:"" help:"List accounts."`
	Import   userImportCmd   `cmd:"" help:"Make the accounts of another system, with their hashes and ids."`
	Invite   userInviteCmd   `cmd:"" help:"Mail a user without a password a link to choose one, again."`
	Update   userUpdateCmd   `cmd:"" help:"Change a user's names, address or language."`
	Delete   userDeleteCmd   `cmd:"" help:"Delete an account and all that belongs to it."`
	Revoke   userRevokeCmd   `cmd:"" help:"Keep a user from logging in, and end all sessions at once."`
	Enact    userEnactCmd    `cmd:"" help:"Let a revoked user log in again."`
	Password userPasswordCmd `cmd:"" help:"Set a user's password, which ends all sessions."`
	Unlock   userUnlockCmd   `cmd:"" help:"Forget an account's failed logins and codes, so that all may try again."`
	Factors  userFactorsCmd  `cmd:"" help:"Show what a user logs in by beside the password."`

	ResetFactors userResetFactorsCmd `cmd:"" help:"Remove a user's authenticator app, recovery codes and passkeys, and end all sessions."`
}

type userCreateCmd struct {
	Email         string `arg:"" help:"The e-mail address: the user's name for logging in."`
	FirstName     string `placeholder:"NAME" help:"First name."`
	LastName      string `placeholder:"NAME" help:"Last name."`
	PasswordStdin bool   `xor:"secret" help:"Read the password from standard input."`
	HashStdin     bool   `xor:"secret" help:"Read a bcrypt or argon2id hash, made elsewhere, from standard input."`
	Unverified    bool   `help:"You don't vouch that the mailbox is the user's."`
}

func (cmd *userCreateCmd) Help() string {
	return "Without a password or a hash the user is mailed a link to choose a password; a running server sends it. " + languageHelp
}

// languageHelp is said of commands whose --language is the user's. The setting of that
// name is for servers: kong knows one flag of a name.
const languageHelp = "Here --language is the user's choice of a language for mails and pages, if it is given as a flag."

// languageFlag is --language if the command line has it; else nil.
func languageFlag(parsed *kong.Context, s *Settings) *string {
	for _, p := range parsed.Path {
		if p.Flag != nil && p.Flag.Name == "language" && !p.Resolved {
			return &s.Language
		}
	}
	return nil
}

func (cmd *userCreateCmd) Run(ctx context.Context, parsed *kong.Context, s *Settings, c console) error {
	n := auth.NewUser{Email: cmd.Email, FirstName: cmd.FirstName, LastName: cmd.LastName, Unverified: cmd.Unverified}
	if language := languageFlag(parsed, s); language != nil {
		n.Language = *language
	}
	var err error
	switch {
	case cmd.PasswordStdin:
		n.Password, err = readSecret(c.in)
	case cmd.HashStdin:
		n.Hash, err = readSecret(c.in)
	}
	if err != nil {
		return err
	}
	return withRules(ctx, s, c, func(rules *auth.Service) error {
		id, err := rules.CreateUser(ctx, n)
		if err == nil {
			fmt.Fprintln(c.out, id)
		}
		return err
	})
}

type userUpdateCmd struct {
	userArg
	FirstName *string `placeholder:"NAME" help:"First name."`
	LastName  *string `placeholder:"NAME" help:"Last name."`
	Email     *string `placeholder:"EMAIL" help:"E-mail address. Another one ends links that were mailed; the one before gets a notice."`
}

func (cmd *userUpdateCmd) Help() string {
	return "What isn't given stays as it is. Sessions go on. " + languageHelp + " --language= takes it back."
}

func (cmd *userUpdateCmd) Run(ctx context.Context, parsed *kong.Context, s *Settings, c console) error {
	u := auth.UserUpdate{Email: cmd.Email, FirstName: cmd.FirstName, LastName: cmd.LastName, Language: languageFlag(parsed, s)}
	if u == (auth.UserUpdate{}) {
		return &usageError{"user update", errors.New("give --first-name, --last-name, --email or --language")}
	}
	return cmd.change(ctx, s, c, func(rules *auth.Service) error { return rules.UpdateUser(ctx, cmd.User, u) }, func(ch auth.Change) string {
		if ch.Nothing {
			return "was so already: nothing has changed"
		}
		return "is updated"
	})
}

type userDeleteCmd struct{ userArg }

func (cmd *userDeleteCmd) Help() string {
	return "It asks nothing, and can't be taken back. The user gets a last mail; a running server sends it."
}

func (cmd *userDeleteCmd) Run(ctx context.Context, s *Settings, c console) error {
	return cmd.change(ctx, s, c, func(rules *auth.Service) error { return rules.DeleteUser(ctx, cmd.User) }, func(ch auth.Change) string {
		return fmt.Sprintf("is deleted; sessions ended: %d", ch.Sessions)
	})
}

type userInviteCmd struct {
	Email string `arg:"" help:"The e-mail address."`
}

func (cmd *userInviteCmd) Run(ctx context.Context, s *Settings, c console) error {
	return withRules(ctx, s, c, func(rules *auth.Service) error {
		user, err := rules.Invite(ctx, cmd.Email)
		if err == nil {
			fmt.Fprintf(c.out, "%s is mailed a link that works for %s; a running server sends it.\n", user.Email, formatDuration(s.InvitationLife))
		}
		return err
	})
}

// readSecret reads a line, or all there is without the last line break.
func readSecret(in io.Reader) (string, error) {
	const most = 4 << 10
	text, err := io.ReadAll(io.LimitReader(in, most+1))
	if err != nil {
		return "", fmt.Errorf("reading standard input: %w", err)
	}
	if len(text) > most {
		return "", &usageError{"standard input", errors.New("it is longer than 4 KiB")}
	}
	secret := strings.TrimSuffix(strings.TrimSuffix(string(text), "\n"), "\r")
	if secret == "" {
		return "", &usageError{"standard input", errors.New("it is empty")}
	}
	if strings.ContainsAny(secret, "\n\r") {
		return "", &usageError{"standard input", errors.New("it has more than one line")}
	}
	return secret, nil
}

// userView is an account as it is printed.
type userView struct {
	ID            string     `json:"id"`
	Email         string     `json:"email"`
	FirstName     string     `json:"first_name"`
	LastName      string     `json:"last_name"`
	Language      string     `json:"language"`      // chosen; "": none
	State         string     `json:"state"`         // active, invited or revoked
	PasswordCost  string     `json:"password_cost"` // "" where none is chosen
	PasswordSetAt *time.Time `json:"password_set_at"`
	EmailProvenAt *time.Time `json:"email_proven_at"` // or vouched for by an operator
	LastLoginAt   *time.Time `json:"last_login_at"`
	RevokedAt     *time.Time `json:"revoked_at"`
	CreatedAt     *time.Time `json:"created_at"`
}

func viewUser(u store.User) userView {
	v := userView{
		ID: u.ID, Email: u.Email, FirstName: u.FirstName, LastName: u.LastName, Language: u.Language, State: "active",
		PasswordSetAt: orNull(u.PasswordSetAt), EmailProvenAt: orNull(u.EmailProvenAt), LastLoginAt: orNull(u.LastLoginAt),
		RevokedAt: orNull(u.RevokedAt), CreatedAt: orNull(u.CreatedAt),
	}
	if u.PasswordHash == "" {
		v.State = "invited"
	} else if cost, err := password.Cost(u.PasswordHash); err == nil {
		v.PasswordCost = cost
	}
	if v.RevokedAt != nil {
		v.State = "revoked"
	}
	return v
}

type userShowCmd struct {
	User string `arg:"" help:"The e-mail address or the id."`
	JSON bool   `name:"json" help:"Print JSON."`
}

func (cmd *userShowCmd) Run(ctx context.Context, s *Settings, c console) error {
	return withRules(ctx, s, c, func(rules *auth.Service) error {
		user, err := rules.User(ctx, cmd.User)
		if err != nil {
			return err
		}
		throttling, err := rules.Throttling(ctx, user)
		if err != nil {
			return err
		}
		ofCodes, err := rules.CodeThrottling(ctx, user)
		if err != nil {
			return err
		}
		factors, err := rules.Factors(ctx, user.ID)
		if err != nil {
			return err
		}
		v, f := viewUser(user), viewFactors(factors)
		if cmd.JSON {
			return writeJSON(c.out, struct {
				userView
				Factors        factorsView    `json:"factors"`
				Throttling     throttlingView `json:"throttling"`
				CodeThrottling throttlingView `json:"code_throttling"`
			}{v, f, viewThrottling(throttling), viewThrottling(ofCodes)})
		}
		return writePairs(c, slices.Concat([][2]string{
			{"id", v.ID}, {"email", v.Email}, {"first name", v.FirstName}, {"last name", v.LastName}, {"language", v.Language}, {"state", v.State},
			{"password", v.PasswordCost}, {"password set", formatTime(v.PasswordSetAt)}, {"last login", formatTime(v.LastLoginAt)},
			{"email proven", formatTime(v.EmailProvenAt)}, {"revoked", formatTime(v.RevokedAt)}, {"created", formatTime(v.CreatedAt)},
		}, f.rows(), [][2]string{
			{"failed logins", failedLogins(throttling, "a reset or kwai user unlock")}, {"known networks", knownNetworks(throttling)},
			{"failed codes", failedLogins(ofCodes, "kwai user unlock or a new password at /account/password")}, {"known networks of codes", knownNetworks(ofCodes)},
		}))
	})
}

// writePairs prints names and what belongs to them.
func writePairs(c console, pairs [][2]string) error {
	t := newTable(c.out, 0)
	for _, line := range pairs {
		t.row(line[0], line[1])
	}
	return t.Flush()
}

// throttlingView is what throttling holds against an account, as it is printed.
type throttlingView struct {
	Failures      int64      `json:"failures"`   // in a row, from networks that the account doesn't know
	WaitUntil     *time.Time `json:"wait_until"` // null: they needn't wait, or not for a time
	Locked        bool       `json:"locked"`     // they wait for an unlock, a login from a known network or, of passwords, a reset
	KnownNetworks int        `json:"known_networks"`
	HeldNetworks  int        `json:"held_networks"` // known ones that wait for failures of their own
}

func viewThrottling(t auth.Throttling) throttlingView {
	return throttlingView{t.Failures, orNull(t.Until), t.Locked, t.Networks, t.Held}
}

func failedLogins(t auth.Throttling, end string) string {
	switch text := fmt.Sprintf("%d in a row from unknown networks", t.Failures); {
	case t.Locked:
		return text + ", locked until " + end
	case !t.Until.IsZero():
		return text + ", which wait until " + formatTime(&t.Until)
	default:
		return text
	}
}

func knownNetworks(t auth.Throttling) string {
	if t.Held > 0 {
		return fmt.Sprintf("%d, of which %d must wait for failures of their own", t.Networks, t.Held)
	}
	return fmt.Sprint(t.Networks)
}

type userListCmd struct {
	Locked  bool   `help:"Only accounts that failed logins have locked."`
	Revoked bool   `xor:"state" help:"Only revoked users."`
	Invited bool   `xor:"state" help:"Only users who have not chosen a password yet."`
	Search  string `placeholder:"TEXT" help:"Only users whose address, name or id has this in it."`
	JSON    bool   `name:"json" help:"Print a JSON array."`
}

func (cmd *userListCmd) Run(ctx context.Context, s *Settings, c console) error {
	return withRules(ctx, s, c, func(rules *auth.Service) error {
		users := rules.FindUsers(ctx, auth.UserFilter{Locked: cmd.Locked, Revoked: cmd.Revoked, Invited: cmd.Invited, Search: cmd.Search})
		if cmd.JSON {
			return writeArray(c.out, views(users, viewUser))
		}
		t := newTable(c.out, 0, "EMAIL", "NAME", "STATE", "LAST LOGIN", "ID")
		return writeRows(t, views(users, viewUser), func(v userView) {
			t.row(v.Email, strings.TrimSpace(v.FirstName+" "+v.LastName), v.State, formatTime(v.LastLoginAt), v.ID)
		})
	})
}

// userArg is the argument of the commands that change an account.
type userArg struct {
	User string `arg:"" help:"The e-mail address or the id."`
}

// change changes the account, and prints on standard error what became of it:
// standard output stays empty, for scripts.
func (a userArg) change(ctx context.Context, s *Settings, c console, do func(*auth.Service) error, done func(auth.Change) string) error {
	return withRules(ctx, s, c, func(rules *auth.Service) error {
		rules.Changed = func(ch auth.Change) { fmt.Fprintf(c.err, "%s (%s) %s\n", ch.Email, ch.ID, done(ch)) }
		return do(rules)
	})
}

type userRevokeCmd struct{ userArg }

func (cmd *userRevokeCmd) Run(ctx context.Context, s *Settings, c console) error {
	return cmd.change(ctx, s, c, func(rules *auth.Service) error { return rules.Revoke(ctx, cmd.User) }, func(ch auth.Change) string {
		if ch.Nothing {
			return "was revoked already: nothing has changed"
		}
		return fmt.Sprintf("is revoked; sessions ended: %d", ch.Sessions)
	})
}

type userEnactCmd struct{ userArg }

func (cmd *userEnactCmd) Run(ctx context.Context, s *Settings, c console) error {
	return cmd.change(ctx, s, c, func(rules *auth.Service) error { return rules.Reinstate(ctx, cmd.User) }, func(ch auth.Change) string {
		if ch.Nothing {
			return "was not revoked: nothing has changed"
		}
		return "can log in again"
	})
}

type userPasswordCmd struct {
	userArg
	PasswordStdin bool `required:"" help:"Read the password from standard input; there is no other way to give it."`
}

func (cmd *userPasswordCmd) Run(ctx context.Context, s *Settings, c console) error {
	pw, err := readSecret(c.in)
	if err != nil {
		return err
	}
	return cmd.change(ctx, s, c, func(rules *auth.Service) error { return rules.SetPassword(ctx, cmd.User, pw) }, func(ch auth.Change) string {
		return fmt.Sprintf("has a new password; sessions ended: %d", ch.Sessions)
	})
}

type userUnlockCmd struct{ userArg }

func (cmd *userUnlockCmd) Run(ctx context.Context, s *Settings, c console) error {
	return cmd.change(ctx, s, c, func(rules *auth.Service) error { return rules.Unlock(ctx, cmd.User) }, func(ch auth.Change) string {
		return fmt.Sprintf("may try again; failed logins and codes forgotten: %d", ch.Failures)
	})
}
