package password_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"kwai/internal/password"
)

// clients hash without a pause, from so many connections of a network, for so
// many accounts; the result counts.
func clients(ctx context.Context, p *password.Pool, network string, connections, accounts int) *atomic.Int64 {
	var done atomic.Int64
	for i := range connections {
		ctx := password.InTurn(ctx, network, fmt.Sprint(network, i%accounts))
		go func() {
			for ctx.Err() == nil {
				if p.Occupy(ctx, func() { time.Sleep(20 * time.Millisecond) }) == nil {
					done.Add(1)
				}
			}
		}()
	}
	return &done
}

// inTenSeconds is how much the honest network, of 16 connections, does
// beside floods of other networks.
func inTenSeconds(t *testing.T, o password.Options, floods ...[2]int) (honest, flooded int64) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		p := newPool(t, o)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		var all []*atomic.Int64
		for i, f := range floods {
			all = append(all, clients(ctx, p, fmt.Sprint("flood", i), f[0], f[1]))
		}
		synctest.Wait() // they come first
		of := clients(ctx, p, "honest", 16, 256)
		<-ctx.Done()
		synctest.Wait()
		honest = of.Load()
		for _, n := range all {
			flooded += n.Load()
		}
		time.Sleep(time.Second) // what is held back
	})
	return honest, flooded
}

func TestNetworksTakeTurns(t *testing.T) {
	t.Parallel()
	o := password.Options{Workers: 2}
	alone, _ := inTenSeconds(t, o)
	for _, tt := range []struct {
		name   string
		floods [][2]int // connections, accounts
		least  int64    // percent
	}{
		{"64 of as many accounts", [][2]int{{64, 64}}, 80},
		{"64 of 20 accounts", [][2]int{{64, 20}}, 80},
		{"500 of as many accounts", [][2]int{{500, 500}}, 80},
		{"more than the queue holds", [][2]int{{1500, 1500}}, 80},
		{"one account", [][2]int{{1, 1}}, 80},
		{"twice one account", [][2]int{{2, 1}}, 80},
		{"five times one account", [][2]int{{5, 1}}, 80},
		{"five times each of four accounts", [][2]int{{20, 4}}, 80},
		{"sixteen times each of four accounts", [][2]int{{64, 4}}, 80},
		{"two floods", [][2]int{{64, 64}, {64, 64}}, 80},
		{"as many of as many accounts", [][2]int{{16, 16}}, 45},
	} {
		honest, flooded := inTenSeconds(t, o, tt.floods...)
		if honest < alone*tt.least/100 {
			t.Errorf("beside %s: %d of %d, want %d %%", tt.name, honest, alone, tt.least)
		}
		if flooded == 0 {
			t.Errorf("beside %s: nothing is left for it", tt.name)
		}
		if honest+flooded < alone*99/100 {
			t.Errorf("beside %s: %d and %d are less than %d: a worker rests", tt.name, honest, flooded, alone)
		}
	}
}

// Whoever fills the queue is dropped from it, and not who comes next.
func TestAFullQueueHasRoomForOtherNetworks(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPool(t, password.Options{Workers: 1, MaxQueue: 3})
		release := occupy(t, p)
		var waiting []<-chan error
		for range 3 {
			waiting = append(waiting, wait(password.InTurn(t.Context(), "flood", ""), p))
		}
		other := wait(password.InTurn(t.Context(), "other", ""), p)
		begun := time.Now()
		if err := <-waiting[2]; !errors.Is(err, password.ErrBusy) {
			t.Errorf("the latest of the flood: %v, want ErrBusy", err)
		}
		if waited := time.Since(begun); waited != time.Second {
			t.Errorf("it was refused after %v, want a second", waited)
		}
		release()
		if err := errors.Join(<-other, <-waiting[0], <-waiting[1]); err != nil {
			t.Error(err)
		}
	})
}

// A network that asks seldom is served before those that ask all the time.
func TestARareNetworkIsNext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPool(t, password.Options{Workers: 1})
		ctx, cancel := context.WithCancel(t.Context())
		for i := range 8 {
			clients(ctx, p, fmt.Sprint("flood", i), 64, 64)
		}
		for range 5 {
			time.Sleep(3 * time.Second)
			begun := time.Now()
			if err := p.Occupy(password.InTurn(ctx, "seldom", ""), func() {}); err != nil {
				t.Fatal(err)
			}
			if waited := time.Since(begun); waited > 9*20*time.Millisecond {
				t.Errorf("it waited for %v, want a turn of each network at most", waited)
			}
		}
		cancel()
	})
}

func TestNetworksThatAreRememberedAreBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPool(t, password.Options{Workers: 1})
		for i := range 3 * password.MaxLines {
			if err := p.Occupy(password.InTurn(t.Context(), fmt.Sprint(i), ""), func() {}); err != nil {
				t.Fatal(err)
			}
			if n := p.Lines(); n > password.MaxLines {
				t.Fatalf("%d networks are remembered", n)
			}
		}
	})
}
