package main

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/alecthomas/kong"

	"kwai/internal/i18n"
)

// helpGroups are the titles of the groups of commands and settings.
func helpGroups() kong.Option {
	return kong.ExplicitGroups([]kong.Group{
		{Key: "server", Title: "The server"}, {Key: "accounts", Title: "Accounts"}, {Key: "data", Title: "Keys and data"}, {Key: "program", Title: "The program"},
		{Key: "address", Title: "Address"}, {Key: "database", Title: "Database and keys"}, {Key: "mail", Title: "Mail"}, {Key: "pages", Title: "Pages"}, {Key: "events", Title: "Events"},
		{Key: "tokens", Title: "Tokens and sessions"}, {Key: "passwords", Title: "Passwords"}, {Key: "throttling", Title: "Throttling"}, {Key: "log", Title: "Log"},
	})
}

// settingsOfAll are the settings that concern every command.
var settingsOfAll = []string{"config", "data", "database", "master-key-file"}

// printHelp shows the commands. With "serve" it shows all settings, with another
// command the settings of all commands.
func printHelp(options kong.HelpOptions, ctx *kong.Context) error {
	command := ctx.Selected()
	if command == nil {
		printCommands(ctx)
		return nil
	}
	for _, flag := range ctx.Model.Flags {
		if flag.Name == "language" && strings.Contains(command.Detail, languageHelp) {
			flag.Group, flag.Tag.Envs = nil, nil
			flag.Help = "The user's language for mails and pages: " + strings.Join(i18n.Codes(), ", ") + "; empty for none."
			continue
		}
		if flag.Name != "help" && command.Name != "serve" && !slices.Contains(settingsOfAll, flag.Name) {
			flag.Hidden = true
		}
	}
	if err := kong.DefaultHelpPrinter(options, ctx); err != nil {
		return err
	}
	if command.Name != "serve" {
		fmt.Fprintln(ctx.Stdout, "\nAll other settings: kwai serve --help.")
	}
	return nil
}

func printCommands(ctx *kong.Context) {
	fmt.Fprintf(ctx.Stdout, "Usage: kwai COMMAND\n\n%s\n", ctx.Model.Help)
	group := ""
	for _, command := range ctx.Model.Children {
		if command.Group.Key != group {
			group = command.Group.Key
			fmt.Fprintf(ctx.Stdout, "\n%s\n", command.Group.Title)
		}
		fmt.Fprintf(ctx.Stdout, "  %-11s %s\n", command.Name, command.Help)
	}
	fmt.Fprint(ctx.Stdout, `
To try it:
  kwai serve --dev

To serve, and to make an account beside that:
  kwai serve --public-url=https://auth.example.org --smtp=smtp://mail.example.org
  kwai user create ann@example.org

kwai COMMAND --help says more; kwai serve --help has all settings.
`)
}

// kubernetes are variables that Kubernetes sets in each container for a service
// that is called kwai.
var kubernetes = regexp.MustCompile(`^KWAI_(SERVICE_(HOST|PORT.*)|PORT(_.*)?)$`)

// misspelt warns of variables that are nearly a setting's.
func misspelt(app *kong.Application, environment []string) (warnings []string) {
	var known []string
	for _, flag := range app.Flags {
		known = append(known, flag.Envs...)
	}
	for _, variable := range environment {
		name, value, _ := strings.Cut(variable, "=")
		if value == "" || !strings.HasPrefix(name, "KWAI_") || slices.Contains(known, name) || kubernetes.MatchString(name) {
			continue
		}
		nearest := slices.MinFunc(known, func(a, b string) int { return distance(name, a) - distance(name, b) })
		if distance(name, nearest) <= 2 {
			warnings = append(warnings, fmt.Sprintf("the environment has %s, which is no setting: is it %s?", name, nearest))
		}
	}
	slices.Sort(warnings)
	return warnings
}

// distance is how many bytes are to be put in, taken out or replaced to make one
// text of the other (Levenshtein).
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		before := row[0] // of the row above, to the left
		row[0] = i + 1
		for j := range len(b) {
			cost := before
			if a[i] != b[j] {
				cost++
			}
			before = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
