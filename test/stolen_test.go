package test

import (
	"bytes"
	"database/sql"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"kwai/internal/store"
	"kwai/internal/testing/cluster"
	"kwai/internal/testing/mailtest"
	"kwai/internal/testing/natstest"
	"kwai/internal/testing/need"
	"kwai/internal/token"
	"kwai/verify"
)

// TestAStolenDatabase does all there is to do and then looks for every secret of
// it in the database, the logs, the events and the metrics; then it tries to get
// in with what the database does hold.
func TestAStolenDatabase(t *testing.T) {
	need.Time(t) // for its hundreds of hashes
	each(t, func(t *testing.T, k cluster.Kwai) {
		mails, queue := mailtest.Serve(t), natstest.Serve(t)
		metrics, err := cluster.FreeAddress(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		s := start(t, k, "--public-url="+publicURL, "--smtp="+mails.URL(), "--bus="+queue.URL(), "--metrics-listen="+metrics,
			"--log-level=debug", "--limits=on", "--limit-mail-pause=0s", "--reuse-window=1s")
		s.flags = []string{"--master-key-file=" + s.masterKey()}
		hidden := secrets{}
		var codes []string    // recovery codes that are left
		var said bytes.Buffer // by commands
		command := func(stdin string, args ...string) {
			t.Helper()
			out, err, code := s.command(stdin, args...)
			if code != 0 {
				t.Fatalf("kwai %v: %s", args, err)
			}
			said.WriteString(out + err)
		}
		do := func(status int, a answer) answer {
			t.Helper()
			if a.Status != status {
				t.Fatalf("got %v, want %d", a, status)
			}
			return a
		}
		login := func(email, password string) answer {
			return s.post("login", "", "username", email, "password", password)
		}
		// Each step is something that handles secrets; what comes new is added here.
		for _, step := range []func(){
			func() {
				for what, password := range map[string]string{
					"the password": good, "a wrong password": "Wrong \"Secret\" ü1", "a password typed as an address": "typed into the wrong field", "a client's secret": "client/Secret+4",
					"a password chosen by a reset": "chosen Secret 5", "a password chosen by its owner": "owned Secret 9", "a password that is refused": "bad\x01Secret 6", "a password set by a command": "commanded Secret 7", "an imported password": "imported Secret 8",
				} {
					hidden.text(what, password)
				}
			},
			func() {
				command(good, "user", "create", "ann@example.org", "--first-name=Ann", "--last-name=Other", "--password-stdin")
				command("", "user", "create", "bob@example.org", "--first-name=Bob", "--last-name=Other")
			},
			func() {
				in := do(200, s.post("login", "", "username", "ann@example.org", "password", good, "client_secret", hidden.plant("a client's secret")))
				hidden.tokens(t, "a login", in)
				do(401, login("ann@example.org", hidden.plant("a wrong password")))
				do(401, login("nobody@example.org", hidden.plant("a wrong password")))
				do(401, login(hidden.plant("a password typed as an address"), "x"))
				do(200, s.get(userPath, in.field("access_token")))
				next := do(200, s.post("access_token", "", "refresh_token", in.field("refresh_token")))
				hidden.tokens(t, "a renewal", next)
				do(200, s.post("logout", next.field("access_token"), "refresh_token", next.field("refresh_token")))
				do(401, s.get(userPath, next.field("access_token")))
			},
			func() { // a replay
				in := do(200, login("ann@example.org", good))
				hidden.tokens(t, "a login that is replayed", in)
				hidden.tokens(t, "a renewal that is replayed", do(200, s.post("access_token", "", "refresh_token", in.field("refresh_token"))))
				s.forgetReplaced()
				do(401, s.post("access_token", "", "refresh_token", in.field("refresh_token")))
			},
			func() { // while mail is away
				mails.Stop()
				do(200, s.post("recover", "", "email", "ann@example.org"))
				s.waitLog(1, "it is tried again")
				mails.Restart()
				n := 0
				for id := ""; id == ""; n++ {
					id = waitMails(t, mails, n+1)[n].RecoveryID()
					if id != "" && mails.Mails()[n].To == "ann@example.org" {
						hidden.id("a recovery", id)
						do(422, s.post("reset", "", "uuid", id, "password", hidden.plant("a password that is refused")))
						do(200, s.post("reset", "", "uuid", id, "password", hidden.plant("a password chosen by a reset")))
					} else if id != "" {
						hidden.id("an invitation", id)
						id = ""
					}
				}
				hidden.tokens(t, "a login after the reset", do(200, login("ann@example.org", hidden.plant("a password chosen by a reset"))))
			},
			func() {
				command(hidden.plant("a password set by a command"), "user", "password", "bob@example.org", "--password-stdin")
				hidden.tokens(t, "bob's login", do(200, login("bob@example.org", hidden.plant("a password set by a command"))))
				command("", "user", "revoke", "bob@example.org")
				command("", "user", "enact", "bob@example.org")
				command("", "user", "list", "--json")
				command("", "mail", "list", "--json")
				command("", "status", "--json")
			},
			func() { // the owner's own hand
				in := do(200, login("ann@example.org", hidden.plant("a password chosen by a reset")))
				hidden.tokens(t, "a login to change the password", in)
				change := func(current string) answer {
					return s.post("password", in.field("access_token"), "password", hidden.plant(current), "new_password", hidden.plant("a password chosen by its owner"))
				}
				do(422, change("a wrong password"))
				do(200, change("a password chosen by a reset"))
			},
			func() { // keys come and go
				keys := s.keys()
				active := keys[slices.IndexFunc(keys, func(k store.Key) bool { return k.Purpose == string(token.Sign) })]
				hidden.keys(t, s)
				command("", "key", "rotate")
				hidden.keys(t, s)
				command("", "key", "revoke", active.ID) // the next takes its place
				hidden.tokens(t, "a login after the rotation", do(200, login("ann@example.org", hidden.plant("a password chosen by its owner"))))
				command("", "key", "list")
			},
			func() {
				codes = s.useFactors(t, hidden, "ann@example.org", hidden.plant("a password chosen by its owner"))
				command("", "user", "factors", "ann@example.org", "--json")
			},
			func() { // those that stay
				hidden.tokens(t, "a session that goes on", do(200, s.post("login", "", "username", "ann@example.org", "password", hidden.plant("a password chosen by its owner"), "otp", codes[0])))
				hidden.id("a recovery that can be used", s.recovery(mails, "ann@example.org"))
			},
			func() { // throttled
				for s.post("login", "", "username", "nobody@example.org", "password", hidden.plant("a wrong password")).Status != http.StatusTooManyRequests {
				}
			},
		} {
			step()
		}

		events := new(bytes.Buffer)
		for _, m := range natstest.Messages(t, queue.JetStream(), "KWAI", 12) {
			fmt.Fprintln(events, m.Subject(), m.Headers(), string(m.Data()))
		}
		scraped, err := request(t.Context(), s.via, "http://"+metrics+"/metrics", "", "")
		if err != nil || scraped.Status != http.StatusOK {
			t.Fatal(scraped, err)
		}
		places := map[string][]byte{"the events": events.Bytes(), "the metrics": scraped.Body, "what commands say": said.Bytes()}
		if path, is := sqlitePath(k.DatabaseURL()); is { // what was deleted, too
			for _, file := range []string{path, path + "-wal"} {
				places[file[strings.LastIndexByte(file, '/')+1:]] = readFile(t, file)
			}
		}
		s.stop() // which writes what waits
		rows := s.dump(t)
		for _, r := range rows {
			places[r.table+"."+r.column] = append(append(places[r.table+"."+r.column], r.value...), 0)
		}
		places["the log"] = []byte(s.log.String())
		written := hidden.written()
		for place, text := range places {
			if found := search(text, written); len(found) > 0 {
				t.Errorf("%s has %q", place, found)
			}
		}
		for _, place := range []string{"users.password_hash", "keys.sealed", "recoveries.id_hash", "audit_log.kind", "attempts.account", "authenticators.secret", "recovery_codes.hash", "passkeys.credential", "the events", "the metrics", "the log"} {
			if len(places[place]) == 0 {
				t.Errorf("nothing was looked at in %s", place)
			}
		}
		s = start(t, k, "--public-url="+publicURL)
		s.nothingLetsIn(t, rows, hidden.plant("a password chosen by its owner"), codes[1])
		s.anotherMasterKeyLetsNobodyIn(t)
	})
}

func sealedFor(purpose, id string) string { return "kwai server key/" + purpose + "/" + id }

// forgetReplaced makes a replay of each token that was replaced so far.
func (s *site) forgetReplaced() {
	s.tb.Helper()
	db := rawDatabase(s.tb, s.kwai.DatabaseURL())
	if _, err := db.ExecContext(s.tb.Context(), `UPDATE sessions SET mark = counter, floor = counter, prior = counter`); err != nil {
		s.tb.Fatal(err)
	}
}

func (s *site) keys() []store.Key {
	s.tb.Helper()
	keys, err := s.open().Read(s.tb.Context()).Keys()
	if err != nil {
		s.tb.Fatal(err)
	}
	return keys
}

// cell is a value of the database, as bytes.
type cell struct {
	table, column string
	value         []byte
}

// dump reads all columns of all tables that the database says it has.
func (s *site) dump(t *testing.T) (cells []cell) {
	t.Helper()
	db := rawDatabase(t, s.kwai.DatabaseURL())
	list := `SELECT table_name FROM information_schema.tables WHERE table_schema = 'public' ORDER BY 1`
	if _, is := sqlitePath(s.kwai.DatabaseURL()); is {
		list = `SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY 1`
	}
	var tables []string
	query(t, db, list, func(_ string, value []byte) { tables = append(tables, string(value)) })
	if len(tables) < 10 {
		t.Fatalf("only these tables: %q", tables)
	}
	for _, table := range tables {
		query(t, db, `SELECT * FROM "`+table+`"`, func(column string, value []byte) { cells = append(cells, cell{table, column, value}) }) //nolint:unqueryvet // all there are
	}
	return cells
}

func query(t *testing.T, db *sql.DB, text string, each func(column string, value []byte)) {
	t.Helper()
	rows, err := db.QueryContext(t.Context(), text)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	columns, err := rows.Columns()
	if err != nil {
		t.Fatal(err)
	}
	values, into := make([]any, len(columns)), make([]any, len(columns))
	for i := range values {
		into[i] = &values[i]
	}
	for rows.Next() {
		if err := rows.Scan(into...); err != nil {
			t.Fatal(err)
		}
		for i, value := range values {
			switch v := value.(type) {
			case nil:
			case []byte:
				each(columns[i], slices.Clone(v))
			default:
				each(columns[i], fmt.Append(nil, v))
			}
		}
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
}

// nothingLetsIn tries all that the database holds as each kind of credential, as
// it stands there, in hex, in base64 and as a UUID. What is a second factor is tried with
// a good password, what is a first one with a good recovery code.
func (s *site) nothingLetsIn(t *testing.T, rows []cell, password, code string) {
	t.Helper()
	tried := make(map[string]bool)
	for _, r := range rows {
		texts := []string{string(r.value), hex.EncodeToString(r.value), base64.RawURLEncoding.EncodeToString(r.value)}
		if len(r.value) >= 16 {
			texts = append(texts, uuid.UUID(r.value[:16]).String())
		}
		for _, text := range texts {
			if text == "" || tried[text] {
				continue
			}
			tried[text] = true
			for what, a := range map[string]answer{
				"password":      s.post("login", "", "username", "ann@example.org", "password", text),
				"refresh token": s.post("access_token", "", "refresh_token", text),
				"recovery's id": s.post("reset", "", "uuid", text, "password", "a thief's own one"),
				"code":          s.post("login", "", "username", "ann@example.org", "password", password, "otp", text),
				"half a login":  s.post("login", "", "auth_session", text, "otp", code),
			} {
				if a.Status == http.StatusOK {
					t.Errorf("%s.%s is taken as a %s: %q", r.table, r.column, what, text)
				}
			}
			if strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r > '~' }) {
				continue // it can't stand in a header
			}
			if a := s.get(userPath, text); a.Status != http.StatusUnauthorized {
				t.Errorf("%s.%s as an access token: %v", r.table, r.column, a)
			}
			if a, err := requestWith(t.Context(), s.via, s.URL+"/account", http.Header{"Cookie": {"__Host-kwai=" + text}}, ""); err != nil || a.Status != http.StatusSeeOther {
				t.Errorf("%s.%s as a cookie: %v, %v", r.table, r.column, a, err)
			}
		}
	}
	if len(tried) < 100 {
		t.Errorf("only %d values were tried", len(tried))
	}
	s.post("login", "", "username", "ann@example.org", "password", password, "otp", code).wants(t, http.StatusOK, "what is good")
}

// anotherMasterKeyLetsNobodyIn: a thief's server doesn't start with a key of its
// own, and what is made with own server keys, under the names of the stolen ones,
// is taken by nobody.
func (s *site) anotherMasterKeyLetsNobodyIn(t *testing.T) {
	t.Helper()
	text := token.NewMasterKey()
	thief := s.kwai
	thief.Folder = t.TempDir()
	if err := os.WriteFile(thief.Folder+"/master.key", []byte(text+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if thief.Database == "" { // one server serves it: a copy
		s.mustCommand("", "backup", thief.Folder+"/kwai.db")
	}
	command, err := thief.Serve(t.Context(), quick...)
	if err != nil {
		t.Fatal(err)
	}
	if out, err := thief.Cmd(t.Context(), command.Args...).CombinedOutput(); err == nil || !strings.Contains(string(out), "master key") {
		t.Errorf("a server with another master key ended with %v: %s", err, out)
	}

	master, err := token.ParseMaster([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	var own []token.Key
	for _, k := range s.keys() {
		key, err := master.NewKey(token.Purpose(k.Purpose), k.CreatedAt)
		if err != nil {
			t.Fatal(err)
		}
		plain, err := master.Open(key.Sealed, sealedFor(k.Purpose, key.ID))
		if err != nil {
			t.Fatal(err)
		}
		key.ID = k.ID
		if key.Sealed, err = master.Seal(plain, sealedFor(k.Purpose, k.ID)); err != nil {
			t.Fatal(err)
		}
		own = append(own, key)
	}
	keys, err := master.OpenKeyring(token.KeyStatuses(own, time.Now(), token.Lifetimes{Sign: time.Hour, MAC: time.Hour}), nil)
	if err != nil {
		t.Fatal(err)
	}
	db := rawDatabase(t, s.kwai.DatabaseURL())
	var session, user, request string
	var counter uint64
	if err := db.QueryRowContext(t.Context(), `SELECT id, user_id, counter FROM sessions WHERE ended_at IS NULL`).Scan(&session, &user, &counter); err != nil {
		t.Fatal(err)
	}
	if err := db.QueryRowContext(t.Context(), `SELECT request_id FROM recoveries WHERE ended_at IS NULL`).Scan(&request); err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	access, err := keys.Sign(verify.Claims{
		Issuer: publicURL, Audience: "kwai", ClientID: "kwai", Subject: user, SessionID: session, ID: uuid.NewString(),
		IssuedAt: now, AuthTime: now, ExpiresAt: now.Add(time.Hour),
	})
	if err != nil {
		t.Fatal(err)
	}
	recovery, err := keys.RecoveryID(keys.RecoveryKey(), request)
	if err != nil {
		t.Fatal(err)
	}
	for what, a := range map[string]answer{
		"an access token": s.get(userPath, access),
		"a refresh token": s.post("access_token", "", "refresh_token", keys.Refresh(uuid.MustParse(session), counter)),
		"a recovery's id": s.post("reset", "", "uuid", recovery, "password", "a thief's own one"),
	} {
		if a.Status != http.StatusUnauthorized && a.Status != http.StatusNotFound {
			t.Errorf("%s made with other keys: %v", what, a)
		}
	}
}
