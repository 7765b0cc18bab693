package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
)

// show is what `kwai config` prints, as a table and as JSON, with these flags.
func show(t *testing.T, flags ...string) (table string, settings map[string]settingView) {
	t.Helper()
	var out, list, log bytes.Buffer
	if code := run(context.Background(), append([]string{"config"}, flags...), console{nil, &out, &log}); code != 0 {
		t.Fatalf("kwai config %q: exit code %d: %s", flags, code, &log)
	}
	if code := run(context.Background(), append([]string{"config", "--json"}, flags...), console{nil, &list, &log}); code != 0 {
		t.Fatalf("kwai config --json %q: exit code %d: %s", flags, code, &log)
	}
	var views []settingView
	if err := json.Unmarshal(list.Bytes(), &views); err != nil {
		t.Fatal(err)
	}
	settings = make(map[string]settingView)
	for _, v := range views {
		settings[v.Setting] = v
	}
	return out.String(), settings
}

func TestConfigShowsEverySetting(t *testing.T) {
	t.Parallel()
	table, settings := show(t)
	names := settingFlags()
	if len(settings) != len(names) || strings.Count(table, "\n") != len(names) {
		t.Errorf("%d settings and %d lines, want %d", len(settings), strings.Count(table, "\n"), len(names))
	}
	for name := range names {
		if settings[name].Source == "" || !strings.Contains("\n"+table, "\n"+name+" ") {
			t.Errorf("it doesn't show %s", name)
		}
	}
}

// TestConfigShowsWhatIsUsed: what follows from other settings, too.
func TestConfigShowsWhatIsUsed(t *testing.T) {
	t.Parallel()
	for flags, want := range map[string]string{
		"":                                  "database=sqlite://kwai-data/kwai.db public-url=http://127.0.0.1:8080 master-key-file=kwai-data/master.key mail-from=noreply@localhost.localdomain service-name=127.0.0.1",
		"--data=x":                          "database=sqlite://x/kwai.db master-key-file=x/master.key",
		"--listen=[::1]:80":                 "public-url=http://[::1]:80",
		"--listen=0.0.0.0:80":               "public-url= mail-from= service-name=",
		"--tls-cert=c --tls-key=k":          "public-url=https://127.0.0.1:8080 tls-cert=c",
		"--public-url=https://A.example/":   "public-url=https://a.example mail-from=noreply@a.example service-name=a.example",
		"--public-url=http://[2001:DB8::1]": "public-url=http://[2001:db8::1] mail-from=noreply@localhost.localdomain service-name=2001:db8::1",
		"--public-url=http://192.168.1.5":   "mail-from=noreply@localhost.localdomain service-name=192.168.1.5",
		"--public-url=https://Bücher.example --cors-origins=https://Bücher.example/,tauri://localhost": "public-url=https://xn--bcher-kva.example mail-from=noreply@xn--bcher-kva.example service-name=xn--bcher-kva.example cors-origins=https://xn--bcher-kva.example,tauri://localhost",
		"--mail-from=a@b --service-name=Us":                                      "mail-from=a@b service-name=Us",
		"--database=postgres://kwai@db/kwai --trusted-proxies=10.0.0.2,10.0.0.3": "database=postgres://kwai@db/kwai master-key-file= trusted-proxies=10.0.0.2,10.0.0.3",
	} {
		_, settings := show(t, strings.Fields(flags)...)
		for pair := range strings.FieldsSeq(want) {
			name, value, _ := strings.Cut(pair, "=")
			if got := settings[name].Value; got != value {
				t.Errorf("with %q, %s is %q, want %q", flags, name, got, value)
			}
		}
	}
}

// TestConfigShowsNoSecret: wherever it stands in a setting, and however badly
// that is written.
func TestConfigShowsNoSecret(t *testing.T) {
	t.Parallel()
	const secret = "hush"
	parser, err := kong.New(&cli{}, helpVars())
	if err != nil {
		t.Fatal(err)
	}
	secrets := map[string]string{"database": "postgres://", "smtp": "smtp://", "bus": "nats://"}
	for _, flag := range parser.Model.Flags {
		_, known := secrets[flag.Name]
		if marked := flag.Tag.Has("secret"); marked != strings.Contains(flag.Help, "@FILE") || marked != known {
			t.Errorf("--%s is marked as a secret: %v", flag.Name, marked)
		}
	}
	folder := t.TempDir()
	for _, rest := range []string{
		"kwai:hush@host/kwai", "kwai:hush@host:5432,host2:5432/kwai", "kwai:hush@[::1]:5432", ":hush@host", "kwai:hu:hush@host", "a,b:hush@host",
		"kwai:hush%zz@host/kwai", "kwai:%68hush@host", "kwai:hush@ho st/", "kwai:hush@host:port", "kwai:hush@host:123456", "kwai:hush@", "kwai:hush", "kwai:hush/",
		"kwai:hu@hush@host", "kwai:hu/hush@host", "kwai:hu?hush@host", "kwai:hu#hush@host", "kwai:a/hush", "kwai:a?hush", "kwai:a#hush", "kwai:a b:hush@host", "kwai:[hush@host", "kwai:a,hush@host,host:1",
		"host/kwai?password=hush", "host/kwai?user=kwai&password=hush", "host/kwai?password=a&hush", "host/kwai?password=a&user=hush", "host/kwai?PASSWORD=hush", "host/kwai?sslpassword=hush", "host?password=a#hush", "host#hush",
		"host/kwai?password=a@hush", "host/kwai?options=hush", "host?hush", "host?hush=", "host?%70assword=hush", "host?sslmode=disable;password=hush", "host/%zz?x=hush",
		"kwai:hush:a@host", "a:b@host:1,c:hush@host", "host:1,nats://a:hush@host",
	} {
		// All settings at once, in the command line and in files.
		given := map[bool][]string{}
		values := map[string]string{}
		for name, scheme := range secrets {
			values[name] = scheme + rest
			file := filepath.Join(folder, name)
			if err := os.WriteFile(file, []byte(values[name]), 0o600); err != nil {
				t.Fatal(err)
			}
			given[false] = append(given[false], "--"+name+"="+values[name])
			given[true] = append(given[true], "--"+name+"=@"+file)
		}
		for inFile, flags := range given {
			table, settings := show(t, flags...)
			if strings.Contains(table, secret) {
				t.Errorf("with %q the table shows it:\n%s", flags, table)
			}
			for name, value := range values {
				switch got := settings[name].Value; {
				case strings.Contains(got, secret) || got == "":
					t.Errorf("%s is shown as %s", value, got)
				case inFile && got != "@"+filepath.Join(folder, name):
					t.Errorf("what the file has is shown as %s", got)
				}
			}
		}
	}
	for _, value := range []string{secret, "user:hush@host", "smtp:user:hush@host", "mysql://user:hush@host", "hush://host", "://hush", "nats://hush@host", "smtp://hush@host", "SMTP://u:hush@host", "postgres:/u:hush@host"} {
		if got := redact(value); strings.Contains(got, secret) {
			t.Errorf("%q is shown as %q", value, got)
		}
	}
}

// TestConfigShowsTheRest of a URL, so that one can see where it leads.
func TestConfigShowsTheRest(t *testing.T) {
	t.Parallel()
	for value, want := range map[string]string{
		"":                          "",
		"local":                     "local",
		"sqlite:///var/lib/a b?c@d": "sqlite:///var/lib/a b?c@d",
		"postgres://kwai:x@db/kwai": "postgres://kwai:***@db/kwai",
		"postgresql://kwai@db1:5432,db2:5432/kwai?sslmode=verify-full&connect_timeout=3": "postgresql://kwai@db1:5432,db2:5432/kwai?sslmode=verify-full&connect_timeout=3",
		"postgres:///kwai?host=/run/postgresql":                                          "postgres:///kwai?host=/run/postgresql",
		"postgres://kwai:%40@[fd00::1]:5432/kwai":                                        "postgres://kwai:***@[fd00::1]:5432/kwai",
		"postgres://db/kwai?password=x":                                                  "postgres://db/kwai?***",
		"smtps://user:x@mail.example.org":                                                "smtps://user:***@mail.example.org",
		"smtp+insecure://127.0.0.1:25":                                                   "smtp+insecure://127.0.0.1:25",
		"nats://token@n1,n2:4222?stream=S&credentials=/etc/kwai/nats.creds":              "nats://***@n1,n2:4222?stream=S&credentials=/etc/kwai/nats.creds",
		"tls://user:x@n1/":                                                               "tls://user:***@n1/",
	} {
		if got := redact(value); got != want {
			t.Errorf("%q is shown as %q, want %q", value, got, want)
		}
	}
}
