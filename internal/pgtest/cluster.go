package pgtest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	mrand "math/rand/v2"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	superuser = "kwai"

	// Generous, for a loaded machine: a start takes about a second, a
	// statement some milliseconds.
	startTimeout = time.Minute
	stopTimeout  = 30 * time.Second
	adminTimeout = time.Minute
)

// Options are the ways in which clusters differ. The zero value is what the
// shared cluster uses.
type Options struct {
	// Fsync makes the server write through to the disk, as in production;
	// without it a crash of the machine (though not of the server) loses data.
	Fsync bool
}

// Cluster is one running PostgreSQL server with its own folder, port and
// password. It starts with the empty database "postgres". Its methods may be
// called concurrently.
type Cluster struct {
	programs programs
	options  Options
	dir      string
	port     int
	password string

	mu     sync.Mutex // one start or end at a time
	server *server    // nil while down

	creating  sync.Mutex // PostgreSQL refuses two copies of one template at a time
	databases atomic.Int64
}

// Start makes and starts a cluster, ready for connections when it returns. The
// caller must Stop it. Most tests want [Database] instead: a cluster takes
// about two seconds to make. The error is that of [Available], or holds what
// the server wrote.
func Start(options Options) (*Cluster, error) {
	programs, err := findPrograms()
	if err != nil {
		return nil, err
	}
	c := &Cluster{programs: programs, options: options, password: rand.Text()}
	if err := c.start(); err != nil {
		return nil, fmt.Errorf("pgtest: start PostgreSQL: %w", errors.Join(err, c.Stop()))
	}
	return c, nil
}

func (c *Cluster) start() error {
	if err := c.initialise(); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	// A port found free may be taken before the server has it.
	for range 5 {
		port, err := freePort()
		if err != nil {
			return err
		}
		c.port = port
		if err = c.up(); err == nil || !errors.Is(err, errPortTaken) {
			return err
		}
	}
	return errPortTaken
}

// URL returns how to reach the database over TCP: the way that every client
// understands. The database need not exist.
func (c *Cluster) URL(database string) string {
	return (&url.URL{
		Scheme:   "postgres",
		User:     url.UserPassword(superuser, c.password),
		Host:     net.JoinHostPort("127.0.0.1", strconv.Itoa(c.port)),
		Path:     database,
		RawQuery: "sslmode=disable",
	}).String()
}

// Stop ends the server, if it runs, and removes its folder. The cluster cannot
// be used again.
func (c *Cluster) Stop() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	// SIGQUIT is the immediate shutdown: what it would save is removed next.
	err := c.down(syscall.SIGQUIT)
	if c.dir != "" {
		err = errors.Join(err, os.RemoveAll(c.dir))
	}
	return err
}

// Kill ends the server by SIGKILL, as the kernel does when memory runs out, and
// returns when its last process has gone. [Cluster.Restart] brings it back.
func (c *Cluster) Kill() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.down(syscall.SIGKILL)
}

// Restart ends the server in good order if it runs, breaking off its
// connections, and starts it on the same data, with the same URLs.
func (c *Cluster) Restart() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.down(syscall.SIGINT); err != nil { // the fast shutdown
		return err
	}
	if err := c.up(); err != nil {
		return fmt.Errorf("pgtest: restart PostgreSQL: %w", err)
	}
	return nil
}

// initialise makes the cluster's folder and its data.
func (c *Cluster) initialise() (err error) {
	parent := os.TempDir()
	if len(parent) > 64 {
		parent = "/tmp" // the path of a Unix socket has 107 bytes at most: unix(7)
	}
	if c.dir, err = os.MkdirTemp(parent, "kwai-pg-"); err != nil {
		return err
	}
	passwordFile := filepath.Join(c.dir, "password")
	if err := os.WriteFile(passwordFile, []byte(c.password), 0o600); err != nil {
		return err
	}
	for _, path := range []string{c.dir, passwordFile} {
		if err := c.programs.own(path); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	runtime.LockOSThread() // as in launch
	defer runtime.UnlockOSThread()
	out, err := c.programs.command(ctx, c.dir, "initdb",
		"--pgdata=data", "--no-sync", "--no-instructions",
		"--encoding=UTF8", "--locale=C.UTF-8", "--lc-messages=C",
		"--username="+superuser, "--pwfile=password",
		"--auth-local=trust", "--auth-host=scram-sha-256",
	).CombinedOutput()
	if err != nil {
		return fmt.Errorf("initdb: %w\n%s", err, out)
	}
	return nil
}

// up starts the server. The caller holds c.mu.
func (c *Cluster) up() error {
	durable := "off"
	if c.options.Fsync {
		durable = "on"
	}
	args := []string{"-D", "data"}
	for _, setting := range []string{
		"listen_addresses=127.0.0.1",
		"port=" + strconv.Itoa(c.port),
		"unix_socket_directories=" + c.dir,
		"fsync=" + durable,
		"full_page_writes=" + durable,
		"max_connections=300", // parallel tests, each with pools of its own
		"shared_buffers=16MB",
		"wal_level=minimal",
		"max_wal_senders=0",
		"autovacuum=off", // no test lives long enough to profit
		"jit=off",
		"log_checkpoints=off",
	} {
		args = append(args, "-c", setting)
	}
	server, err := launch(c.programs.command(context.Background(), c.dir, "postgres", args...))
	if err != nil {
		return err
	}
	c.server = server
	select {
	case <-server.log.ready:
		return nil
	case <-server.done:
		err = server.err
	case <-time.After(startTimeout):
		err = errors.New("not ready in time")
	}
	err = errors.Join(err, c.down(syscall.SIGKILL))
	log := server.log.String()
	if strings.Contains(log, "could not bind") {
		return errPortTaken
	}
	return fmt.Errorf("%w\n%s", err, log)
}

// down ends the server by a signal. The caller holds c.mu.
func (c *Cluster) down(signal os.Signal) error {
	if c.server == nil {
		return nil
	}
	err := c.server.end(signal)
	c.server = nil
	return err
}

// create makes a database and returns its name, one that needs no quotes.
func (c *Cluster) create(ctx context.Context, template string) (name string, err error) {
	name = fmt.Sprintf("test_%d", c.databases.Add(1))
	c.creating.Lock()
	defer c.creating.Unlock()
	return name, c.admin(ctx, "CREATE DATABASE "+name+" TEMPLATE "+template)
}

// template makes a database, has it prepared, and closes it to connections, for
// one that is being used cannot be copied.
func (c *Cluster) template(prepare func(url string) error) (name string, err error) {
	ctx := context.Background() // it outlives the test that happens to be first
	if name, err = c.create(ctx, "template0"); err != nil {
		return "", err
	}
	if err := prepare(c.URL(name)); err != nil {
		return "", err
	}
	if err := c.admin(ctx, "ALTER DATABASE "+name+" ALLOW_CONNECTIONS false"); err != nil {
		return "", err
	}
	// The second argument waits, up to so many ms, until each has really gone.
	return name, c.admin(ctx, "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = '"+name+"'")
}

// admin runs a statement as superuser on a connection of its own, by the
// socket, where there is no password to be checked.
func (c *Cluster) admin(ctx context.Context, sql string) (err error) {
	ctx, cancel := context.WithTimeout(ctx, adminTimeout)
	defer cancel()
	conn, err := pgx.Connect(ctx, fmt.Sprintf("host=%s port=%d user=%s dbname=postgres sslmode=disable", c.dir, c.port, superuser))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close(ctx)) }()
	_, err = conn.Exec(ctx, sql)
	return err
}

var errPortTaken = errors.New("the port is used by another program")

// freePort finds a port below the range from which Linux takes the ports of
// outgoing connections (32768 on): else a client that tries again and again
// while the server is down could be given that port, and hold it.
func freePort() (int, error) {
	var lc net.ListenConfig
	for range 100 {
		port := 15000 + mrand.IntN(17000) //nolint:gosec // a port is no secret
		l, err := lc.Listen(context.Background(), "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err == nil {
			return port, l.Close()
		}
	}
	return 0, errors.New("no free port found between 15000 and 32000")
}
