package main

import (
	"time"

	"kwai/bench/internal/load"
)

// clientCores tells how many cores this program, the flood and the honest
// clients, takes from then until the result is called; 0 where that isn't known.
func clientCores() func() float64 {
	began, before := time.Now(), ownCPU()
	return func() float64 { return (ownCPU() - before).Seconds() / time.Since(began).Seconds() }
}

func ownCPU() time.Duration {
	own, _, _ := load.CPU() // 0
	return own
}
