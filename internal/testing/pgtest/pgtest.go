// Package pgtest gives tests real PostgreSQL databases. No server has to be set up: each
// test process runs a private cluster of its own.
//
// Package pgcluster makes the cluster. It needs PostgreSQL's programs on PATH, or where
// Debian's package postgresql installs them.
//
// A package that uses it hands its tests to [Main]:
//
//	func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }
//
// and a test asks for a database:
//
//	func TestX(t *testing.T) {
//		t.Parallel()
//		url := pgtest.Database(t)
//
// or for a copy of a database that was prepared once, if making the tables takes longer
// than copying them:
//
//	pgtest.Template(t, "migrated", migrate)
//	url := pgtest.FromTemplate(t, "migrated")
//
// What it promises:
//   - The cluster starts at the first use. Main removes it, with its folder, before it
//     returns. If the test process is killed or times out, Linux ends the cluster with
//     it; its folder, some 40 MB, then stays behind.
//   - Each database is new, the test's own, and dropped at the test's end. All
//     functions may be called by parallel tests.
//
// It is made for speed, not for durability: fsync and autovacuum are off, and the tests
// have their temporary files in memory, if there is room (package memory). A test about
// durability, or a test that stops the server, starts a cluster of its own with [Start].
//
// # Without the server's programs
//
// Tests are skipped, so that "go test ./..." works on any machine. A line on standard
// error says so once per process. With a list of packages, the go command hides the
// output of passing packages. So the line and the skips show only with "go test -v", and
// with a plain "go test" in the package's own folder. With KWAI_TEST=all these tests
// fail instead. Results are cached: after installing PostgreSQL, run once with -count=1.
package pgtest

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"testing"

	"kwai/internal/testing/memory"
	"kwai/internal/testing/need"
	"kwai/internal/testing/pgcluster"
)

// Cluster is one running PostgreSQL server.
type Cluster = pgcluster.Cluster

// Options are the ways in which the clusters of tests differ. The zero value is
// what the shared cluster uses.
type Options struct {
	// Fsync makes the server write through to the disk, as in production;
	// without it a crash of the machine (though not of the server) loses data.
	Fsync bool
}

// Start makes and starts a cluster of a test's own, which must stop it. Most
// tests want [Database] instead: a cluster takes about two seconds to make.
func Start(options Options) (*Cluster, error) {
	durable := "off"
	if options.Fsync {
		durable = "on"
	}
	return pgcluster.Start(pgcluster.Options{Settings: []string{
		"fsync=" + durable,
		"full_page_writes=" + durable,
		"max_connections=1000", // parallel tests, each with pools of its own
		"shared_buffers=16MB",
		"wal_level=minimal",
		"max_wal_senders=0",
		"autovacuum=off", // no test lives long enough to profit
		"jit=off",
		"log_checkpoints=off",
	}})
}

// shared is the process's cluster and what was made in it.
var shared struct {
	sync.Mutex
	hasMain   bool
	cluster   *Cluster
	admin     *admin
	err       error
	templates map[string]func() (database string, err error) // prepares it once
}

// Main runs the tests, then ends the cluster if one was started, and returns
// the code to exit with. It is for TestMain.
func Main(m *testing.M) int {
	defer memory.TempDir()()
	shared.Lock()
	shared.hasMain = true
	shared.Unlock()

	code := m.Run()

	shared.Lock()
	defer shared.Unlock()
	if shared.cluster == nil {
		return code
	}
	if err := errors.Join(shared.admin.close(), shared.cluster.Stop()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return max(code, 1)
	}
	return code
}

// Require skips the test if this machine cannot run PostgreSQL, or fails it if
// every test was asked for (package need). [Database], [Template] and [FromTemplate] call it.
func Require(tb testing.TB) {
	tb.Helper()
	if err := pgcluster.Available(); err != nil {
		refuse(tb, err)
	}
}

var sayOnce sync.Once

func refuse(tb testing.TB, why error) {
	tb.Helper()
	sayOnce.Do(func() { fmt.Fprintln(os.Stderr, "Tests on PostgreSQL can't run:", why) })
	need.Missing(tb, why)
}

// Database makes an empty database and returns its URL, of the form
// postgres://user:password@127.0.0.1:port/name?sslmode=disable&connect_timeout=60. The database is
// dropped at the end of the test, even if there are still connections to it.
func Database(tb testing.TB) (url string) {
	tb.Helper()
	// template0, since nothing can be connected to it, nor can have changed it.
	start(tb)
	return database(tb, "template0")
}

// Template makes a database for [FromTemplate] to copy, and calls prepare to fill it.
// Only the first call for a name does so; others wait for it, and fail if it failed. The
// server closes connections that prepare leaves open.
func Template(tb testing.TB, name string, prepare func(url string) error) {
	tb.Helper()
	start(tb)
	shared.Lock()
	if shared.templates[name] == nil {
		shared.templates[name] = sync.OnceValues(func() (string, error) { return template(prepare) })
	}
	shared.Unlock()
	prepared(tb, name)
}

// FromTemplate makes a copy of the database that [Template] prepared under that
// name, and returns its URL. It is as [Database] in all else.
func FromTemplate(tb testing.TB, name string) (url string) {
	tb.Helper()
	start(tb)
	return database(tb, prepared(tb, name))
}

// prepared returns the database behind a template's name.
func prepared(tb testing.TB, name string) (database string) {
	tb.Helper()
	shared.Lock()
	prepare := shared.templates[name]
	shared.Unlock()
	if prepare == nil {
		tb.Fatalf("pgtest: no template %q: call pgtest.Template first", name)
	}
	database, err := prepare()
	if err != nil {
		tb.Fatalf("pgtest: prepare template %q: %v", name, err)
	}
	return database
}

// start starts the process's cluster at the first call.
func start(tb testing.TB) {
	tb.Helper()
	Require(tb)
	shared.Lock()
	defer shared.Unlock()
	if !shared.hasMain {
		tb.Fatal("pgtest: the package needs: func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }")
	}
	if shared.cluster == nil && shared.err == nil {
		if shared.cluster, shared.err = Start(Options{}); shared.err == nil {
			shared.admin = &admin{url: shared.cluster.URL("postgres")}
		}
		shared.templates = make(map[string]func() (string, error))
	}
	if shared.err != nil {
		tb.Fatal(shared.err)
	}
}

// database makes a database for one test.
func database(tb testing.TB, template string) (url string) {
	tb.Helper()
	name, err := shared.admin.create(template)
	if err != nil {
		tb.Fatalf("pgtest: create a database: %v", err)
	}
	tb.Cleanup(func() {
		if err := shared.admin.exec("DROP DATABASE " + name + " WITH (FORCE)"); err != nil {
			tb.Errorf("pgtest: drop the test's database: %v", err)
		}
	})
	return patient(name)
}

// patient is the URL of a database, for as long as a busy machine takes: kwai itself waits
// for a connection for some seconds only.
func patient(name string) string { return shared.cluster.URL(name) + "&connect_timeout=60" }

// template makes a database, prepares it, and closes it to connections: PostgreSQL
// can't copy a database in use.
func template(prepare func(url string) error) (name string, err error) {
	if name, err = shared.admin.create("template0"); err != nil {
		return "", err
	}
	if err := prepare(patient(name)); err != nil {
		return "", err
	}
	if err := shared.admin.exec("ALTER DATABASE " + name + " ALLOW_CONNECTIONS false"); err != nil {
		return "", err
	}
	return name, shared.admin.exec("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '" + name + "'")
}
