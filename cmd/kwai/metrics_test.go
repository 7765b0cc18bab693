package main

import (
	"bufio"
	"context"
	"database/sql"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"kwai/internal/testing/docpages"
	"kwai/internal/testing/mailtest"
	"kwai/internal/testing/storetest"
	"kwai/internal/token"
)

// watched are flags for a server whose metrics are looked at.
var watched = []string{"--metrics-listen=127.0.0.1:0"}

var metricsAddress = regexp.MustCompile(`"msg":"serving metrics","address":"([^"]+)"`)

// scrape asks for the metrics and returns their text, "" where too many do.
func (s *site) scrape() string {
	s.tb.Helper()
	r, err := http.NewRequestWithContext(s.tb.Context(), http.MethodGet, "http://"+metricsAddress.FindStringSubmatch(s.log.String())[1]+"/metrics", nil)
	if err != nil {
		s.tb.Fatal(err)
	}
	res, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		s.tb.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK && res.StatusCode != http.StatusServiceUnavailable {
		s.tb.Fatal(res.Status, err)
	}
	if res.StatusCode == http.StatusServiceUnavailable {
		return "" // others scrape
	}
	return string(text)
}

// samples are a scrape's values, by their names and labels as they stand there.
func samples(text string) map[string]float64 {
	found := map[string]float64{}
	for line := range strings.Lines(text) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), "} "); ok && !strings.HasPrefix(line, "#") {
			found[name+"}"], _ = strconv.ParseFloat(value, 64)
		} else if name, value, ok := strings.Cut(strings.TrimSpace(line), " "); ok && !strings.HasPrefix(line, "#") {
			found[name], _ = strconv.ParseFloat(value, 64)
		}
	}
	return found
}

// underWay are what is waited for: a request may be counted a moment after its
// answer, and mail goes out in the background.
var underWay = []string{"kwai_http_requests_in_flight", "kwai_hashing_workers_busy", `kwai_outbox_waiting{subscriber="mail"}`}

// wantSamples holds the metrics against these values, once those of what is under
// way are as they should be, and returns all.
func (s *site) wantSamples(want map[string]float64) (all map[string]float64) {
	s.tb.Helper()
	first := map[string]float64{underWay[0]: 0}
	for _, name := range underWay {
		if value, ok := want[name]; ok {
			first[name] = value
		}
	}
	s.awaitSamples(first)
	all = samples(s.scrape())
	if diff := cmp.Diff(want, picked(all, want)); diff != "" {
		s.tb.Errorf("the metrics (+) are not as they should be (-):\n%s", diff)
	}
	return all
}

// awaitSamples waits until the metrics have these values.
func (s *site) awaitSamples(want map[string]float64) {
	s.tb.Helper()
	for !maps.Equal(picked(samples(s.scrape()), want), want) {
		time.Sleep(10 * time.Millisecond) // a scrape tells nobody when the next one differs
	}
}

// picked are those of all that are wanted.
func picked(all, want map[string]float64) map[string]float64 {
	got := map[string]float64{}
	for name := range want {
		if value, ok := all[name]; ok {
			got[name] = value
		}
	}
	return got
}

// sampleEach adds samples of one name, by the values of its labels.
func sampleEach(into map[string]float64, format string, values map[string]float64) {
	for labels, n := range values {
		into[fmt.Sprintf(format, labels)] = n
	}
}

func TestMetricsCountWhatHappened(t *testing.T) {
	withMail(t, func(t *testing.T, s *site, mails *mailtest.Server) {
		s.user("ann@example.org", good)
		id := s.recovery(mails, "ann@example.org")
		in := s.login("ann@example.org")
		stolen := s.login("ann@example.org")
		other := s.login("ann@example.org")
		s.post("login", "", "username", "ann@example.org", "password", "not the password").problem(t, 401)
		s.post("login", "", "username", "nobody@example.org", "password", good).problem(t, 401)

		renew := func(token string, status int) {
			t.Helper()
			if a := s.post("access_token", "", "refresh_token", token); a.Status != status {
				t.Fatalf("a renewal: %v, want %d", a, status)
			}
		}
		renew(in.field("refresh_token"), 200)
		renew(in.field("refresh_token"), 200)
		renew("nonsense", 401)
		renew(stolen.field("refresh_token"), 200)
		s.forgetReplaced()
		renew(stolen.field("refresh_token"), 401)
		renew(stolen.field("refresh_token"), 401)
		s.post("logout", other.field("access_token"), "refresh_token", "nonsense").problem(t, 404)
		s.post("logout", other.field("access_token"), "refresh_token", other.field("refresh_token"))

		s.recover("nobody@example.org")
		s.post("reset", "", "uuid", "nonsense", "password", good).problem(t, 404)
		s.post("reset", "", "uuid", id, "password", "short").problem(t, 422, "password")
		s.post("reset", "", "uuid", id, "password", "a tatami by the sea")
		s.send("BREW", "/api/v1/auth/login", "", "", "").problem(t, 405)
		s.send("HEAD", "/healthz", "", "", "")
		s.get("/nowhere", "").problem(t, 404)
		waitMails(t, mails, 3)

		want := map[string]float64{
			"kwai_recoveries_total":                                                            1,
			`kwai_hashing_seconds_count{kind="argon2id"}`:                                      6,
			`kwai_hashing_seconds_count{kind="bcrypt"}`:                                        0,
			"kwai_hashing_wait_seconds_count":                                                  6,
			"kwai_hashing_workers_busy":                                                        0,
			"kwai_hashing_waiting":                                                             0,
			`kwai_events_delivered_total{subscriber="mail"}`:                                   3,
			`kwai_events_failed_total{subscriber="mail"}`:                                      0,
			`kwai_events_dropped_total{subscriber="mail"}`:                                     0,
			`kwai_outbox_waiting{subscriber="mail"}`:                                           0,
			`kwai_outbox_dead{subscriber="mail"}`:                                              0,
			`kwai_outbox_oldest_seconds{subscriber="mail"}`:                                    0,
			"kwai_database_up":                                                                 1,
			"kwai_database_writable":                                                           1,
			"kwai_master_key_file_usable":                                                      1,
			"kwai_database_unavailable_total":                                                  0,
			"kwai_http_requests_in_flight":                                                     0,
			"kwai_http_connections_limit":                                                      4096,
			"kwai_http_connections_displaced_total":                                            0,
			`kwai_keys{purpose="mac"}`:                                                         1,
			`kwai_keys{purpose="sign"}`:                                                        1,
			`kwai_http_request_seconds_count{route="/healthz"}`:                                1,
			`kwai_http_request_seconds_count{route="none"}`:                                    1,
			`kwai_http_requests_total{method="GET",route="none",status="404"}`:                 1,
			`kwai_http_requests_total{method="HEAD",route="/healthz",status="200"}`:            1,
			`kwai_http_requests_total{method="GET",route="/healthz",status="500"}`:             0,
			`kwai_http_requests_total{method="other",route="/api/v1/auth/login",status="405"}`: 1,
		}
		sampleEach(want, "kwai_logins_total{outcome=%q}", map[string]float64{"ok": 3, "refused": 2, "busy": 0, "unavailable": 0, "abandoned": 0, "error": 0})
		sampleEach(want, "kwai_renewals_total{outcome=%q}", map[string]float64{"renewed": 2, "reused": 1, "replayed": 1, "refused": 2, "busy": 0, "unavailable": 0, "abandoned": 0, "error": 0})
		sampleEach(want, "kwai_logouts_total{outcome=%q}", map[string]float64{"ok": 1, "refused": 1, "unavailable": 0, "abandoned": 0, "error": 0})
		sampleEach(want, "kwai_recovery_requests_total{outcome=%q}", map[string]float64{"ok": 2, "busy": 0, "unavailable": 0, "abandoned": 0, "error": 0})
		sampleEach(want, "kwai_resets_total{outcome=%q}", map[string]float64{"ok": 1, "refused": 1, "invalid": 1, "busy": 0, "unavailable": 0, "abandoned": 0, "error": 0})
		sampleEach(want, "kwai_mails_total{outcome=%q}", map[string]float64{"sent": 3, "failed": 0, "refused": 0, "full": 0, "overtaken": 0})
		sampleEach(want, "kwai_hashing_refused_total{reason=%q}", map[string]float64{"queue_full": 0, "waited_too_long": 0, "worker_lost": 0})
		for endpoint, statuses := range map[string]map[string]float64{
			"login":        {"200": 3, "401": 2, "500": 0, "503": 0},
			"access_token": {"200": 3, "401": 3},
			"logout":       {"200": 1, "404": 1},
			"recover":      {"200": 2},
			"reset":        {"200": 1, "404": 1, "422": 1},
		} {
			sampleEach(want, `kwai_http_requests_total{method="POST",route="/api/v1/auth/`+endpoint+`",status=%q}`, statuses)
		}
		all := s.wantSamples(want)
		if n := all["kwai_database_transactions_total"]; n < 10 {
			t.Errorf("%v transactions", n)
		}
		// Those whose function refused something are in a batch, too.
		if n := all["kwai_database_batch_transactions_sum"]; !s.onPostgres() && n < all["kwai_database_transactions_total"] {
			t.Errorf("%v transactions were committed in batches, of %v", n, all["kwai_database_transactions_total"])
		}
		for _, name := range []string{"ann", "@example.org", id, in.field("refresh_token")} {
			if strings.Contains(s.scrape(), name) {
				t.Errorf("the metrics tell of %s", name)
			}
		}
	}, watched...)
}

func (s *site) onPostgres() bool { return strings.HasPrefix(s.Database, "postgres") }

// forgetReplaced makes a replay of each token that was replaced so far.
func (s *site) forgetReplaced() {
	s.tb.Helper()
	s.exec(`UPDATE sessions SET mark = counter, floor = counter, prior = counter`)
}

// expireMail has all mail that waits expire, and come to its turn.
func (s *site) expireMail() {
	s.tb.Helper()
	s.exec(`UPDATE events SET expires_at = created_at`)
	s.exec(`UPDATE deliveries SET due_at = 0`)
}

// exec changes the site's database past kwai.
func (s *site) exec(statement string) {
	s.tb.Helper()
	driver, name := "pgx", s.Database
	if path, ok := strings.CutPrefix(name, "sqlite://"); ok {
		driver, name = "sqlite", "file:"+path+"?_pragma=busy_timeout(600000)"
	}
	db, err := sql.Open(driver, name)
	if err != nil {
		s.tb.Fatal(err)
	}
	defer db.Close()
	if _, err := db.ExecContext(s.tb.Context(), statement); err != nil {
		s.tb.Fatal(err)
	}
}

func TestMetricsTellOfMailThatWaits(t *testing.T) {
	withMail(t, func(t *testing.T, s *site, mails *mailtest.Server) {
		mails.Stop()
		s.user("ann@example.org", good)
		s.recover("ann@example.org")
		s.log.wait(t, 1, triedAgain)
		all := s.wantSamples(map[string]float64{`kwai_outbox_waiting{subscriber="mail"}`: 1, `kwai_outbox_dead{subscriber="mail"}`: 0})
		if age := all[`kwai_outbox_oldest_seconds{subscriber="mail"}`]; age <= 0 || age > time.Since(begun).Seconds() {
			t.Errorf("it has waited for %v s", age)
		}
		s.expireMail()
		s.log.wait(t, 1, givenUp)
		all = s.wantSamples(map[string]float64{
			`kwai_outbox_waiting{subscriber="mail"}`:         0,
			`kwai_outbox_dead{subscriber="mail"}`:            1,
			`kwai_outbox_oldest_seconds{subscriber="mail"}`:  0,
			`kwai_events_delivered_total{subscriber="mail"}`: 0,
			`kwai_events_dropped_total{subscriber="mail"}`:   1,
		})
		if failed := all[`kwai_events_failed_total{subscriber="mail"}`]; failed < 1 || failed != all[`kwai_mails_total{outcome="failed"}`] {
			t.Errorf("%v attempts failed, %v mails", failed, all[`kwai_mails_total{outcome="failed"}`])
		}
	}, watched...)
}

// A mail that waits for its own mailbox makes no other one late: who is woken for
// old mail is woken for a mail server.
func TestMailToALostMailboxIsNotOld(t *testing.T) {
	for _, refusal := range []struct {
		name, text, outcome string
		code                int
	}{
		{"gone", "- no such user", "refused", 550},
		{"gone, by its code", "5.1.1 no such user", "refused", 550},
		{"full", "5.2.2 over quota", "full", 552},
		{"full for now", "4.2.2 over quota", "full", 452},
		{"refused sender", "5.7.1 go away", "failed", 550},
		{"greylisted", "4.7.1 later", "failed", 451},
	} {
		t.Run(refusal.name, func(t *testing.T) {
			withMail(t, func(t *testing.T, s *site, mails *mailtest.Server) {
				mails.RefuseAt(mailtest.RcptTo, refusal.code, refusal.text)
				s.user("ann@example.org", good)
				s.recover("ann@example.org")
				s.log.wait(t, 1, triedAgain)
				all := s.wantSamples(map[string]float64{`kwai_outbox_waiting{subscriber="mail"}`: 1})
				if old := all[`kwai_outbox_oldest_seconds{subscriber="mail"}`]; (old > 0) != (refusal.outcome == "failed") {
					t.Errorf("a mail is said to have waited for %v s", old)
				}
				for _, outcome := range []string{"refused", "full", "failed"} {
					if n := all[`kwai_mails_total{outcome="`+outcome+`"}`]; (n > 0) != (outcome == refusal.outcome) {
						t.Errorf("%v mails are counted as %s", n, outcome)
					}
				}
			}, watched...)
		})
	}
}

func TestMetricsTellOfTheMasterKeyFile(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "master.key")
	good, bad := []byte(token.NewMasterKey()+"\n"), []byte("nothing\n")
	write := func(text []byte) {
		t.Helper()
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(good)
	s := start(t, "sqlite://"+filepath.Join(t.TempDir(), "kwai.db"), append([]string{"--master-key-file=" + file}, watched...)...)
	s.awaitSamples(map[string]float64{"kwai_master_key_file_usable": 1})
	write(bad)
	s.awaitSamples(map[string]float64{"kwai_master_key_file_usable": 0})
	write(good)
	s.awaitSamples(map[string]float64{"kwai_master_key_file_usable": 1})
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	s.awaitSamples(map[string]float64{"kwai_master_key_file_usable": 0})

	// Another one first seals the keys anew, which fails.
	s.awaitSamples(map[string]float64{`kwai_key_changes_failed_total{step="seal"}`: 0, `kwai_key_changes_failed_total{step="make"}`: 0})
	s.exec(`CREATE TRIGGER failing BEFORE UPDATE ON keys BEGIN SELECT RAISE(ABORT, 'by the test'); END`)
	write([]byte(token.NewMasterKey() + "\n" + string(good)))
	s.awaitSamples(map[string]float64{"kwai_master_key_file_usable": 1, `kwai_key_changes_failed_total{step="seal"}`: 1, `kwai_key_changes_failed_total{step="make"}`: 0})
}

func TestMetricsTellOfBackups(t *testing.T) {
	t.Parallel()
	s := start(t, storetest.SQLite(t), watched...)
	s.awaitSamples(map[string]float64{"kwai_backup_timestamp_seconds": 0})
	before := time.Now().Truncate(time.Second)
	for _, name := range []string{"first.db", "second.db"} {
		s.mustCommand("", "backup", filepath.Join(t.TempDir(), name))
		if at := samples(s.scrape())["kwai_backup_timestamp_seconds"]; at < float64(before.Unix()) || at > float64(time.Now().Unix()) {
			t.Errorf("the %s was made at %v", name, at)
		}
	}
}

// begun is when the tests did.
var begun = time.Now()

// allowed are the values that labels can have.
var allowed = map[string]*regexp.Regexp{
	"route":      regexp.MustCompile(`^(none|/(healthz|readyz|recover|sent|reset|done|login(/(code|enrol|passkey(/options)?))?|passkey\.js|logout|out|gone|account(/(profile|email|email/confirm|password|security(/(app|codes|remove|two-steps))?|passkeys(/(options|remove))?|sessions|apps|activity|data|data\.json|delete))?|consent|oauth2/(authorize|token|userinfo|revoke|logout)|\.well-known/(openid-configuration|oauth-authorization-server)|\{\$\}|\.well-known/change-password|style\.css|logo|openapi\.yaml|\.well-known/jwks\.json|api/v1/auth/(login|logout|access_token|recover|reset|user|password|sessions(/\{id\})?)))$`),
	"method":     regexp.MustCompile(`^(GET|HEAD|POST|DELETE|OPTIONS|other)$`),
	"status":     regexp.MustCompile(`^[2345]\d\d$`),
	"outcome":    regexp.MustCompile(`^[a-z]+$`),
	"reason":     regexp.MustCompile(`^[a-z_]+$`),
	"kind":       regexp.MustCompile(`^(argon2id|bcrypt)$`),
	"subscriber": regexp.MustCompile(`^(mail|nats)$`),
	"state":      regexp.MustCompile(`^(in_use|idle)$`),
	"purpose":    regexp.MustCompile(`^(sign|mac|decoy|id|seal)$`),
	"step":       regexp.MustCompile(`^(make|seal)$`),
	"table":      regexp.MustCompile(`^[a-z_]+$`),
	"engine":     regexp.MustCompile(`^(sqlite|postgres)$`),
	"version":    regexp.MustCompile(``), "goversion": regexp.MustCompile(``), "revision": regexp.MustCompile(``),
	"le": regexp.MustCompile(`^(\+Inf|[0-9.]+)$`),
}

func TestClientsChooseNoLabels(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		for _, method := range []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "get", "Evil", "evil-" + strings.Repeat("x", 2000), "!#$%&'*+"} {
			for _, path := range []string{
				"/", "/evil", "/api/v1/auth/login", "/api/v1/auth/login?evil=1", "/api/v1/auth/evil", "/api/v1/auth/login/", "/Healthz", "/healthz/../evil", "//evil//",
				"/%00", "/%ff%fe", "/evil%22%7D%201", "/evil%0akwai_x%201", "/{name}", "/none", "/" + strings.Repeat("evil/", 500), "/dev/mail/evil",
			} {
				s.raw(method, path, "Host: evil.example\r\nOrigin: https://evil.example\r\nAccess-Control-Request-Method: EVIL\r\nUser-Agent: evil\r\n")
			}
		}
		text := s.scrape()
		if strings.Contains(strings.ToLower(text), "evil") {
			t.Error("what a client sent is in the metrics")
		}
		label := regexp.MustCompile(`(\w+)="((?:[^"\\]|\\.)*)"`)
		series := 0
		for name := range samples(text) {
			if !strings.HasPrefix(name, "kwai_") {
				continue
			}
			series++
			for _, m := range label.FindAllStringSubmatch(name, -1) {
				if values := allowed[m[1]]; values == nil || !values.MatchString(m[2]) {
					t.Errorf("%s: the label %s is not one that can be", name, m[0])
				}
			}
		}
		if series < 100 || series > 1200 { // a dozen of each route and method
			t.Errorf("there are %d series", series)
		}
		problems, err := promlint.New(strings.NewReader(text)).Lint()
		if err != nil {
			t.Error(err)
		}
		for _, p := range problems {
			if strings.HasPrefix(p.Metric, "kwai_") {
				t.Errorf("%s: %s", p.Metric, p.Text)
			}
		}
	}, watched...)
}

// raw sends a request that net/http's client would not.
func (s *site) raw(method, path, headers string) {
	s.tb.Helper()
	conn, err := (&net.Dialer{}).DialContext(s.tb.Context(), "tcp", strings.TrimPrefix(s.URL, "http://"))
	if err != nil {
		s.tb.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "%s %s HTTP/1.1\r\n%sConnection: close\r\n\r\n", method, path, headers)
	res, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	if err != nil {
		s.tb.Fatal(err)
	}
	res.Body.Close()
}

// A database that is away, or that says nothing any more, keeps nobody from
// seeing so: scrapes are answered meanwhile, and all else with a 503.
func TestMetricsWithoutADatabase(t *testing.T) {
	t.Parallel()
	way := newWay(t, storetest.Postgres(t))
	s := start(t, way.far, append([]string{"--smtp=smtp://127.0.0.1:1"}, watched...)...)
	s.user("ann@example.org", good)
	in := s.login("ann@example.org")
	s.awaitSamples(map[string]float64{"kwai_database_up": 1, `kwai_outbox_waiting{subscriber="mail"}`: 0})

	without := func(why string) {
		t.Helper()
		all := samples(s.scrape())
		if up, ok := all["kwai_database_up"]; up != 0 || !ok {
			t.Errorf("%s: kwai_database_up is %v, %v", why, up, ok)
		}
		if _, ok := all[`kwai_outbox_waiting{subscriber="mail"}`]; ok {
			t.Errorf("%s: the outbox can't be known", why)
		}
		if _, ok := all[`kwai_logins_total{outcome="ok"}`]; !ok {
			t.Errorf("%s: the rest isn't there", why)
		}
	}
	way.silence()
	without("a silent database")
	way.speak()
	s.awaitSamples(map[string]float64{"kwai_database_up": 1})
	way.close()
	without("a database that has gone")
	access, refresh := in.field("access_token"), in.field("refresh_token")
	for what, a := range map[string]answer{
		"login":            s.post("login", "", "username", "ann@example.org", "password", good),
		"renewal":          s.post("access_token", "", "refresh_token", refresh),
		"logout":           s.post("logout", access, "refresh_token", refresh),
		"recover":          s.post("recover", "", "email", "ann@example.org"),
		"recover, unknown": s.post("recover", "", "email", "nobody@example.org"),
		"reset":            s.post("reset", "", "uuid", "6f1c1f0e-5b0a-4f9e-8f0e-3a2b1c0d9e8f", "password", good),
		"user":             s.get(userPath, access),
		"readiness":        s.get("/readyz", ""),
	} {
		if a.Status != http.StatusServiceUnavailable {
			t.Errorf("%s while the database is away: %v, want 503", what, a)
		}
		if a.Header.Get("Retry-After") == "" {
			t.Errorf("%s while the database is away: no Retry-After", what)
		}
	}
	if a := s.get("/healthz", ""); a.Status != http.StatusOK {
		t.Errorf("/healthz while the database is away: %v", a)
	}
	if samples(s.scrape())["kwai_database_unavailable_total"] == 0 {
		t.Error("nothing was unavailable")
	}
	way.open()
	s.awaitSamples(map[string]float64{"kwai_database_up": 1, `kwai_outbox_waiting{subscriber="mail"}`: 0})
	if a := s.get(userPath, access); a.Status != http.StatusOK {
		t.Errorf("once the database is back: %v", a)
	}
}

// way is one to a database, which can be made to pass nothing on, as if the
// database's host had gone, and to break off and refuse all, as if the database had.
type way struct {
	far  string       // the database's URL, this way
	gate sync.RWMutex // locked while nothing is passed on

	mu     sync.Mutex
	closed bool
	conns  []net.Conn
}

func newWay(t *testing.T, database string) *way {
	t.Helper()
	u, err := url.Parse(database)
	if err != nil {
		t.Fatal(err)
	}
	near := u.Host
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	u.Host = l.Addr().String()
	w := &way{far: u.String()}
	var all sync.WaitGroup
	t.Cleanup(func() { l.Close(); w.close(); all.Wait() })
	all.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			server, err := (&net.Dialer{}).DialContext(context.Background(), "tcp", near)
			if err != nil || !w.keep(client, server) {
				client.Close()
				continue
			}
			all.Go(func() { w.pass(client, server) })
			all.Go(func() { w.pass(server, client) })
		}
	})
	return w
}

// keep notes an open connection; false if there is to be none.
func (w *way) keep(client, server net.Conn) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		server.Close()
		return false
	}
	w.conns = append(w.conns, client, server)
	return true
}

func (w *way) pass(to, from net.Conn) {
	defer to.Close()
	b := make([]byte, 64<<10)
	for {
		n, err := from.Read(b)
		w.gate.RLock()
		_, _ = to.Write(b[:n])
		w.gate.RUnlock()
		if err != nil {
			return
		}
	}
}

func (w *way) silence() { w.gate.Lock() }
func (w *way) speak()   { w.gate.Unlock() }

func (w *way) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	for _, c := range w.conns {
		c.Close()
	}
	w.conns = nil
}

func (w *way) open() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = false
}

func TestFloodsOfScrapesAreBounded(t *testing.T) {
	t.Parallel()
	s := start(t, storetest.SQLite(t), watched...)
	var all sync.WaitGroup
	for range 100 {
		all.Go(func() {
			conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", metricsAddress.FindStringSubmatch(s.log.String())[1])
			if err != nil {
				t.Error(err)
				return
			}
			t.Cleanup(func() { conn.Close() }) // it reads nothing until then
			fmt.Fprint(conn, "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\nGET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
		})
	}
	all.Wait()
	s.awaitSamples(map[string]float64{"kwai_database_up": 1})
}

// A name that merely leads to this machine (DNS rebinding) shows nothing: neither
// metrics nor profiles, nor what isn't there.
func TestMetricsAreServedToOwnNamesOnly(t *testing.T) {
	t.Parallel()
	for listen, hosts := range map[string]map[string]bool{
		"127.0.0.1": {
			"": true, "localhost": true, "LOCALHOST:1": true, "127.0.0.1": true, "127.9.9.9:80": true, "[::1]:9090": true,
			"evil.example": false, "evil.example:9090": false, "127.0.0.1.evil.example": false, "localhost.evil.example": false,
			"192.0.2.1": false, "[2001:db8::1]:80": false, "0.0.0.0": false, "[::]": false, "2130706433": false, "0x7f.1": false,
			"127.0.0.1@evil.example": false, "evil.example#localhost": false,
		},
		// The address that the connection came in on is tried below it.
		"":          {"": true, "localhost": true, "evil.example": false, "192.0.2.1": false, "[::ffff:127.0.0.1]": true},
		"localhost": {"": true, "localhost": true, "evil.example": false},
	} {
		s := start(t, storetest.SQLite(t), "--metrics-listen="+listen+":0")
		_, port, _ := net.SplitHostPort(metricsAddress.FindStringSubmatch(s.log.String())[1])
		for host, served := range hosts {
			for path, status := range map[string]int{"/metrics": 200, "/debug/pprof/": 200, "/debug/pprof/heap?debug=1": 200, "/debug/pprof/cmdline": 404, "//metrics": 404, "/": 404} {
				if path == "//metrics" && served {
					continue // ServeMux's own business
				}
				r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://127.0.0.1:"+port+path, nil)
				if err != nil {
					t.Fatal(err)
				}
				if r.Host = host; host == "" {
					r.Host = "127.0.0.1:" + port
				}
				res, err := http.DefaultTransport.RoundTrip(r)
				if err != nil {
					t.Fatal(err)
				}
				text, _ := io.ReadAll(res.Body)
				res.Body.Close()
				if !served {
					status = http.StatusMisdirectedRequest
				}
				if res.StatusCode != status {
					t.Errorf("listening on %q, asked for %s at %q: %s, want %d", listen, path, host, res.Status, status)
				}
				if !served && (strings.Count(string(text), "\n") != 1 || !strings.Contains(string(text), "--metrics-listen")) {
					t.Errorf("it doesn't say what to do: %s", text)
				}
			}
		}
	}
}

// Beyond loopback, the name listened on and the address of the connection are its
// own names, too.
func TestOwnNamesOfMetrics(t *testing.T) {
	t.Parallel()
	own := &net.TCPAddr{IP: net.IPv4(192, 0, 2, 7), Port: 9090} // as 4-in-6
	link := &net.TCPAddr{IP: net.ParseIP("fe80::7"), Zone: "eth0", Port: 9090}
	for _, tt := range []struct {
		host, listen string
		local        net.Addr
		want         bool
	}{
		{"192.0.2.7:9090", ":9090", own, true},
		{"192.0.2.7", "0.0.0.0:9090", own, true},
		{"[::ffff:192.0.2.7]:9090", ":9090", own, true},
		{"192.0.2.8:9090", ":9090", own, false},
		{"[fe80::7]:9090", "[::]:9090", link, true},
		{"[fe80::8]:9090", "[::]:9090", link, false},
		{"kwai:9090", "kwai:9090", own, true},
		{"KWAI", "kwai:9090", own, true},
		{"kwai.evil.example", "kwai:9090", own, false},
		{"", ":9090", own, false},
		{":9090", ":9090", own, false},
		{"kwai", ":9090", own, false},
		{"kwai", ":9090", nil, false},
	} {
		if got := isMetricsHost(tt.host, tt.listen, tt.local); got != tt.want {
			t.Errorf("%q, listening on %q at %v: %v", tt.host, tt.listen, tt.local, got)
		}
	}
}

// What docs/operating.md and deploy/alerts.yaml say of metrics is so, and
// nothing is left out.
func TestMetricsAreDocumented(t *testing.T) {
	t.Parallel()
	there := map[string]bool{}
	a := newAuthority(t)
	a.issue(1)
	flags := append(slices.Clone(watched), append(a.flags(), "--public-url=https://auth.example.org")...)
	for _, database := range []string{storetest.SQLite(t), storetest.Postgres(t)} {
		for _, m := range regexp.MustCompile(`(?m)^# TYPE (kwai_\w+) `).FindAllStringSubmatch(start(t, database, flags...).scrape(), -1) {
			there[m[1]] = true
		}
	}
	if len(there) < 30 {
		t.Fatal("metrics are missing:", there)
	}
	section := docpages.Section(docpages.Read(t, "docs/operating.md"), "Watching it")
	documented := map[string]bool{}
	for _, row := range regexp.MustCompile("(?m)^\\| (`kwai_[^|]*)\\|").FindAllStringSubmatch(section, -1) {
		for _, m := range regexp.MustCompile("`(kwai_\\w+)`").FindAllStringSubmatch(row[1], -1) {
			documented[m[1]] = true
		}
	}
	if diff := cmp.Diff(there, documented); diff != "" {
		t.Errorf("the table in docs/operating.md (+) is not what there is (-):\n%s", diff)
	}
	alerts := docpages.Read(t, "deploy/alerts.yaml")
	named := func(file string) map[string]bool {
		names := map[string]bool{}
		for _, name := range regexp.MustCompile(`\bkwai_\w+`).FindAllString(docpages.Read(t, file), -1) {
			if base := regexp.MustCompile(`_(bucket|sum|count)$`).ReplaceAllString(name, ""); there[base] {
				name = base
			}
			names[name] = true
			if !there[name] {
				t.Errorf("%s names %s, which isn't there", file, name)
			}
		}
		return names
	}
	named("deploy/alerts.yaml")
	if diff := cmp.Diff(there, named("deploy/grafana.json")); diff != "" {
		t.Errorf("deploy/grafana.json (+) doesn't show what there is (-):\n%s", diff)
	}
	tried := docpages.Read(t, "deploy/alerts_test.yaml")
	for _, m := range regexp.MustCompile(`- alert: (\w+)`).FindAllStringSubmatch(alerts, -1) {
		if !strings.Contains(section, "`"+m[1]+"`") {
			t.Errorf("docs/operating.md says nothing of the alert %s", m[1])
		}
		if !strings.Contains(tried, `"`+m[1]+`"`) {
			t.Errorf("deploy/alerts_test.yaml doesn't try the alert %s", m[1])
		}
	}
}
