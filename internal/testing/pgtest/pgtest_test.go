package pgtest_test

import (
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"kwai/internal/testing/pgtest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }

func connect(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	// Left open: the database's end must not depend on it.
	return conn
}

func exec(t *testing.T, url, sql string) {
	t.Helper()
	if _, err := connect(t, url).Exec(t.Context(), sql); err != nil {
		t.Fatal(err)
	}
}

func query(t *testing.T, url, sql string) (value string) {
	t.Helper()
	if err := connect(t, url).QueryRow(t.Context(), sql).Scan(&value); err != nil {
		t.Fatal(err)
	}
	return value
}

const countTables = `SELECT count(*)::text FROM pg_class WHERE relnamespace = 'public'::regnamespace`

func TestDatabaseIsFreshAndDropped(t *testing.T) {
	t.Parallel()
	var urls []string
	for range 2 {
		t.Run("", func(t *testing.T) {
			url := pgtest.Database(t)
			if got := query(t, url, countTables); got != "0" {
				t.Fatalf("a fresh database has %s tables", got)
			}
			exec(t, url, "CREATE TABLE mark (n int)")
			urls = append(urls, url)
		})
	}
	for _, url := range urls {
		if _, err := pgx.Connect(t.Context(), url); err == nil {
			t.Errorf("%s outlived its test", url)
		}
	}
}

func TestSettings(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	for setting, want := range map[string]string{
		"fsync":              "off",
		"synchronous_commit": "on",
		"server_encoding":    "UTF8",
		"max_connections":    "1000",
	} {
		if got := query(t, url, "SHOW "+setting); got != want {
			t.Errorf("%s is %s, want %s", setting, got, want)
		}
	}
}

func TestPasswordIsAskedFor(t *testing.T) {
	t.Parallel()
	config, err := pgx.ParseConfig(pgtest.Database(t))
	if err != nil {
		t.Fatal(err)
	}
	config.Password = "wrong"
	if _, err := pgx.ConnectConfig(t.Context(), config); err == nil {
		t.Error("anybody on this machine can log in")
	}
}

func TestCopiesAreIndependent(t *testing.T) {
	t.Parallel()
	for i := range 8 {
		t.Run("", func(t *testing.T) {
			t.Parallel()
			pgtest.Template(t, "copies", func(url string) error {
				conn, err := pgx.Connect(t.Context(), url) // left open on purpose
				if err != nil {
					return err
				}
				_, err = conn.Exec(t.Context(), "CREATE TABLE mark (n int); INSERT INTO mark VALUES (-1)")
				return err
			})
			begin := time.Now()
			url := pgtest.FromTemplate(t, "copies")
			t.Logf("copied in %v", time.Since(begin))
			exec(t, url, fmt.Sprintf("INSERT INTO mark VALUES (%d)", i))
			got := query(t, url, "SELECT string_agg(n::text, ' ' ORDER BY n) FROM mark")
			if want := fmt.Sprintf("-1 %d", i); got != want {
				t.Errorf("the copy holds %q, want %q", got, want)
			}
		})
	}
}

// recorder is a test that notes how it was ended. What is embedded is nil: any
// other call is a bug.
type recorder struct {
	testing.TB
	end, text string
}

type ended struct{}

func (r *recorder) Helper() {}

func (r *recorder) Skip(args ...any) {
	r.end, r.text = "skipped", fmt.Sprint(args...)
	panic(ended{})
}

func (r *recorder) Fatalf(format string, args ...any) {
	r.end, r.text = "failed", fmt.Sprintf(format, args...)
	panic(ended{})
}

func record(f func(testing.TB)) (r *recorder) {
	r = &recorder{}
	defer func() {
		if p := recover(); p != nil && p != (ended{}) {
			panic(p)
		}
	}()
	f(r)
	return r
}

func TestRefusalDependsOnTheEnvironment(t *testing.T) {
	for _, c := range []struct{ all, want string }{{"", "skipped"}, {"some", "skipped"}, {"all", "failed"}} {
		t.Setenv("KWAI_TEST", c.all)
		r := record(func(tb testing.TB) { pgtest.Refuse(tb, errors.New("this line is from pgtest's own test")) })
		if r.end != c.want {
			t.Errorf("with KWAI_TEST=%q the test was %q (%s), want %s", c.all, r.end, r.text, c.want)
		}
	}
}

func TestFailedTemplateFailsEachUser(t *testing.T) {
	t.Parallel()
	pgtest.Require(t)
	calls := 0
	prepare := func(string) error { calls++; return errors.New("no such table") }
	for range 2 {
		r := record(func(tb testing.TB) { pgtest.Template(tb, "broken", prepare) })
		if want := `pgtest: prepare template "broken": no such table`; r.text != want {
			t.Errorf("got %q, want %q", r.text, want)
		}
	}
	if calls != 1 {
		t.Errorf("prepared %d times", calls)
	}
}
