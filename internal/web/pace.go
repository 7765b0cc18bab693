package web

import (
	"runtime"
	"time"

	"golang.org/x/time/rate"
)

// Refusals are paced: beyond so many a second for each core, each waits for its
// turn. To refuse a forged token costs next to nothing, and a client that sends
// the next one at once would have the server do little else: logins, which give
// way to everything, would starve. Paced, a flood waits most of the time, however
// many connections it has. Nobody is refused for it, and no answer shows it: a refusal
// waits for refusalWait at most.
const (
	refusalsPerCore = 1000 // a second
	refusalWait     = time.Second
)

func newPace() *rate.Limiter {
	perSecond := refusalsPerCore * runtime.GOMAXPROCS(0)
	return rate.NewLimiter(rate.Limit(perSecond), perSecond/10)
}

// pace waits for a refusal's turn: to the end, for a client that disconnects after
// each request would wait for nothing.
func (s *Server) pace() {
	turn := s.refusals.Reserve()
	wait := turn.Delay()
	if wait > refusalWait {
		turn.Cancel()
		wait = refusalWait
	}
	time.Sleep(wait)
}
