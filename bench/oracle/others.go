package main

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"kwai/bench/internal/load"
)

// work is what some of the others do all the time, with pauses.
type work struct {
	load.Operation
	pause time.Duration // the mean of those between two requests of a connection
	done  atomic.Int64
	wrong atomic.Int64
}

// startOthers has other connections log in, renew and recover, about as much as
// leaves the server some of the cores: where it can't keep up, the times say
// little. stop ends that and says how much they did.
func (s *scene) startOthers(ctx context.Context, address string) (stop func() (string, error), err error) {
	emails := s.emails()
	var sessions []load.Session
	for range 2 { // an account at a time: it is throttled
		some, err := load.OpenSessions(ctx, address, emails, len(emails))
		if err != nil {
			return nil, fmt.Errorf("sessions of the others: %w", err)
		}
		sessions = append(sessions, some...)
	}
	all := []*work{
		{Operation: load.Login(2, emails), pause: 100 * time.Millisecond},
		{Operation: load.Renew(4, sessions), pause: 20 * time.Millisecond},
		{Operation: s.recoveries(2), pause: 20 * time.Millisecond},
	}
	ctx, cancel := context.WithCancel(ctx)
	begin := time.Now()
	var wg sync.WaitGroup
	for _, w := range all {
		for i := range w.Connections {
			wg.Go(func() { w.run(ctx, address, i) })
		}
	}
	return func() (text string, err error) {
		cancel()
		wg.Wait()
		seconds := time.Since(begin).Seconds()
		for i, w := range all {
			if w.done.Load() == 0 {
				return "", fmt.Errorf("the others' %s never succeeded", w.Name)
			}
			if i > 0 {
				text += ", "
			}
			text += fmt.Sprintf("%s %.1f/s (%d refused)", w.Name, float64(w.done.Load())/seconds, w.wrong.Load())
		}
		return text, nil
	}, nil
}

// crowd is so many connections that try wrong passwords without a pause, on
// addresses without accounts, each from a network of its own. It is there once kwai
// has refused one for want of time.
func crowd(n int) func(ctx context.Context, s *scene, server string) (stop func() (string, error), err error) {
	return func(ctx context.Context, _ *scene, server string) (stop func() (string, error), err error) {
		ctx, cancel := context.WithCancel(ctx)
		var refused, hashed atomic.Int64
		var wg sync.WaitGroup
		begin, saturated := time.Now(), make(chan struct{})
		for range n {
			wg.Go(func() {
				c := load.NewConnContext(ctx, server)
				defer c.Close()
				for ctx.Err() == nil {
					c.From = load.NewNetwork()
					status, err := c.Post(login.path, "", login.form(newAddress()).Encode())
					switch {
					case err != nil:
						time.Sleep(100 * time.Millisecond)
					case status != http.StatusServiceUnavailable:
						hashed.Add(1)
					case refused.Add(1) == 1:
						close(saturated)
					}
				}
			})
		}
		stop = func() (string, error) {
			cancel()
			wg.Wait()
			seconds := time.Since(begin).Seconds()
			return fmt.Sprintf("%d connections, hashes %.1f/s, refused %.0f/s", n, float64(hashed.Load())/seconds, float64(refused.Load())/seconds), nil
		}
		select {
		case <-saturated:
			return stop, nil
		case <-time.After(time.Minute):
			_, _ = stop()
			return nil, fmt.Errorf("%d connections leave kwai time enough", n)
		case <-ctx.Done():
			_, _ = stop()
			return nil, ctx.Err()
		}
	}
}

func (w *work) run(ctx context.Context, address string, i int) {
	c := load.NewConn(address)
	defer c.Close()
	c.From = load.NewNetwork()
	for ctx.Err() == nil {
		if err := w.Step(c, i); err != nil {
			w.wrong.Add(1)
		} else {
			w.done.Add(1)
		}
		time.Sleep(time.Duration(toss(int(2 * w.pause))))
	}
}

// recoveries asks for recoveries, of others' accounts and of unknown addresses.
func (s *scene) recoveries(connections int) load.Operation {
	return load.Operation{Name: "recover", Connections: connections, Step: func(c *load.Conn, _ int) error {
		email := newAddress()
		if toss(2) == 0 {
			email = s.subjects[other][toss(others)].email
		}
		status, err := c.Post(recovery.path, "", recovery.form(email).Encode())
		if err == nil && status != http.StatusOK {
			err = fmt.Errorf("status %d", status)
		}
		return err
	}}
}
