package test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"kwai/internal/testing/cluster"
	"kwai/internal/testing/mailtest"
	"kwai/internal/testing/need"
	"kwai/internal/testing/pgcluster"
	"kwai/internal/testing/pgtest"
)

// pageBlock is a block of docs/operating.md: what an operator copies.
type pageBlock struct{ section, text string }

// name is the section and the block's first line, by which the table below has it.
func (b pageBlock) name() string {
	first, _, _ := strings.Cut(b.text, "\n")
	return b.section + ": " + strings.TrimSpace(first)
}

// pageBlocks are the blocks of a page, indented or fenced, in their order.
func pageBlocks(page string) (blocks []pageBlock) {
	var lines []string
	section, blank, fenced := "", true, false
	flush := func() {
		if text := strings.TrimRight(strings.Join(lines, "\n"), "\n"); text != "" {
			blocks = append(blocks, pageBlock{section, text})
		}
		lines = nil
	}
	for line := range strings.Lines(page) {
		line = strings.TrimSuffix(line, "\n")
		code, indented := strings.CutPrefix(line, "    ")
		switch {
		case strings.HasPrefix(line, "```"):
			fenced = !fenced
			flush()
		case fenced:
			lines = append(lines, line)
		case indented && (blank || lines != nil):
			lines = append(lines, code)
		case line == "" && lines != nil:
			lines = append(lines, "")
		default:
			flush()
			if title, is := strings.CutPrefix(line, "## "); is {
				section = title
			}
		}
		blank = line == ""
	}
	flush()
	return blocks
}

// operatorsTable says what is done with each block of the page, in the page's
// order: it is run by the function, or not, for the reason. A block that isn't here
// fails the test, and so does an entry without a block.
var operatorsTable = map[string]struct {
	run func(w *operator, block string)
	not string
}{
	"Install: CGO_ENABLED=0 go build -trimpath -o kwai ./cmd/kwai": {run: func(w *operator, block string) {
		source := filepath.Join(w.root, "source")
		repository, err := filepath.Abs("..")
		if err != nil {
			w.t.Fatal(err)
		}
		w.must(`mkdir "$0" && cd "$1" && cp -r go.mod go.sum cmd internal verify "$0"`, source, repository)
		w.in(source).sh(block)
		w.must(`"$0" version`, filepath.Join(source, "kwai"))
	}},
	"Upgrading: install -d -m 700 -o kwai -g kwai /var/backups/kwai &&": {run: func(w *operator, block string) {
		w.must(`systemctl start kwai`)
		w.must(`umask 077; mkdir -p var/backups/kwai && echo older >var/backups/kwai/kwai-upgrade-2020-11-22-101112.db`)
		w.sh(block)
	}},
	"Upgrading: export PGSERVICEFILE=/etc/kwai/pg_service.conf": {run: func(w *operator, block string) {
		w.sql("postgres", `CREATE DATABASE kwai`)
		w.write("etc/kwai/pg_service.conf", "[kwai]\ndbname=kwai\n")
		w.sh(block)
		w.must(`pg_restore --list var/backups/kwai/kwai-upgrade-*.dump`)
		if out := w.must(`find var/backups/kwai -name '*.part' -o -name '*.dump' -perm /077`); out != "" {
			w.t.Errorf("it leaves %s", out)
		}
	}},
	"Upgrading: cp /usr/local/bin/kwai /usr/local/bin/kwai.old &&": {run: func(w *operator, block string) {
		w.must(`cp usr/local/bin/kwai kwai`)
		w.sh(block)
		w.want("usr/local/bin/kwai.old")
	}},
	"Upgrading: systemctl stop kwai &&": {run: func(w *operator, block string) {
		w.sh(block)
		w.want("var/lib/kwai/kwai.db.replaced")
	}},
	`Settings: public-url = "https://auth.example.org"`:            {run: (*operator).settings},
	`Whose pages they are: service-name = "Judo club Example"`:     {run: (*operator).brand},
	"Behind a proxy: # nginx":                                      {run: (*operator).proxies},
	"Behind a proxy: # nginx: the slashes at both ends do it":      {not: "it is an excerpt; TestBehindProxies has all three at a path"},
	"Backups: install -d -m 700 -o kwai -g kwai /var/backups/kwai": {run: (*operator).sh},
	"Backups: kwai backup FILE":                                    {run: func(w *operator, block string) { w.sh(strings.Replace(block, "FILE", "backup.db", 1)) }},
	"Backups: " + cronLine: {run: func(w *operator, block string) {
		w.cron("kwai", block)
		w.must(`ls var/backups/kwai/kwai-2*.db`)
	}},
	"Restoring: kwai restore FILE": {run: func(w *operator, block string) {
		w.must("systemctl stop kwai")
		w.sh(strings.Replace(block, "FILE", "backup.db", 1))
	}},
	"Restoring: useradd --system --home-dir /var/lib/kwai --shell /usr/sbin/nologin kwai &&":                                               {run: (*operator).newMachine},
	"Accounts: kwai user create EMAIL --first-name F --last-name L [--language CODE] [--unverified]   # mails a link to choose a password": {run: (*operator).synopsis},
	"Accounts: kwai user reset-factors ann@example.org": {run: func(w *operator, block string) {
		w.must(`kwai user create ann@example.org`)
		w.sh(block)
	}},
	"Accounts: kwai group create board --require-two-steps &&": {run: func(w *operator, block string) {
		w.must(`kwai user create bob@example.org`)
		w.sh(block)
		w.must(`kwai user delete ann@example.org`) // she is imported below
	}},
	"Apps: kwai app create NAME --redirect-uri URI [--public] [--id ID] [--secret-stdin] [--home-url URL] [--post-logout-uri URI] [--backchannel-logout-uri URI] [--groups GROUP,…] [--consent] [--without-pkce] [--offline]": {run: (*operator).synopsis},
	"Apps: kwai group create GROUP [--require-two-steps]": {run: (*operator).synopsis},
	"The audit log: kwai log [--user USER] [--app APP] [--since TIME|DURATION] [--until TIME|DURATION] [--address ADDRESS] [--kind KIND,…] [--json]": {run: (*operator).synopsis},
	"Keys: kwai key list [--json]": {run: (*operator).synopsis},
	"Changing the master key: kwai key new                    # prints a new one": {run: (*operator).sh},
	"Changing the master key: cd /var/lib/kwai && { kwai key new; cat master.key; } | install -m 600 -o kwai -g kwai /dev/stdin master.key.new && mv master.key.new master.key": {run: func(w *operator, block string) {
		w.must("systemctl start kwai")
		w.changeKey("var/lib/kwai/master.key", block, 2)
	}},
	"Changing the master key: cd /var/lib/kwai && head -n 1 master.key | install -m 600 -o kwai -g kwai /dev/stdin master.key.new && mv master.key.new master.key": {run: func(w *operator, block string) {
		w.changeKey("var/lib/kwai/master.key", block, 1)
		w.must("systemctl restart kwai")
		w.account()
	}},
	"Changing the master key: cd /etc/kwai && { kwai key new; cat master.key; } | install -m 600 -o root -g root /dev/stdin master.key.new && mv master.key.new master.key && systemctl restart kwai": {run: func(w *operator, block string) {
		w.newRole()
		w.must("systemctl stop kwai; umask 077; kwai key new >etc/kwai/master.key")
		w.env["KWAI_DATABASE"], w.env["KWAI_MASTER_KEY_FILE"] = w.databaseURL(), w.root+"/etc/kwai/master.key"
		w.must("systemctl start kwai")
		w.changeKey("etc/kwai/master.key", block, 2)
	}},
	"Changing the master key: cd /etc/kwai && head -n 1 master.key | install -m 600 -o root -g root /dev/stdin master.key.new && mv master.key.new master.key && systemctl restart kwai": {run: func(w *operator, block string) {
		w.changeKey("etc/kwai/master.key", block, 1)
		w.account()
		w.must("systemctl stop kwai; rm etc/kwai/master.key")
		w.onSQLite()
	}},
	"Mail: kwai mail list [--dead] [--json]":                  {run: (*operator).synopsis},
	"Watching it: kwai status [--json]":                       {run: (*operator).synopsis},
	"PostgreSQL: sudo -u postgres createuser --pwprompt kwai": {run: (*operator).role},
	"PostgreSQL: CREATE ROLE kwai LOGIN PASSWORD '…';": {run: func(w *operator, block string) {
		w.dropRole()
		w.sql("postgres", strings.Replace(block, "…", rolePassword, 1))
	}},
	"PostgreSQL: [kwai]": {run: func(w *operator, block string) {
		w.onPostgres()
		w.must("systemctl start kwai")
		if _, err := w.run(w.t.Context(), good, `kwai user create "$0" --password-stdin`, dumped); err != nil {
			w.t.Fatal(err)
		}
		w.must("systemctl stop kwai")
		there := strings.NewReplacer("db.example.org", w.env["PGHOST"]+"\nport="+w.env["PGPORT"], "PASSWORD", rolePassword)
		w.write("etc/kwai/pg_service.conf", there.Replace(block)+"\n")
	}},
	"PostgreSQL: PGSERVICEFILE=/etc/kwai/pg_service.conf": {run: func(w *operator, block string) {
		setting, line, _ := strings.Cut(block, "\n")
		w.env["PGSERVICEFILE"] = strings.TrimPrefix(w.there(setting), "PGSERVICEFILE=")
		w.cron("root", line)
		delete(w.env, "PGSERVICEFILE")
		w.must(`cp var/backups/kwai/kwai-2*.dump kwai-2026-11-22.dump`)
	}},
	"PostgreSQL: export PGSERVICEFILE=/etc/kwai/pg_service.conf": {run: func(w *operator, block string) {
		w.sql("postgres", `DROP DATABASE kwai WITH (FORCE)`)
		w.sql("postgres", `CREATE DATABASE kwai OWNER kwai ENCODING 'UTF8' TEMPLATE template0`)
		w.sh(block)
	}},
	"PostgreSQL: UPDATE sessions SET ended_at = extract(epoch FROM clock_timestamp()) * 1000000, end_reason = 'restore' WHERE ended_at IS NULL;": {run: func(w *operator, block string) {
		w.sql("kwai", block)
		w.must("systemctl start kwai") // on what was restored
		w.server.login(dumped)
		w.must("systemctl stop kwai")
		w.onSQLite()
	}},
	"Moving from SQLite to PostgreSQL: install -m 600 -o root -g root /dev/null /etc/kwai/database": {run: func(w *operator, block string) {
		w.onSQLite()
		w.newRole()
		w.must("systemctl start kwai")
		w.env["WRITTEN"] = w.databaseURL()
		w.sh(block)
	}},
	"Moving from SQLite to PostgreSQL: systemctl stop kwai &&": {run: (*operator).move},
	"Moving users over from another system: " + importLine: {run: func(w *operator, block string) {
		w.write("one.jsonl", strings.Replace(block, "$2b$10$…", bcryptHash, 1)+"\n")
		w.must(`kwai user import --dry-run one.jsonl && kwai user import one.jsonl`)
	}},
	"Moving users over from another system: umask 077                                   # the file has the hashes": {run: func(w *operator, block string) {
		w.sql("postgres", `CREATE DATABASE old`)
		w.sql("old", `CREATE TABLE users (email text, given text, family text, password text, created timestamptz, disabled boolean);
			INSERT INTO users VALUES ('old@example.org', 'Old', 'Hand', '`+bcryptHash+`', now(), false), ('gone@example.org', 'Gone', 'Hand', '`+bcryptHash+`', now(), true)`)
		w.sh(block)
		w.must(`kwai user show gone@example.org | grep '^state *revoked' && kwai user show old@example.org`)
	}},
	"Several replicas: defaults": {run: func(w *operator, block string) {
		w.certificate("etc/haproxy/auth.pem")
		w.write("haproxy.cfg", w.there(block)+"\n")
		w.must(`haproxy -c -f haproxy.cfg`)
	}},
	`As a systemd service: public-url = "https://auth.example.org"`:          {not: "TestDocumentedUnitSettings has a server and commands use it"},
	"As a systemd service: sudo kwai user list --config=/etc/kwai/kwai.toml": {not: "TestDocumentedUnitSettings runs it"},
	"Watching it: rule_files: [/etc/prometheus/kwai/alerts.yaml]     # deploy/alerts.yaml": {run: func(w *operator, block string) {
		w.write("etc/prometheus/kwai/alerts.yaml", string(readFile(w.t, "../deploy/alerts.yaml")))
		w.write("prometheus.yaml", w.there(block)+"\n")
		w.must(`promtool check config prometheus.yaml`)
	}},
	"Keeping the log: install -d -m 750 -o kwai -g kwai /var/log/kwai": {run: (*operator).log},
	"Keeping the log: /var/log/kwai/kwai.log {":                        {run: (*operator).rotate},
}

const (
	cronLine     = `30 3 * * * kwai /usr/local/bin/kwai backup --data=/var/lib/kwai /var/backups/kwai/kwai-$(date +\%F).db >/dev/null && find /var/backups/kwai -name 'kwai-*.db*' -mtime +30 -delete`
	importLine   = `{"email": "ann@example.org", "first_name": "Ann", "last_name": "Other", "hash": "$2b$10$…", "id": "5f0f1c0e-6a4c-4c55-9d3a-0c2c1d3f7a10", "created_at": "2019-05-06T07:08:09Z", "revoked_at": null}`
	bcryptHash   = "$2b$04$abcdefghijklmnopqrstuuIQRyLTMvP3TCFsTMK0kVVbNnBM/3nby"
	rolePassword = "a-role-s-password"
	dumped       = "dumped@example.org" // whose account is in the dump
)

// TestOperatorsCommands runs each block of docs/operating.md as it stands there,
// with the real programs. The operator's machine is a folder: of absolute paths and
// of the server's address the test puts its own in place, words in capitals become
// what they stand for, and of what belongs to a whole machine there are stand-ins
// (see [newOperator]): sudo, systemctl, an install that changes no owner.
func TestOperatorsCommands(t *testing.T) {
	t.Parallel()
	need.Time(t)
	w := newOperator(t)
	seen := map[string]bool{}
	for _, b := range pageBlocks(string(readFile(t, "../docs/operating.md"))) {
		entry, ok := operatorsTable[b.name()]
		if seen[b.name()] = true; !ok {
			t.Errorf("the table doesn't have %q", b.name())
			continue
		}
		t.Run(b.name(), func(t *testing.T) {
			if entry.run == nil {
				t.Logf("not run: %s", entry.not)
				return
			}
			at, server := *w, *w.server
			at.t, at.server, server.tb = t, &server, t
			entry.run(&at, b.text)
		})
	}
	for name := range maps.Keys(operatorsTable) {
		if !seen[name] {
			t.Errorf("the table has %q, which isn't on the page", name)
		}
	}
}

// operator is who runs the commands.
type operator struct {
	t      *testing.T
	root   string // the machine: /etc, /var, …
	dir    string // where a command is run
	env    map[string]string
	mails  *mailtest.Server
	pg     *pgcluster.Cluster
	server *site // for requests
	made   *int  // accounts
}

// newOperator makes a machine on which kwai is installed, and doesn't run yet.
func newOperator(t *testing.T) *operator {
	for _, name := range []string{"promtool", "haproxy", "nginx", "caddy", "logrotate", "curl", "openssl"} {
		need.Program(t, name)
	}
	pgtest.Require(t)
	pg, err := pgtest.Start(pgtest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := pg.Stop(); err != nil {
			t.Error(err)
		}
	})
	address, err := cluster.FreeAddress(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	w := &operator{t: t, root: root, dir: root, mails: mailtest.Serve(t), pg: pg, made: new(int)}
	w.server = &site{tb: t, URL: "http://" + address, via: newTransport(t), log: newTranscript()}
	super, err := url.Parse(pg.URL("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	// The superuser as Debian has it: this cluster's is called kwai.
	db := rawDatabase(t, pg.URL("postgres"))
	if _, err := db.ExecContext(t.Context(), `CREATE ROLE postgres SUPERUSER LOGIN PASSWORD '`+rolePassword+`'`); err != nil {
		t.Fatal(err)
	}
	programs := cmpPath(t)
	w.env = map[string]string{
		"PATH": root + "/stand-ins:" + root + "/usr/local/bin:" + programs + ":" + os.Getenv("PATH") + ":/usr/sbin:/sbin",
		"HOME": root, "ROOT": root, "ADDRESS": address,
		"PGHOST": super.Hostname(), "PGPORT": super.Port(), "PGUSER": "postgres", "PGPASSWORD": rolePassword,
		"GOCACHE": goEnv(t, "GOCACHE"), "GOMODCACHE": goEnv(t, "GOMODCACHE"), "GOFLAGS": "-buildvcs=false",
		"KWAI_LISTEN": address, "KWAI_DATA": root + "/var/lib/kwai", "KWAI_SMTP": w.mails.URL(),
		"KWAI_HASH_MEMORY": "64", "KWAI_HASH_TIME": "1", "KWAI_HASH_WAIT": "1h", "KWAI_LOG_FORMAT": "json",
		"KWAI_PUBLIC_URL": publicURL,
	}
	w.sql("postgres", `ALTER ROLE "`+super.User.Username()+`" RENAME TO first`)
	w.write("etc/kwai/kwai.toml", "public-url = \""+publicURL+"\"\n")
	w.write("etc/kwai/smtp", w.mails.URL()+"\n")
	for name, script := range map[string]string{
		// sudo -u USER COMMAND: there is one user here.
		"sudo":    `[ "$1" = -u ] || exit 9; shift 2; exec "$@"`,
		"setpriv": `[ "$1 $2 $3" = "--reuid=kwai --regid=kwai --init-groups" ] || exit 9; shift 3; exec "$@"`,
		"useradd": `[ "$6" = kwai ]`,
		"editor":  `echo "$WRITTEN" >"$1"`,
		// install without owners.
		"install": `set -- "$@" end; while [ "$1" != end ]; do case $1 in -o|-g) shift 2;; *) a=$1; shift; set -- "$@" "$a";; esac; done; shift; exec /usr/bin/install "$@"`,
		// systemctl VERB kwai. What is started is ready.
		"systemctl": `
stop() {
	[ -e "$ROOT/pid" ] || return 0
	pid=$(cat "$ROOT/pid"); rm "$ROOT/pid"; kill "$pid"
	while kill -0 "$pid" 2>/dev/null && ! grep -q ') Z ' "/proc/$pid/stat"; do sleep 0.01; done
}
start() {
	[ ! -e "$ROOT/pid" ] || return 0
	setsid kwai serve --config "$ROOT/etc/kwai/kwai.toml" 2>>"$ROOT/journal" & echo $! >"$ROOT/pid"
	until curl -sf -o "$ROOT/ready" "http://$ADDRESS/readyz"; do
		kill -0 $! || { cat "$ROOT/journal" >&2; exit 1; }
		sleep 0.01
	done
}
case $* in
daemon-reload) ;;
"start kwai"|"stop kwai") $1;;
"restart kwai") stop; start;;
"enable --now kwai") start;;
*) exit 9;;
esac`,
	} {
		w.write("stand-ins/"+name, "#!/bin/sh\n"+script+"\n")
		if err := os.Chmod(filepath.Join(root, "stand-ins", name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	w.must(`mkdir -p usr/local/bin`)
	copyProgram(t, root+"/usr/local/bin/kwai") // without the race detector, which would take minutes
	t.Cleanup(func() {
		w.t, w.dir = t, w.root
		w.run(context.Background(), "", "systemctl stop kwai")
	})
	return w
}

// cmpPath is the folder of PostgreSQL's programs.
func cmpPath(t *testing.T) string {
	t.Helper()
	if path, err := exec.LookPath("initdb"); err == nil {
		return filepath.Dir(path)
	}
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if err != nil || len(found) == 0 {
		need.Missing(t, errors.New("PostgreSQL's programs aren't here"))
	}
	return filepath.Dir(found[len(found)-1])
}

func goEnv(t *testing.T, name string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "env", name).Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

// there puts this machine's places into a text of the page.
func (w *operator) there(text string) string {
	for _, path := range []string{"/etc/", "/var/", "/usr/local/bin/"} {
		text = strings.ReplaceAll(text, path, w.root+path)
	}
	return strings.ReplaceAll(text, "127.0.0.1:8080", w.env["ADDRESS"])
}

func (w *operator) in(dir string) *operator {
	at := *w
	at.dir = dir
	return &at
}

// command is a shell that runs a script; it has no terminal to ask for a password.
func (w *operator) command(ctx context.Context, stdin, script string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "bash", append([]string{"-euo", "pipefail", "-c", script}, args...)...)
	cmd.Dir, cmd.Stdin = w.dir, strings.NewReader(stdin)
	for name, value := range w.env {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	return cmd
}

func (w *operator) run(ctx context.Context, stdin, script string, args ...string) (out string, err error) {
	var stdout, stderr bytes.Buffer
	cmd := w.command(ctx, stdin, script, args...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.WaitDelay = time.Second // a server that was started has the pipes
	if err = cmd.Run(); errors.Is(err, exec.ErrWaitDelay) {
		err = nil
	}
	if err != nil {
		err = fmt.Errorf("%s: %w\n%s%s", script, err, &stdout, &stderr)
	}
	return stdout.String(), err
}

// must runs a script of the test, whose paths are relative to the machine.
func (w *operator) must(script string, args ...string) string {
	w.t.Helper()
	out, err := w.run(w.t.Context(), "", script, args...)
	if err != nil {
		w.t.Fatal(err)
	}
	return out
}

// sh runs a block as it is.
func (w *operator) sh(block string) { w.shWith("", block) }

func (w *operator) shWith(stdin, block string) string {
	w.t.Helper()
	out, err := w.run(w.t.Context(), stdin, w.there(block))
	if err != nil {
		w.t.Fatal(err)
	}
	return out
}

func (w *operator) write(name, text string) {
	w.t.Helper()
	path := filepath.Join(w.root, name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), 0o600)); err != nil {
		w.t.Fatal(err)
	}
}

// want has files be there.
func (w *operator) want(names ...string) {
	w.t.Helper()
	for _, name := range names {
		if _, err := os.Stat(filepath.Join(w.root, name)); err != nil {
			w.t.Error(err)
		}
	}
}

// sql runs statements as PostgreSQL's superuser.
func (w *operator) sql(database, statements string) {
	w.t.Helper()
	if out, err := w.run(w.t.Context(), statements, `psql --no-psqlrc --quiet --set=ON_ERROR_STOP=1 --dbname="$0"`, database); err != nil {
		w.t.Fatal(out, err)
	}
}

// cron runs a line of a crontab as cron would: what it prints would be mailed.
func (w *operator) cron(user, block string) {
	w.t.Helper()
	_, line, is := strings.Cut(block, " * * * "+user+" ")
	if !is {
		w.t.Fatalf("not a line of cron's for %s", user)
	}
	if out := w.must(w.there(strings.ReplaceAll(line, `\%`, "%")) + " 2>&1"); out != "" {
		w.t.Errorf("cron would mail %s", out)
	}
	if out := w.must(`find var/backups/kwai -type f -perm /077`); out != "" {
		w.t.Errorf("others can read %s", out)
	}
}

func (w *operator) certificate(name string) {
	w.t.Helper()
	w.write(name, "")
	w.must(`openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=auth.example.org -keyout key.pem -out cert.pem && cat cert.pem key.pem >"$0"`, name)
}

func (w *operator) settings(block string) {
	w.write("settings.toml", w.there(block)+"\n")
	if out := w.must(`env -u KWAI_PUBLIC_URL -u KWAI_SMTP kwai config --config settings.toml`); !strings.Contains(out, "https://auth.example.org") || !strings.Contains(out, "15m") {
		w.t.Errorf("kwai config:\n%s", out)
	}
}

func (w *operator) brand(block string) {
	w.write("etc/kwai/logo.svg", `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 8 8"><circle cx="4" cy="4" r="4"/></svg>`)
	w.write("brand.toml", w.there(block)+"\n")
	if out := w.must(`env -u KWAI_PUBLIC_URL -u KWAI_SMTP kwai config --config brand.toml`); !strings.Contains(out, "#7a1f3d") || !strings.Contains(out, "https://club.example.org/privacy") {
		w.t.Errorf("kwai config:\n%s", out)
	}
}

// proxies gives each proxy its part of the block.
func (w *operator) proxies(block string) {
	parts := regexp.MustCompile(`(?m)^# (nginx|HAProxy|Caddy).*\n`).Split(w.there(block), -1)
	if len(parts) != 4 {
		w.t.Fatalf("%d proxies are shown", len(parts)-1)
	}
	w.write("nginx.conf", "pid nginx.pid; error_log stderr; events {} http { access_log off; client_body_temp_path a; proxy_temp_path b; fastcgi_temp_path c; uwsgi_temp_path d; scgi_temp_path e; server { listen 127.0.0.1:18080;\n"+parts[1]+"} }\n")
	w.must(`nginx -t -p "$ROOT" -c "$ROOT/nginx.conf"`)
	w.write("proxy.cfg", "defaults\n mode http\n timeout connect 1s\n timeout client 1s\n timeout server 1s\nfrontend a\n bind 127.0.0.1:18080\n default_backend b\n "+parts[2]+"backend b\n server kwai "+w.env["ADDRESS"]+"\n")
	w.must(`haproxy -c -f proxy.cfg`)
	w.write("Caddyfile", parts[3])
	w.must(`caddy adapt --adapter caddyfile --config Caddyfile`)
}

// newMachine has nothing but the program and what was kept.
func (w *operator) newMachine(block string) {
	kept := regexp.MustCompile("`(\\(umask 077; tar [^`]*)`").FindStringSubmatch(string(readFile(w.t, "../docs/operating.md")))
	if kept == nil {
		w.t.Fatal("the page doesn't keep /etc")
	}
	w.write("etc/systemd/system/kwai.service", string(readFile(w.t, "../deploy/kwai.service")))
	w.write("etc/cron.d/kwai", cronLine+"\n")
	w.must(`systemctl start kwai && systemctl stop kwai && kwai backup kwai-2026-11-22.db && cp var/lib/kwai/master.key .`)
	w.sh(kept[1])
	w.must(`mv usr/local/bin/kwai . && rm -r var/lib/kwai var/backups etc/kwai etc/systemd etc/cron.d`)
	w.sh(block)
	w.want("etc/kwai/kwai.toml", "etc/systemd/system/kwai.service", "etc/cron.d/kwai")
}

// role makes the role and the database, which ask for the password twice.
func (w *operator) role(block string) {
	w.dropRole()
	w.shWith(rolePassword+"\n"+rolePassword+"\n", block)
	w.must(`PGUSER=kwai PGPASSWORD="$0" psql -d kwai -c 'SELECT 1'`, rolePassword)
}

func (w *operator) dropRole() {
	w.t.Helper()
	w.sql("postgres", `DROP DATABASE IF EXISTS kwai WITH (FORCE)`)
	w.sql("postgres", `DROP ROLE IF EXISTS kwai`)
}

func (w *operator) databaseURL() string {
	return "postgres://kwai:" + rolePassword + "@" + w.env["PGHOST"] + ":" + w.env["PGPORT"] + "/kwai"
}

// onPostgres has all commands, and the server, use PostgreSQL.
func (w *operator) onPostgres() {
	w.must("systemctl stop kwai")
	w.env["KWAI_DATABASE"], w.env["KWAI_MASTER_KEY_FILE"] = w.databaseURL(), w.root+"/var/lib/kwai/master.key"
	w.must("systemctl start kwai && systemctl stop kwai")
}

func (w *operator) onSQLite() {
	delete(w.env, "KWAI_DATABASE")
	delete(w.env, "KWAI_MASTER_KEY_FILE")
}

// move has the settings and the unit as the page and deploy/ have them.
func (w *operator) move(block string) {
	const unit = "etc/systemd/system/kwai.service"
	w.write("etc/kwai/kwai.toml", strings.Replace(w.there(unitSettings(w.t)), "127.0.0.1:9191", "127.0.0.1:0", 1)+"\n")
	w.write(unit, string(readFile(w.t, "../deploy/kwai.service")))
	email := w.account()
	if out := w.shWith("", block); !strings.Contains(out, "--database") {
		w.t.Errorf("kwai move prints no --database:\n%s", out)
	}
	w.server.login(email)
	text := string(readFile(w.t, filepath.Join(w.root, unit)))
	for _, line := range []string{"LoadCredential=database:/etc/kwai/database", "Environment=KWAI_DATABASE=@%d/database", "LoadCredential=master.key:/etc/kwai/master.key", "Environment=KWAI_MASTER_KEY_FILE=%d/master.key", "#LoadCredential=bus:/etc/kwai/bus"} {
		if !strings.Contains(text, "\n"+line+"\n") {
			w.t.Errorf("the unit doesn't have %s", line)
		}
	}
	w.onPostgres()
}

// changeKey runs a step of changing the master key, until the server has the file's
// lines and all keys are sealed under the first.
func (w *operator) changeKey(file, block string, lines int) {
	w.t.Helper()
	w.sh(block)
	if n := bytes.Count(readFile(w.t, filepath.Join(w.root, file)), []byte("\n")); n != lines {
		w.t.Errorf("%s has %d lines", file, n)
	}
	if out := w.must(`find "$0" -perm /077`, file); out != "" {
		w.t.Errorf("others can read %s", out)
	}
	w.must(`until kwai key list --json >keys && ! grep -E '"master_key": *"(older|none|unknown)"' keys; do sleep 0.05; done`)
}

// newRole has an empty database that is kwai's.
func (w *operator) newRole() {
	w.t.Helper()
	w.dropRole()
	w.sql("postgres", `CREATE ROLE kwai LOGIN PASSWORD '`+rolePassword+`'`)
	w.sql("postgres", `CREATE DATABASE kwai OWNER kwai ENCODING 'UTF8' TEMPLATE template0`)
}

func (w *operator) log(block string) {
	w.must("systemctl stop kwai")
	cmd := w.command(w.t.Context(), "", strings.Replace(w.there(block), "\nsetpriv", "\nexec setpriv", 1))
	if err := cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	w.ready()
	w.rotated(cmd, func() {})
}

func (w *operator) ready() {
	w.t.Helper()
	w.must(`until curl -sf -o ready "http://$ADDRESS/readyz"; do sleep 0.01; done`)
}

// rotated ends the server, and has its log have grown after something was done.
func (w *operator) rotated(cmd *exec.Cmd, between func()) {
	w.t.Helper()
	w.server.get("/nowhere", "")
	between()
	_ = cmd.Process.Signal(syscall.SIGTERM)
	if err := cmd.Wait(); err != nil {
		w.t.Error(err)
	}
	if text := string(readFile(w.t, filepath.Join(w.root, "var/log/kwai/kwai.log"))); !strings.Contains(text, `"msg":"stopped"`) || strings.Contains(text, "\x00") {
		w.t.Errorf("the log doesn't go on: %q", text)
	}
}

func (w *operator) rotate(block string) {
	w.write("logrotate.conf", w.there(block)+"\n")
	cmd := w.command(w.t.Context(), "", `exec kwai serve --config etc/kwai/kwai.toml 2>>var/log/kwai/kwai.log`)
	if err := cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	w.ready()
	w.rotated(cmd, func() { w.must(`logrotate --force --state "$ROOT/rotated" logrotate.conf`) })
	if out := w.must(`gunzip --stdout var/log/kwai/kwai.log.1.gz`); !strings.Contains(out, `"route":"none"`) {
		w.t.Errorf("the old log:\n%s", out)
	}
}

var (
	optional = regexp.MustCompile(` \[([^\]]*)\]`)
	variable = regexp.MustCompile(`(\.?[A-Z]{2,}|\b[A-Z])(,…|…)?`)
)

// synopsis runs each line without what stands in brackets, and with each of that.
func (w *operator) synopsis(block string) {
	w.t.Helper()
	w.must(`systemctl start kwai`)
	for line := range strings.Lines(block) {
		line, _, _ = strings.Cut(strings.TrimSpace(line), "  #")
		line, _, _ = strings.Cut(line, "   #")
		plain := optional.ReplaceAllString(line, "")
		all := []string{plain}
		for _, m := range optional.FindAllStringSubmatch(line, -1) {
			for i, choice := range strings.Split(m[1], "|") {
				if i > 0 && !strings.Contains(choice, "--") { // --since TIME|DURATION
					choice = m[1][:strings.LastIndex(strings.Split(m[1], "|")[0], " ")+1] + strings.TrimSpace(choice)
				}
				all = append(all, plain+" "+strings.TrimSpace(choice))
			}
		}
		for _, command := range all {
			w.usage(command)
		}
	}
}

// usage runs a command whose words in capitals stand for something.
func (w *operator) usage(command string) {
	w.t.Helper()
	defer w.mails.Refuse(0)
	email := w.account()
	stdin := good + "\n"
	switch {
	case strings.Contains(command, "--hash-stdin"):
		stdin = bcryptHash + "\n"
	case strings.Contains(command, "--secret-stdin"):
		stdin = strings.Repeat("secret", 6) + "\n"
	}
	command = variable.ReplaceAllStringFunc(command, func(word string) string {
		w.t.Helper()
		switch strings.Trim(word, ",…") {
		case "CODE":
			return "nl"
		case "EMAIL", "NEW":
			*w.made++
			return fmt.Sprintf("new%d@example.org", *w.made)
		case "USER":
			if strings.HasPrefix(command, "kwai user invite") {
				w.must(`kwai user create "$0"`, "invited-"+email)
				return "invited-" + email
			}
			return email
		case "F", "L", "TEXT", "NAME":
			return "Ann"
		case "URI", "URL":
			return "https://app.example.org/"
		case "GROUP":
			*w.made++
			group := fmt.Sprintf("group%d", *w.made)
			if !strings.HasPrefix(command, "kwai group create") {
				w.must(`kwai group create "$0"`, group)
			}
			return group
		case "APP":
			*w.made++
			app := fmt.Sprintf("app%d", *w.made)
			w.must(`kwai app create App --redirect-uri=https://app.example.org/ --id="$0"`, app)
			return app
		case "FILE":
			w.write("users.jsonl", fmt.Sprintf(`{"email": "imported-%s"}`+"\n", email))
			return "users.jsonl"
		case "TIME":
			day := -1
			if strings.Contains(command, "--until") {
				day = 1
			}
			return time.Now().UTC().AddDate(0, 0, day).Format(time.DateOnly)
		case "DURATION":
			return "1h"
		case "ADDRESS":
			if strings.HasPrefix(command, "kwai mail") {
				return "somebody@example.org"
			}
			return "127.0.0.0/8"
		case "KIND":
			return "session.opened,user.created"
		case "ID":
			if strings.HasPrefix(command, "kwai app") {
				*w.made++
				return fmt.Sprintf("app%d", *w.made)
			}
			return w.id(command, email)
		}
		w.t.Fatalf("%s: what is %s?", command, word)
		return ""
	})
	if strings.Contains(command, "--follow") {
		w.follow(command, email)
		return
	}
	_, err := w.run(w.t.Context(), stdin, command)
	if err != nil && strings.HasPrefix(command, "kwai key rotate") && strings.Contains(err.Error(), "There is a next ") {
		err = nil // by the line before
	}
	if err != nil {
		w.t.Error(err)
	}
}

// account makes one that has a session.
func (w *operator) account() (email string) {
	w.t.Helper()
	*w.made++
	email = fmt.Sprintf("user%d@example.org", *w.made)
	if _, err := w.run(w.t.Context(), good, `kwai user create "$0" --first-name Ann --password-stdin`, email); err != nil {
		w.t.Fatal(err)
	}
	w.server.login(email)
	return email
}

// id is one that the command can take: a session's, a key's, a waiting mail's.
func (w *operator) id(command, email string) string {
	w.t.Helper()
	list := map[string]string{
		"session": `kwai session list "$0" --json`,
		"key":     `kwai key list --json`,
		"mail":    `kwai mail list --json`,
	}[strings.Fields(command)[1]]
	if strings.HasPrefix(command, "kwai mail") {
		w.mails.Refuse(550) // until the command has been run
		w.server.post("recover", "", "email", email)
	}
	var found []struct{ ID string }
	for len(found) == 0 {
		if err := json.Unmarshal([]byte(w.must(list, email)), &found); err != nil {
			w.t.Fatal(err)
		}
	}
	return found[len(found)-1].ID
}

// follow runs a command that goes on until it is interrupted.
func (w *operator) follow(command, email string) {
	w.t.Helper()
	said := newTranscript()
	cmd := w.command(w.t.Context(), "", "exec "+command)
	cmd.Stdout, cmd.Stderr = said, os.Stderr
	if err := cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	for said.String() == "" {
		w.server.login(email)
		pass(w.t.Context(), 50*time.Millisecond)
	}
	_ = cmd.Process.Signal(os.Interrupt)
	if err := cmd.Wait(); err != nil {
		w.t.Errorf("%s: %v", command, err)
	}
}
