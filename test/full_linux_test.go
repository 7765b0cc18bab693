package test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"kwai/internal/testing/cluster"
	"kwai/internal/testing/need"
	"kwai/internal/testing/pgtest"
	"kwai/internal/testing/storetest"
)

// disk is a small disk of its own, whose folder everybody can reach.
func disk(t *testing.T, size string) (dir string) {
	t.Helper()
	need.Root(t, "to mount a small disk")
	dir = t.TempDir()
	err := errors.Join(os.Chmod(filepath.Dir(dir), 0o711), syscall.Mount("kwai", dir, "tmpfs", 0, "size="+size))
	if errors.Is(err, syscall.EPERM) {
		need.Missing(t, fmt.Errorf("a small disk can't be mounted: %w", err)) // root in a container
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// A program that another test starts has all of this process's files for a
		// moment.
		err := syscall.Unmount(dir, 0)
		for errors.Is(err, syscall.EBUSY) {
			err = syscall.Unmount(dir, 0)
		}
		if err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	return dir
}

// fill leaves no room on the disk, until the file that it returns is removed.
func fill(t *testing.T, dir string) (ballast string) {
	t.Helper()
	ballast = filepath.Join(dir, "ballast")
	f, err := os.Create(ballast)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for err == nil {
		_, err = f.Write(make([]byte, 4096))
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	return ballast
}

// until asks for a path until the status is that.
func (s *site) until(path string, status int) answer {
	s.tb.Helper()
	for {
		if a := s.get(path, ""); a.Status == status {
			return a
		}
		pass(s.tb.Context(), 10*time.Millisecond)
	}
}

// metricsOf is what the server behind an address says of itself.
func (s *site) metricsOf(address string) string {
	s.tb.Helper()
	a, err := request(s.tb.Context(), s.via, "http://"+address+"/metrics", "", "")
	if err != nil || a.Status != http.StatusOK {
		s.tb.Fatal(a, err)
	}
	return string(a.Body)
}

var sample = regexp.MustCompile(`(?m)^(kwai_\w+)(?:\{(.*)\})? (\S+)$`)

// firing has promtool say which of deploy/alerts.yaml's alerts fire once what was
// scraped has been so for ten minutes.
func firing(t *testing.T, scraped string) (alerts []string) {
	t.Helper()
	promtool := need.Program(t, "promtool")
	rules, err := filepath.Abs("../deploy/alerts.yaml")
	if err != nil {
		t.Fatal(err)
	}
	series := []map[string]string{{"series": `up{job="kwai",instance="a"}`, "values": "1x15"}}
	for _, m := range sample.FindAllStringSubmatch(scraped, -1) {
		value, err := strconv.ParseFloat(m[3], 64)
		if err != nil {
			t.Fatal(err)
		}
		labels := strings.TrimPrefix(m[2]+`,job="kwai",instance="a"`, ",")
		series = append(series, map[string]string{"series": m[1] + "{" + labels + "}", "values": strconv.FormatFloat(value, 'f', -1, 64) + "x15"})
	}
	// That the answer is wrong, whatever it is, has it be printed.
	text, err := json.Marshal(map[string]any{ // which is YAML
		"rule_files": []string{rules},
		"tests": []any{map[string]any{
			"interval": "1m", "input_series": series,
			"promql_expr_test": []any{map[string]any{
				"expr": `ALERTS{alertstate="firing"}`, "eval_time": "12m",
				"exp_samples": []any{map[string]any{"labels": `{alertname="None"}`, "value": 1}},
			}},
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "test.yaml")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), promtool, "test", "rules", file).CombinedOutput()
	_, got, found := strings.Cut(string(out), "got:")
	if err == nil || !found {
		t.Fatalf("promtool: %v\n%s", err, out)
	}
	for _, m := range regexp.MustCompile(`alertname="(\w+)"`).FindAllStringSubmatch(got, -1) {
		alerts = append(alerts, m[1])
	}
	return alerts
}

func TestAlertRules(t *testing.T) {
	t.Parallel()
	need.Time(t)
	promtool := need.Program(t, "promtool")
	for _, args := range [][]string{{"check", "rules", "../deploy/alerts.yaml"}, {"test", "rules", "../deploy/alerts_test.yaml"}} {
		if out, err := exec.CommandContext(t.Context(), promtool, args...).CombinedOutput(); err != nil {
			t.Errorf("promtool %v: %v\n%s", args, err, out)
		}
	}
}

// What deploy/grafana.json asks Prometheus for can be asked.
func TestDashboard(t *testing.T) {
	t.Parallel()
	need.Time(t)
	promtool := need.Program(t, "promtool")
	var dashboard struct {
		UID    string
		Panels []struct {
			ID      int
			Type    string
			Title   string
			GridPos struct{ H, W, X, Y int }
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(readFile(t, "../deploy/grafana.json"), &dashboard); err != nil {
		t.Fatal(err)
	}
	var rules []any
	ids, rows := map[int]bool{}, map[string]bool{}
	for _, p := range dashboard.Panels {
		place := fmt.Sprintf("%d %d", p.GridPos.X, p.GridPos.Y)
		if ids[p.ID] || rows[place] || p.GridPos.X+p.GridPos.W > 24 {
			t.Errorf("%q isn't in a place of its own", p.Title)
		}
		ids[p.ID], rows[place] = true, true
		if (p.Type == "row") != (len(p.Targets) == 0) {
			t.Errorf("%q shows nothing", p.Title)
		}
		for _, target := range p.Targets {
			expr := strings.NewReplacer("$__rate_interval", "5m", "$instance", ".+").Replace(target.Expr)
			rules = append(rules, map[string]string{"record": fmt.Sprintf("panel:%d:%d", p.ID, len(rules)), "expr": expr})
		}
	}
	if len(rules) < 50 {
		t.Fatalf("it asks for %d things only", len(rules))
	}
	text, err := json.Marshal(map[string]any{"groups": []any{map[string]any{"name": "dashboard", "rules": rules}}})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "rules.yaml")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), promtool, "check", "rules", file).CombinedOutput(); err != nil {
		t.Errorf("promtool: %v\n%s", err, out)
	}
}

// unwritable has a server whose database can't be written from when begin is
// called until end is: it says so as soon as one request failed for it, by
// /readyz, its metrics and the alerts, and finds out by itself when it is over.
func unwritable(t *testing.T, k cluster.Kwai, begin, end func(s *site)) {
	t.Helper()
	metrics, err := cluster.FreeAddress(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s := start(t, k, "--metrics-listen="+metrics)
	s.user("ann@example.org", good)
	access := s.login("ann@example.org").field("access_token")
	s.get("/readyz", "").wants(t, http.StatusOK, "readiness at first")
	if alerts := firing(t, s.metricsOf(metrics)); len(alerts) != 0 {
		t.Errorf("alerts at first: %q", alerts)
	}

	begin(s)
	for s.post("login", "", "username", "ann@example.org", "password", good).Status != http.StatusServiceUnavailable {
		// There is some room in what the database has already.
	}
	for range 3 {
		s.until("/readyz", http.StatusServiceUnavailable)
		s.get(userPath, access).wants(t, http.StatusOK, "a check of a token meanwhile")
		s.post("login", "", "username", "ann@example.org", "password", good).wants(t, http.StatusServiceUnavailable, "a login meanwhile")
	}
	scraped := s.metricsOf(metrics)
	for _, line := range []string{"kwai_database_writable 0", "kwai_database_up 1"} {
		if !strings.Contains(scraped, "\n"+line+"\n") {
			t.Errorf("the metrics don't say %q", line)
		}
	}
	if alerts := firing(t, scraped); !slices.Equal(alerts, []string{"KwaiNotWritable"}) {
		t.Errorf("alerts: %q", alerts)
	}
	s.waitLog(1, "nothing can be written: /readyz says so until it can be")

	end(s)
	s.until("/readyz", http.StatusOK) // though nobody writes anything
	if scraped := s.metricsOf(metrics); !strings.Contains(scraped, "\nkwai_database_writable 1\n") {
		t.Error("the metrics don't say that it can be written again")
	}
	s.login("ann@example.org")
	s.stop()
}

func TestServerOnAFullDisk(t *testing.T) {
	t.Parallel()
	need.Time(t)
	need.Program(t, "promtool")
	t.Run("sqlite", func(t *testing.T) {
		t.Parallel()
		dir := disk(t, "8m")
		k := install(t, "")
		k.Folder = filepath.Join(dir, "data")
		var ballast string
		unwritable(t, k, func(*site) { ballast = fill(t, dir) }, func(*site) { remove(t, ballast) })
	})
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		dir := disk(t, "40m")
		// A cluster of its own: while its disk is full, no checkpoint of any database
		// in it succeeds.
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
		admin := rawDatabase(t, pg.URL("postgres"))
		exec := func(statement string) {
			t.Helper()
			if _, err := admin.ExecContext(t.Context(), statement); err != nil {
				t.Fatalf("%s: %v", statement, err)
			}
		}
		var data string
		if err := admin.QueryRowContext(t.Context(), `SELECT current_setting('data_directory')`).Scan(&data); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(data)
		if err != nil {
			t.Fatal(err)
		}
		space := filepath.Join(dir, "space")
		owner := info.Sys().(*syscall.Stat_t)
		if err := errors.Join(os.Mkdir(space, 0o700), os.Chown(space, int(owner.Uid), int(owner.Gid))); err != nil {
			t.Fatal(err)
		}
		exec(`CREATE TABLESPACE small LOCATION '` + space + `'`)
		exec(`CREATE DATABASE small TEMPLATE template0 TABLESPACE small`)
		var ballast string
		unwritable(t, install(t, patient(pg.URL("small"))),
			func(*site) { ballast = fill(t, dir) }, func(*site) { remove(t, ballast) })
	})
}

// A database that is there and takes no writes, as after a failover, or where who
// runs it holds its users to a quota.
func TestServerOnAReadOnlyDatabase(t *testing.T) {
	t.Parallel()
	need.Time(t)
	need.Program(t, "promtool")
	for _, code := range []string{"25006", "42501"} {
		t.Run(code, func(t *testing.T) {
			t.Parallel()
			k := install(t, patient(storetest.Postgres(t)))
			exec := func(statement string) func(*site) {
				return func(s *site) {
					for _, table := range []string{"sessions", "users", "meta", "attempts"} {
						if _, err := rawDatabase(t, k.Database).ExecContext(t.Context(), fmt.Sprintf(statement, table)); err != nil {
							t.Fatal(err)
						}
					}
				}
			}
			exec(`CREATE OR REPLACE FUNCTION failing_%s() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'by the test' USING ERRCODE = '` + code + `'; END $$`)(nil)
			unwritable(t, k, exec(`CREATE TRIGGER failing BEFORE INSERT OR UPDATE ON %[1]s EXECUTE FUNCTION failing_%[1]s()`), exec(`DROP TRIGGER failing ON %s`))
		})
	}
}

func remove(t *testing.T, file string) {
	t.Helper()
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
}

// A disk that fails in other ways: each write, or each sync, has an error.
func TestServerOnABrokenDisk(t *testing.T) {
	t.Parallel()
	need.Time(t)
	need.Root(t, "to trace a server that runs")
	need.Program(t, "promtool")
	strace := requireStrace(t)
	for _, fault := range []string{"pwrite64:error=EIO", "pwrite64:error=EROFS", "fsync,fdatasync:error=EIO"} {
		t.Run(fault, func(t *testing.T) {
			t.Parallel()
			var tracer *exec.Cmd
			begin := func(s *site) {
				calls, _, _ := strings.Cut(fault, ":")
				said := newTranscript()
				tracer = exec.CommandContext(t.Context(), strace, "--follow-forks", "--attach="+strconv.Itoa(s.server.PID()), "--output="+os.DevNull,
					"--trace="+calls, "--inject="+fault)
				tracer.Stderr = said
				if err := tracer.Start(); err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = tracer.Process.Kill() })
				for !strings.Contains(said.String(), "attached") {
					if strings.Contains(said.String(), "not permitted") {
						need.Missing(t, fmt.Errorf("strace: %s", said))
					}
					pass(t.Context(), 10*time.Millisecond)
				}
			}
			unwritable(t, install(t, ""), begin, func(*site) {
				_ = tracer.Process.Signal(os.Interrupt)
				_ = tracer.Wait() // it ends by the signal
			})
		})
	}
}
