package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"kwai/internal/auth"
	"kwai/internal/store"
)

type appCmd struct {
	Create appCreateCmd `cmd:"" help:"Make an app that lets people in by kwai."`
	List   appListCmd   `cmd:"" help:"List the apps."`
	Show   appShowCmd   `cmd:"" help:"Show an app."`
	Update appUpdateCmd `cmd:"" help:"Change an app."`
	Secret appSecretCmd `cmd:"" help:"Give an app another secret; the one before stays good beside it."`
	Delete appDeleteCmd `cmd:"" help:"Delete an app, and end all sessions there."`

	Logouts appLogoutsCmd `cmd:"" help:"List the logouts that apps have not heard of yet."`
	Resend  appResendCmd  `cmd:"" help:"Tell an app of a logout anew."`
}

type appCreateCmd struct {
	Name        string   `arg:"" help:"What users are shown."`
	RedirectURI []string `name:"redirect-uri" required:"" placeholder:"URI" sep:"none" help:"Where people may be sent back to, letter by letter. Several times for several."`
	ID          string   `name:"id" placeholder:"ID" help:"Its client_id; else a random one."`
	Public      bool     `help:"It can keep no secret: a program in a browser or on a device."`
	SecretStdin bool     `help:"Read its secret from standard input; else it gets a random one."`
	appFlags
}

// appFlags are what an app may have.
type appFlags struct {
	HomeURL              *string  `name:"home-url" placeholder:"URL" help:"Where its tile on the account page leads; without it there is none."`
	PostLogoutURI        []string `name:"post-logout-uri" placeholder:"URI" sep:"none" help:"Where people may be sent after a logout that the app asks for."`
	BackchannelLogoutURI *string  `name:"backchannel-logout-uri" placeholder:"URI" help:"Where it hears of logouts."`
	Groups               *string  `placeholder:"GROUP,…" help:"Only members of these groups may use it."`
	Consent              *bool    `negatable:"" help:"Ask each user once what it may see."`
	WithoutPKCE          *bool    `name:"without-pkce" negatable:"" help:"It can't use PKCE. Better another program."`
	Offline              *bool    `negatable:"" help:"It may ask for offline_access: to go on after the browser session has expired."`
}

func (f *appFlags) apply(a *store.App) {
	for _, text := range []struct {
		to   *string
		from *string
	}{{&a.HomeURL, f.HomeURL}, {&a.BackchannelURL, f.BackchannelLogoutURI}} {
		if text.from != nil {
			*text.to = *text.from
		}
	}
	if f.PostLogoutURI != nil {
		a.PostLogoutURIs = f.PostLogoutURI
	}
	if f.Groups != nil {
		a.Groups = strings.FieldsFunc(*f.Groups, func(r rune) bool { return r == ',' })
	}
	for _, flag := range []struct {
		to   *bool
		from *bool
	}{{&a.Consent, f.Consent}, {&a.WithoutPKCE, f.WithoutPKCE}, {&a.Offline, f.Offline}} {
		if flag.from != nil {
			*flag.to = *flag.from
		}
	}
}

func (*appCreateCmd) Help() string {
	return "It prints client_id and client_secret as JSON. The secret is shown this once: only its hash is kept."
}

func (cmd *appCreateCmd) Run(ctx context.Context, s *Settings, c console) error {
	a := store.App{ID: cmd.ID, Name: cmd.Name, RedirectURIs: cmd.RedirectURI}
	cmd.apply(&a)
	secret := ""
	if cmd.SecretStdin {
		var err error
		if secret, err = readSecret(c.in); err != nil {
			return err
		}
	}
	return withRules(ctx, s, c, func(rules *auth.Service) error {
		made, secret, err := rules.CreateApp(ctx, a, cmd.Public, secret)
		if err != nil {
			return err
		}
		return writeJSON(c.out, credentialsView{made.ID, secret})
	})
}

type credentialsView struct {
	ID     string `json:"client_id"`
	Secret string `json:"client_secret,omitempty"`
}

// appView is an app as it is printed.
type appView struct {
	ID             string     `json:"client_id"`
	Name           string     `json:"name"`
	Public         bool       `json:"public"`
	RedirectURIs   []string   `json:"redirect_uris"`
	PostLogoutURIs []string   `json:"post_logout_uris"`
	HomeURL        string     `json:"home_url"`
	BackchannelURL string     `json:"backchannel_logout_uri"`
	Groups         []string   `json:"groups"`
	Consent        bool       `json:"consent"`
	WithoutPKCE    bool       `json:"without_pkce"`
	Offline        bool       `json:"offline"`
	Secrets        int        `json:"secrets"` // that are good
	CreatedAt      *time.Time `json:"created_at"`
}

func viewApp(a store.App) appView {
	secrets := 0
	for _, hash := range [][]byte{a.SecretHash, a.SecretBefore} {
		if len(hash) > 0 {
			secrets++
		}
	}
	return appView{
		a.ID, a.Name, a.Public(), append([]string{}, a.RedirectURIs...), append([]string{}, a.PostLogoutURIs...), a.HomeURL, a.BackchannelURL,
		append([]string{}, a.Groups...), a.Consent, a.WithoutPKCE, a.Offline, secrets, orNull(a.CreatedAt),
	}
}

type appListCmd struct {
	JSON bool `name:"json" help:"Print a JSON array."`
}

func (cmd *appListCmd) Run(ctx context.Context, s *Settings, c console) error {
	return withRules(ctx, s, c, func(rules *auth.Service) error {
		all, err := rules.Store.Read(ctx).Apps()
		if err != nil {
			return err
		}
		views := make([]appView, len(all))
		for i, a := range all {
			views[i] = viewApp(a)
		}
		if cmd.JSON {
			return writeJSON(c.out, views)
		}
		t := newTable(c.out, 0, "CLIENT_ID", "NAME", "KIND", "GROUPS", "REDIRECT URIS")
		for _, v := range views {
			kind := "confidential"
			if v.Public {
				kind = "public"
			}
			t.row(v.ID, v.Name, kind, strings.Join(v.Groups, ","), strings.Join(v.RedirectURIs, " "))
		}
		return t.Flush()
	})
}

type appArg struct {
	ID string `arg:"" name:"client_id" help:"Its client_id."`
}

type appShowCmd struct{ appArg }

func (*appShowCmd) Help() string { return "It prints JSON, without the secret: nobody has that." }

func (cmd *appShowCmd) Run(ctx context.Context, s *Settings, c console) error {
	return withRules(ctx, s, c, func(rules *auth.Service) error {
		a, err := rules.App(ctx, cmd.ID)
		if err != nil {
			return err
		}
		return writeJSON(c.out, viewApp(a))
	})
}

type appUpdateCmd struct {
	appArg
	Name        *string  `placeholder:"NAME" help:"What users are shown."`
	RedirectURI []string `name:"redirect-uri" placeholder:"URI" sep:"none" help:"All of them: they replace those from before."`
	appFlags
}

func (*appUpdateCmd) Help() string {
	return "What isn't given stays as it is; an empty value takes it back. Sessions go on."
}

func (cmd *appUpdateCmd) Run(ctx context.Context, s *Settings, c console) error {
	return withRules(ctx, s, c, func(rules *auth.Service) error {
		a, err := rules.UpdateApp(ctx, cmd.ID, func(a *store.App) {
			if cmd.Name != nil {
				a.Name = *cmd.Name
			}
			if cmd.RedirectURI != nil {
				a.RedirectURIs = cmd.RedirectURI
			}
			cmd.apply(a)
			a.PostLogoutURIs = slices.DeleteFunc(slices.Clone(a.PostLogoutURIs), func(uri string) bool { return uri == "" })
		})
		if err != nil {
			return err
		}
		fmt.Fprintf(c.err, "%s (%s) is updated\n", a.Name, a.ID)
		return nil
	})
}

type appSecretCmd struct {
	appArg
	SecretStdin bool `help:"Read it from standard input; else it is a random one."`
	Alone       bool `help:"Drop the one before at once."`
}

func (cmd *appSecretCmd) Run(ctx context.Context, s *Settings, c console) error {
	secret := ""
	if cmd.SecretStdin {
		var err error
		if secret, err = readSecret(c.in); err != nil {
			return err
		}
	}
	return withRules(ctx, s, c, func(rules *auth.Service) error {
		secret, err := rules.NewAppSecret(ctx, cmd.ID, secret, cmd.Alone)
		if err != nil {
			return err
		}
		return writeJSON(c.out, credentialsView{cmd.ID, secret})
	})
}

type appDeleteCmd struct{ appArg }

func (*appDeleteCmd) Help() string { return "It asks nothing, and can't be taken back." }

func (cmd *appDeleteCmd) Run(ctx context.Context, s *Settings, c console) error {
	return withRules(ctx, s, c, func(rules *auth.Service) error {
		if err := rules.DeleteApp(ctx, cmd.ID); err != nil {
			return err
		}
		fmt.Fprintf(c.err, "%s is deleted\n", cmd.ID)
		return nil
	})
}

type appLogoutsCmd struct {
	JSON bool `name:"json" help:"Print a JSON array."`
}

// logoutView is a logout as it is printed.
type logoutView struct {
	ID        string     `json:"id"`
	App       string     `json:"client_id"`
	User      string     `json:"user"`
	State     string     `json:"state"` // waiting or dead
	CreatedAt *time.Time `json:"created_at"`
	DueAt     *time.Time `json:"due_at"`
	Attempts  int64      `json:"attempts"`
	LastError string     `json:"last_error"`
}

func (cmd *appLogoutsCmd) Run(ctx context.Context, s *Settings, c console) error {
	return withRules(ctx, s, c, func(rules *auth.Service) error {
		views := []logoutView{}
		for l, err := range rules.Logouts(ctx) {
			if err != nil {
				return err
			}
			v := logoutView{l.ID, l.AppID, l.UserID, "waiting", orNull(l.CreatedAt), orNull(l.DueAt), l.Attempts, l.LastError}
			if !l.DeadAt.IsZero() {
				v.State, v.DueAt = "dead", nil
			}
			views = append(views, v)
		}
		if cmd.JSON {
			return writeJSON(c.out, views)
		}
		t := newTable(c.out, 0, "ID", "CLIENT_ID", "USER", "STATE", "MADE", "ATTEMPTS", "LAST ERROR")
		for _, v := range views {
			t.row(v.ID, v.App, v.User, v.State, formatTime(v.CreatedAt), fmt.Sprint(v.Attempts), v.LastError)
		}
		return t.Flush()
	})
}

type appResendCmd struct {
	ID string `arg:"" help:"The logout's id, as kwai app logouts shows it."`
}

func (cmd *appResendCmd) Run(ctx context.Context, s *Settings, c console) error {
	return withRules(ctx, s, c, func(rules *auth.Service) error { return rules.ResendLogout(ctx, cmd.ID) })
}

type groupCmd struct {
	Create groupCreateCmd `cmd:"" help:"Make a group."`
	List   groupListCmd   `cmd:"" help:"List the groups."`
	Show   groupShowCmd   `cmd:"" help:"List a group's members."`
	Update groupUpdateCmd `cmd:"" help:"Change what a group asks of its members."`
	Add    groupAddCmd    `cmd:"" help:"Add users to a group."`
	Remove groupRemoveCmd `cmd:"" help:"Take users out of a group."`
	Delete groupDeleteCmd `cmd:"" help:"Delete a group that no app asks for."`
}

type groupArg struct {
	Group string `arg:"" help:"Its name."`
}

type groupCreateCmd struct {
	groupArg
	RequireTwoSteps bool `help:"Its members log in by two steps."`
}

func (*groupCreateCmd) Help() string { return twoStepsHelp }

// twoStepsHelp is said of the commands that have a group require two steps.
const twoStepsHelp = "Who is in a group that requires two steps shows the password and a code of an authenticator app, and sets one up at the next login if there is none. " +
	"A passkey is enough alone. Sessions go on."

func (cmd *groupCreateCmd) Run(ctx context.Context, s *Settings, c console) error {
	return withRules(ctx, s, c, func(rules *auth.Service) error {
		err := rules.CreateGroup(ctx, cmd.Group)
		if err == nil && cmd.RequireTwoSteps { // nobody is in it yet
			err = rules.RequireTwoSteps(ctx, cmd.Group, true)
		}
		return err
	})
}

type groupUpdateCmd struct {
	groupArg
	RequireTwoSteps *bool `required:"" negatable:"" help:"Its members log in by two steps."`
}

func (*groupUpdateCmd) Help() string { return twoStepsHelp }

func (cmd *groupUpdateCmd) Run(ctx context.Context, s *Settings, c console) error {
	return withRules(ctx, s, c, func(rules *auth.Service) error {
		return rules.RequireTwoSteps(ctx, cmd.Group, *cmd.RequireTwoSteps)
	})
}

type groupDeleteCmd struct{ groupArg }

func (cmd *groupDeleteCmd) Run(ctx context.Context, s *Settings, c console) error {
	return withRules(ctx, s, c, func(rules *auth.Service) error { return rules.DeleteGroup(ctx, cmd.Group) })
}

type groupListCmd struct {
	JSON bool `name:"json" help:"Print a JSON array."`
}

type groupView struct {
	Name      string     `json:"name"`
	Members   int64      `json:"members"`
	TwoSteps  bool       `json:"two_steps"` // its members log in by two steps
	CreatedAt *time.Time `json:"created_at"`
}

func (cmd *groupListCmd) Run(ctx context.Context, s *Settings, c console) error {
	return withRules(ctx, s, c, func(rules *auth.Service) error {
		all, err := rules.Store.Read(ctx).Groups()
		if err != nil {
			return err
		}
		views := make([]groupView, len(all))
		for i, g := range all {
			views[i] = groupView{g.Name, g.Members, g.TwoSteps, orNull(g.CreatedAt)}
		}
		if cmd.JSON {
			return writeJSON(c.out, views)
		}
		t := newTable(c.out, 0, "NAME", "MEMBERS", "TWO STEPS", "MADE")
		for _, v := range views {
			steps := "-"
			if v.TwoSteps {
				steps = "required"
			}
			t.row(v.Name, fmt.Sprint(v.Members), steps, formatTime(v.CreatedAt))
		}
		return t.Flush()
	})
}

type groupShowCmd struct {
	groupArg
	JSON bool `name:"json" help:"Print a JSON array."`
}

// memberView is a group's member as it is printed, with what is there for two steps.
type memberView struct {
	userView
	Authenticator bool `json:"authenticator"`
	Passkey       bool `json:"passkey"`
}

func (cmd *groupShowCmd) Run(ctx context.Context, s *Settings, c console) error {
	return withRules(ctx, s, c, func(rules *auth.Service) error {
		members, err := rules.Members(ctx, cmd.Group)
		if err != nil {
			return err
		}
		views := make([]memberView, len(members))
		for i, u := range members {
			f, err := rules.Factors(ctx, u.ID)
			if err != nil {
				return err
			}
			views[i] = memberView{viewUser(u), f.Authenticator, f.Passkey}
		}
		if cmd.JSON {
			return writeJSON(c.out, views)
		}
		t := newTable(c.out, 0, "EMAIL", "ID", "NAME", "FACTORS")
		for _, v := range views {
			t.row(v.Email, v.ID, strings.TrimSpace(v.FirstName+" "+v.LastName), v.factors())
		}
		return t.Flush()
	})
}

func (v memberView) factors() string {
	switch {
	case v.Authenticator && v.Passkey:
		return "authenticator app, passkey"
	case v.Authenticator:
		return "authenticator app"
	case v.Passkey:
		return "passkey"
	}
	return "-"
}

type membersArg struct {
	groupArg
	Users []string `arg:"" help:"E-mail addresses or ids."`
}

type groupAddCmd struct{ membersArg }

func (cmd *groupAddCmd) Run(ctx context.Context, s *Settings, c console) error {
	return withRules(ctx, s, c, func(rules *auth.Service) error { return rules.AddMembers(ctx, cmd.Group, cmd.Users...) })
}

type groupRemoveCmd struct{ membersArg }

func (cmd *groupRemoveCmd) Run(ctx context.Context, s *Settings, c console) error {
	return withRules(ctx, s, c, func(rules *auth.Service) error { return rules.RemoveMembers(ctx, cmd.Group, cmd.Users...) })
}
