// Package load drives kwai from outside, as its clients do: by its command
// line, by HTTP and by what Linux tells of its processes. The programs under
// bench are made of it.
//
// A program that uses it begins with [BareMain], since the bare handler and the
// bare hash beside which kwai is measured are the program itself, run once more:
//
//	func main() {
//		load.BareMain()
//		…
//
// It builds kwai by package cluster, starts it once so that there is a database, adds accounts
// while no server runs, and opens sessions at a server whose hashes cost next to
// nothing, for at default cost that would take longer than all the rest:
//
//	program, err := cluster.Build(ctx, folder)
//	kwai := cluster.Kwai{Program: program, Folder: filepath.Join(folder, "data")}
//	server, err := kwai.Start(ctx)
//	server.Stop()
//	emails := load.Emails("ann", 100)
//	err = load.AddAccounts(ctx, kwai.DatabaseURL(), emails, load.Hash(load.QuickCost))
//	server, err = kwai.Start(ctx, load.QuickHashes...)
//	sessions, err := load.OpenSessions(ctx, server.Address, emails, 1000)
//	server.Stop()
//
// On PostgreSQL kwai.Database is the URL of a database of the cluster that
// [StartPostgres] starts; where PostgreSQL isn't installed that says
// [ErrNoPostgres]. kwai.Bus is the URL of the server that [StartNATS] starts.
//
// An [Operation] is what is measured; [Drive] does it in a closed loop from
// keep-alive connections and gives [Figures]. The limit that transport and client
// set is measured by the bare handler, which is sent the same request and answers
// as many bytes:
//
//	server, err = kwai.Start(ctx)
//	op := load.Renew(64, sessions)
//	figures, err := load.Drive(ctx, op, 5*time.Second, server.Address)
//	bare, err := load.StartBare(ctx, figures.Last.Size)
//	limit, err := load.Drive(ctx, load.Again(op, figures.Last.Request), 5*time.Second, bare.Address)
//
// [Conn] is the client for whatever is no closed loop, [Dial] opens a connection
// for what is no HTTP. [Measure] and [Watch] say what a process and its
// descendants use, [CPU] what all of them have; they need Linux, all else runs
// wherever kwai does.
//
// The client shares the machine with what it measures, so it is made to be
// cheap: it knows no more of HTTP than these servers send. Figures are those of
// a server that shares the cores with its clients.
package load

import (
	"context"
	"errors"
	"sync"
)

// InParallel runs do(0) to do(n-1) at the same time and joins their errors; if
// ctx has ended meanwhile, its error is the one.
func InParallel(ctx context.Context, n int, do func(i int) error) error {
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { errs[i] = do(i) })
	}
	wg.Wait()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return errors.Join(errs...)
}
