// Package pgcluster runs private PostgreSQL servers, for tests and measurements. Each has
// a folder, a port and a password of its own. Stopping it removes all its data.
//
//	c, err := pgcluster.Start(pgcluster.Options{})
//	if errors.Is(err, pgcluster.ErrNoPrograms) … // PostgreSQL isn't installed
//	defer c.Stop()
//	name, err := c.Create(ctx, "template0")
//	… c.URL(name) …
//
// It needs the server's programs (initdb, postgres), as Debian's package
// postgresql installs them. They are looked for on PATH, then in
// /usr/lib/postgresql/*/bin, the newest first, then where pg_config says; so PATH
// chooses the version. They refuse root, so for root they run as user postgres or
// nobody, which must be able to reach the temporary folder.
//
// What it promises:
//   - A server has PostgreSQL's own default settings, with durable commits, but for
//     Options and the places of its files and sockets.
//   - If the process that started a server is killed, Linux ends the server with
//     it; its folder, some 40 MB, then stays behind.
//   - Only the holder of a URL can log in over TCP, and only the server's own user (and
//     root) over the Unix socket. A superuser open to anybody on the machine would be a
//     way into the developer's account.
package pgcluster

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

	"github.com/jackc/pgx/v5"
)

const superuser = "kwai"

// Options are how clusters differ. The zero value is good.
type Options struct {
	// Settings are of the form name=value, as in postgresql.conf. All others have
	// PostgreSQL's defaults.
	Settings []string
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
// caller must Stop it. It takes about two seconds. The error is that of
// [Available], or holds what the server wrote.
func Start(options Options) (*Cluster, error) {
	programs, err := findPrograms()
	if err != nil {
		return nil, err
	}
	c := &Cluster{programs: programs, options: options, password: rand.Text()}
	if err := c.start(c.initialise); err != nil {
		return nil, fmt.Errorf("pgcluster: start PostgreSQL: %w", errors.Join(err, c.Stop()))
	}
	return c, nil
}

// Standby makes and starts a copy of the cluster that follows it and can only
// be read, until it is promoted by "SELECT pg_promote()". It has the same users
// and databases, and must be stopped, too. The cluster's settings must allow
// standbys, as PostgreSQL's defaults do.
func (c *Cluster) Standby() (*Cluster, error) {
	s := &Cluster{programs: c.programs, options: c.options, password: c.password}
	err := s.start(func() error {
		return s.fill("pg_basebackup", "--pgdata=data", "--no-sync", "--checkpoint=fast", "--write-recovery-conf",
			"--host="+c.dir, "--port="+strconv.Itoa(c.port), "--username="+superuser)
	})
	if err != nil {
		return nil, fmt.Errorf("pgcluster: start a standby: %w", errors.Join(err, s.Stop()))
	}
	return s, nil
}

// start makes the cluster's folder and its data, and starts the server.
func (c *Cluster) start(makeData func() error) error {
	if err := c.makeFolder(); err != nil {
		return err
	}
	if err := makeData(); err != nil {
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

// URL returns the database's URL over TCP, which every client understands. The database
// need not exist.
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
		return fmt.Errorf("pgcluster: restart PostgreSQL: %w", err)
	}
	return nil
}

// Done is closed when the server that runs now has ended, by itself or not.
// After a Restart it is another one.
func (c *Cluster) Done() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.server == nil {
		ended := make(chan struct{})
		close(ended)
		return ended
	}
	return c.server.done
}

func (c *Cluster) makeFolder() (err error) {
	parent := os.TempDir()
	if len(parent) > 64 {
		parent = "/tmp" // the path of a Unix socket has 107 bytes at most: unix(7)
	}
	if c.dir, err = os.MkdirTemp(parent, "kwai-pg-"); err != nil {
		return err
	}
	return c.programs.own(c.dir)
}

// initialise makes the data of an empty cluster.
func (c *Cluster) initialise() error {
	passwordFile := filepath.Join(c.dir, "password")
	if err := os.WriteFile(passwordFile, []byte(c.password), 0o600); err != nil {
		return err
	}
	if err := c.programs.own(passwordFile); err != nil {
		return err
	}
	return c.fill("initdb",
		"--pgdata=data", "--no-sync", "--no-instructions",
		"--encoding=UTF8", "--locale=C.UTF-8", "--lc-messages=C",
		"--username="+superuser, "--pwfile=password",
		"--auth-local=trust", "--auth-host=scram-sha-256",
	)
}

// fill runs a program that makes the data.
func (c *Cluster) fill(program string, args ...string) error {
	runtime.LockOSThread() // as in launch
	defer runtime.UnlockOSThread()
	if out, err := c.programs.command(context.Background(), c.dir, program, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", program, err, out)
	}
	return nil
}

// up starts the server. The caller holds c.mu.
func (c *Cluster) up() error {
	args := []string{"-D", "data"}
	for _, setting := range append([]string{
		"listen_addresses=127.0.0.1",
		"port=" + strconv.Itoa(c.port),
		"unix_socket_directories=" + c.dir,
		"dynamic_shared_memory_type=mmap", // in the folder, so that one that is killed leaves nothing in /dev/shm
	}, c.options.Settings...) {
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
		c.server = nil
	}
	log := server.log.String()
	if strings.Contains(log, "could not bind") {
		return errPortTaken
	}
	return fmt.Errorf("%w\n%s", server.err, log)
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

// Create makes a database as a copy of another, to which nobody is connected,
// and returns its name, one that needs no quotes.
func (c *Cluster) Create(ctx context.Context, template string) (name string, err error) {
	name = fmt.Sprintf("db_%d", c.databases.Add(1))
	c.creating.Lock()
	defer c.creating.Unlock()
	return name, c.Exec(ctx, "CREATE DATABASE "+name+" TEMPLATE "+template)
}

// Exec runs a statement as superuser in database postgres, on a connection of
// its own, by the socket, where there is no password to be checked.
func (c *Cluster) Exec(ctx context.Context, sql string) (err error) {
	conn, err := pgx.Connect(ctx, fmt.Sprintf("host=%s port=%d user=%s dbname=postgres sslmode=disable", c.dir, c.port, superuser))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close(ctx)) }()
	_, err = conn.Exec(ctx, sql)
	return err
}

var errPortTaken = errors.New("the port is used by another program")

// freePort finds a port below the range that Linux uses for outgoing connections (from
// 32768 on). Else a client that tries again while the server is down could get that
// port, and keep it.
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
