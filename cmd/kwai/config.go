package main

import (
	"cmp"
	"fmt"
	"net/url"

	"github.com/alecthomas/kong"

	"kwai/internal/password"
)

type configCmd struct {
	JSON bool `name:"json" help:"Print JSON."`
}

func (configCmd) Help() string {
	return "Each setting as `kwai serve` would use it, and where it comes from: a flag, the environment, the file or the default. Passwords are not shown. It opens no database."
}

// settingView is a setting as it is printed.
type settingView struct {
	Setting string `json:"setting"`
	Value   string `json:"value"`  // "" for none
	Source  string `json:"source"` // flag, environment, file or default
}

// Run prints all settings.
func (cmd configCmd) Run(parsed *kong.Context, s *Settings, c console) error {
	views := s.view(parsed)
	if cmd.JSON {
		return writeJSON(c.out, views)
	}
	t := newTable(c.out, 0)
	for _, v := range views {
		t.row(v.Setting, v.Source, cmp.Or(v.Value, "-"))
	}
	return t.Flush()
}

func (s *Settings) view(parsed *kong.Context) (views []settingView) {
	derived := s.derived()
	for _, flag := range parsed.Model.Flags {
		if len(flag.Envs) == 0 {
			continue // --help
		}
		value := cmp.Or(derived[flag.Name], formatSetting(flag.Target.Interface()))
		if flag.Tag.Has("secret") {
			value = cmp.Or(s.secretFiles["--"+flag.Name], redact(value))
		}
		views = append(views, settingView{flag.Name, value, sourceOf(parsed, flag)})
	}
	return views
}

func sourceOf(parsed *kong.Context, flag *kong.Flag) string {
	source := "default"
	for _, p := range parsed.Path {
		switch {
		case p.Flag == nil || p.Flag.Name != flag.Name:
		case p.Resolved:
			source = "file"
		default:
			return "flag"
		}
	}
	if inEnvironment(flag) {
		return "environment"
	}
	return source
}

// derived are the values that other settings have a part in, by flag.
func (s *Settings) derived() map[string]string {
	d := map[string]string{"mail-from": s.MailFrom, "service-name": s.ServiceName}
	if s.HashWorkers == 0 {
		d["hash-workers"] = fmt.Sprint(password.WorkersFor(s.hashing()))
	}
	if s.onSQLite() {
		d["master-key-file"] = s.masterKeyFile()
	}
	public := s.publicURL
	if public == nil && onLoopback(s.Listen) {
		public = &url.URL{Scheme: s.scheme(), Host: s.Listen}
	}
	if public != nil {
		d["public-url"] = public.String()
		d["mail-from"] = cmp.Or(s.MailFrom, "noreply@"+mailDomain(public.Hostname()))
		d["service-name"] = cmp.Or(s.ServiceName, public.Hostname())
	}
	return d
}
