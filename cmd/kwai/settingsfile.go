package main

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/BurntSushi/toml"
	"github.com/alecthomas/kong"
)

// configFile is the name of a TOML file, whose settings hold where neither a
// flag nor the environment has one.
type configFile string

// BeforeResolve has kong ask the file.
func (configFile) BeforeResolve(parsing *kong.Context, trace *kong.Path) error {
	path := string(parsing.FlagValue(trace.Flag).(configFile))
	if path == "" {
		return nil
	}
	values, err := readSettings(path, parsing.Model.Flags)
	if err != nil {
		return &usageError{"--config", fmt.Errorf("%s: %w", path, err)}
	}
	parsing.AddResolver(kong.ResolverFunc(func(_ *kong.Context, _ *kong.Path, flag *kong.Flag) (any, error) {
		// kong would have the file beat the environment.
		if value, ok := values[flag.Name]; ok && !inEnvironment(flag) {
			return value, nil
		}
		return nil, nil
	}))
	return nil
}

func inEnvironment(flag *kong.Flag) bool {
	return slices.ContainsFunc(flag.Envs, func(name string) bool {
		_, ok := os.LookupEnv(name)
		return ok
	})
}

// readSettings reads a TOML file. A key that is no setting is an error, and so
// is a value that the flag of that name wouldn't take.
func readSettings(path string, flags []*kong.Flag) (map[string]string, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, errors.Unwrap(err) // without the path
	}
	var file map[string]any
	if _, err := toml.Decode(string(text), &file); err != nil {
		return nil, err
	}
	values := make(map[string]string)
	for _, key := range slices.Sorted(maps.Keys(file)) {
		at := slices.IndexFunc(flags, func(f *kong.Flag) bool { return f.Name == key && len(f.Envs) > 0 && key != "config" })
		if at < 0 {
			return nil, fmt.Errorf("unknown key: %s", key)
		}
		if values[key], err = settingText(flags[at], file[key]); err != nil {
			return nil, err
		}
	}
	return values, nil
}

// settingText is a value of the file as the flag would take it.
func settingText(flag *kong.Flag, value any) (text string, err error) {
	var fits bool
	want := "a text in quotes"
	switch v := value.(type) {
	case string:
		text, fits = strings.TrimRight(v, lineBreaks), true
	case int64:
		text, fits = fmt.Sprint(v), flag.Target.CanInt() || flag.Target.CanUint()
	case []any:
		fits = flag.IsSlice()
		texts := make([]string, len(v))
		for i := range v {
			var isText bool
			texts[i], isText = v[i].(string)
			texts[i] = strings.TrimRight(texts[i], lineBreaks)
			fits = fits && isText
		}
		text = strings.Join(texts, ",")
	}
	if !fits {
		switch {
		case flag.IsSlice():
			want = "a list of texts in quotes"
		case flag.Target.CanUint(), flag.Target.Kind() == reflect.Int:
			want = "a whole number"
		}
		return "", fmt.Errorf("%s must be %s", flag.Name, want)
	}
	// Into a value that is thrown away, so that the error names the file.
	return text, flag.Parse(kong.Scan().PushTyped(text, kong.FlagValueToken), reflect.New(flag.Target.Type()).Elem())
}

// lineBreaks at the end of a setting are an editor's, or echo's in the making of a
// secret, and never meant.
const lineBreaks = "\r\n"

// withoutLineBreaks takes them from the command line and from the environment.
func withoutLineBreaks(args []string) []string {
	clean := make([]string, len(args))
	for i, arg := range args {
		clean[i] = strings.TrimRight(arg, lineBreaks)
	}
	for _, variable := range os.Environ() {
		name, value, _ := strings.Cut(variable, "=")
		if shorter := strings.TrimRight(value, lineBreaks); strings.HasPrefix(name, "KWAI_") && shorter != value {
			_ = os.Setenv(name, shorter) // the system took the name before
		}
	}
	return clean
}

// decodeDuration is for kong, whose own error speaks to a programmer.
func decodeDuration(from *kong.DecodeContext, target reflect.Value) error {
	var text string
	if err := from.Scan.PopValueInto("duration", &text); err != nil {
		return err
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		return fmt.Errorf("%q is not a duration such as 90s, 15m or 720h", text)
	}
	target.SetInt(int64(d))
	return nil
}
