package password

import "context"

// DefaultWorkers is under test with made-up machines.
var DefaultWorkers = defaultWorkers

// Blocklist is the list as embedded, for a look-up of every line.
var Blocklist = blocklist

// Occupy has a worker run work: tests hold workers with it for as long as they
// like, which no hash does.
func (p *Pool) Occupy(ctx context.Context, work func()) error {
	return p.do(ctx, func(*worker) { work() })
}
