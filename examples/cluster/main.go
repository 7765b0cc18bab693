// Command cluster runs kwai as a cluster on this machine, to try one: PostgreSQL, NATS
// with JetStream, replicas and a load balancer, with a demo account. It prints where
// everything is and lines to paste. SIGINT or SIGTERM ends it; then nothing of it is
// left. Start it by scripts/cluster.
package main

import (
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"kwai/internal/testing/cluster"
	"kwai/internal/testing/pgcluster"
)

const demoUser = "demo@example.org"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	context.AfterFunc(ctx, stop) // a second signal ends the program at once
	err := run(ctx, os.Args[1:], os.Stdout)
	switch {
	case errors.Is(err, flag.ErrHelp):
	case err != nil:
		fmt.Fprintln(os.Stderr, "cluster:", err)
		os.Exit(1)
	}
}

type options struct {
	replicas int
	listen   string
	folder   string
	localBus bool
	check    time.Duration
}

func parse(args []string) (o options, err error) {
	flags := flag.NewFlagSet("cluster", flag.ContinueOnError)
	flags.IntVar(&o.replicas, "replicas", 3, "how many servers of kwai, 1 to 32")
	flags.StringVar(&o.listen, "listen", "127.0.0.1:8080", "address of the load balancer, on loopback")
	flags.StringVar(&o.folder, "folder", "", "an empty folder, into which all goes, and which is removed at the end; default: a new one")
	flags.BoolVar(&o.localBus, "local-bus", false, "without NATS")
	flags.DurationVar(&o.check, "check-timeout", time.Second, "how long a replica may take to say that it is ready; longer on a busy machine")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	if flags.NArg() > 0 {
		return o, fmt.Errorf("%q is too much: see --help", flags.Arg(0))
	}
	if o.check <= 0 {
		return o, fmt.Errorf("--check-timeout: %v is not above 0", o.check)
	}
	if o.replicas < 1 || o.replicas > 32 {
		return o, fmt.Errorf("--replicas: %d is not between 1 and 32", o.replicas)
	}
	address, err := netip.ParseAddrPort(o.listen)
	if err != nil || !address.Addr().IsLoopback() {
		return o, fmt.Errorf("--listen: %q is not an address on loopback such as 127.0.0.1:8080", o.listen)
	}
	return o, nil
}

// run runs a cluster until ctx ends.
func run(ctx context.Context, args []string, out io.Writer) (err error) {
	o, err := parse(args)
	if o.folder != "" { // by the script, with this program in it
		defer func() { err = errors.Join(err, os.RemoveAll(o.folder)) }()
	}
	if err != nil {
		return err
	}
	if err := pgcluster.Available(); err != nil {
		return err
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", o.listen)
	if err != nil {
		return fmt.Errorf("%w (choose another address by --listen)", err)
	}
	defer listener.Close()
	s := site{options: o, out: out, url: "http://" + listener.Addr().String(), password: strings.ToLower(rand.Text()[:16])}
	if s.folder, err = ownFolder(o.folder); err != nil {
		return err
	}
	if o.folder == "" {
		defer func() { err = errors.Join(err, os.RemoveAll(s.folder)) }()
	}

	if err := s.start(ctx); err != nil {
		if ctx.Err() != nil {
			return errors.New("interrupted")
		}
		return err
	}
	defer func() {
		fmt.Fprintln(out, "stopping the replicas, then the rest")
		err = errors.Join(err, s.cluster.Stop())
	}()
	return s.serve(ctx, listener)
}

// ownFolder is a folder that nothing else uses, since it will be removed. A named folder
// may hold this program.
func ownFolder(folder string) (string, error) {
	if folder == "" {
		return os.MkdirTemp("", "kwai-cluster-")
	}
	folder, err := filepath.Abs(folder)
	if err != nil {
		return "", err
	}
	entries, err := os.ReadDir(folder)
	if err != nil {
		return "", fmt.Errorf("--folder: %w", err)
	}
	program, _ := os.Executable() // "" is in no folder
	for _, e := range entries {
		if filepath.Join(folder, e.Name()) != program {
			return "", fmt.Errorf("--folder: %s is not empty, and it will be removed at the end", folder)
		}
	}
	return folder, nil
}

// site is the cluster with what is printed about it.
type site struct {
	options
	out      io.Writer
	url      string // of the balancer
	password string // of the demo account
	cluster  *cluster.Cluster
}

// start builds kwai, starts the cluster and makes the demo account.
func (s *site) start(ctx context.Context) error {
	fmt.Fprintln(s.out, "building kwai")
	program, err := cluster.Build(ctx, s.folder)
	if err != nil {
		return err
	}
	fmt.Fprintln(s.out, "starting all of it")
	if s.cluster, err = cluster.Start(ctx, cluster.Options{
		Program: program, Folder: s.folder, Replicas: s.replicas, LocalBus: s.localBus,
		Flags: []string{"--public-url=" + s.url, "--limits=on", "--log-level=info"},
		Log:   func(i int) (io.Writer, error) { return os.Create(s.log(i)) },
	}); err != nil {
		return err
	}
	if _, err = s.cluster.Kwai.CreateUser(ctx, demoUser, "Demo", "User", s.password); err != nil {
		return errors.Join(err, s.cluster.Stop())
	}
	return nil
}

func (s *site) log(i int) string { return filepath.Join(s.folder, fmt.Sprintf("replica-%d.log", i+1)) }

// watch sends which part has ended, until ctx ends.
func (s *site) watch(ctx context.Context) <-chan string {
	ended := make(chan string)
	wait := func(part string, done <-chan struct{}) {
		select {
		case <-done:
		case <-ctx.Done():
			return
		}
		select {
		case ended <- part:
		case <-ctx.Done():
		}
	}
	for i, r := range s.cluster.Replicas {
		go wait(fmt.Sprintf("replica %d (process %d, %s) has ended: the others go on", i+1, r.PID(), r.Address), r.Done())
	}
	go wait("PostgreSQL has ended: what needs it gets 503", s.cluster.Postgres.Done())
	return ended
}

// serve balances requests until ctx ends, and prints which part ends before.
func (s *site) serve(ctx context.Context, listener net.Listener) error {
	balancer := cluster.NewBalancer(s.cluster.Addresses()...)
	balancer.CheckTimeout = s.check
	balancer.Check(ctx)
	watching, stopWatching := context.WithCancel(context.WithoutCancel(ctx))
	defer stopWatching()
	go balancer.Watch(watching)
	server := &http.Server{
		Handler:           balancer,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       20 * time.Second,
		WriteTimeout:      40 * time.Second, // after the balancer gave up
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
	}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()
	if err := s.introduce(); err != nil {
		return err
	}
	ended := s.watch(watching)
	for {
		select {
		case part := <-ended:
			fmt.Fprintln(s.out, part)
		case err := <-failed:
			return err
		case <-ctx.Done():
			ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
			defer cancel()
			return errors.Join(server.Shutdown(ending), server.Close())
		}
	}
}
