package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync/atomic"
	"time"

	"kwai/bench/internal/load"
)

const (
	slowBytes = 4 << 10                // of a slow body
	trickle   = 250 * time.Millisecond // from one of its bytes to the next, on average
)

// slowBody promises a form and sends it byte by byte until kwai has enough.
func slowBody(address string) client {
	head := fmt.Sprintf("POST %s HTTP/1.1\r\nHost: %s\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: %d\r\n\r\nusername=",
		loginPath, address, slowBytes)
	return again(address, func(ctx context.Context, c net.Conn, _ *answers) int {
		answer := make(chan int, 1)
		go func() { answer <- status(c) }()
		if _, err := io.WriteString(c, head); err != nil {
			return brokenOff
		}
		for {
			select {
			case status := <-answer:
				return status
			case <-ctx.Done():
				return brokenOff
			case <-time.After(rand.N(2 * trickle)): //nolint:gosec // so that they don't all send at once
				// An error is what the reader sees, too.
				_, _ = c.Write([]byte("a"))
			}
		}
	})
}

// idle says nothing, or, every other time, nothing after its first request.
func idle(address string) client {
	var turn atomic.Int64
	return again(address, func(_ context.Context, c net.Conn, seen *answers) int {
		if turn.Add(1)%2 == 0 {
			if _, err := fmt.Fprintf(c, "GET /healthz HTTP/1.1\r\nHost: %s\r\n\r\n", address); err != nil {
				return brokenOff
			}
			seen.add(status(c))
		}
		_, _ = io.Copy(io.Discard, c) // returns when kwai closes it
		return brokenOff
	})
}

// again opens a connection, and the next when kwai has done with it. use tells
// the last that was seen of one.
func again(address string, use func(ctx context.Context, c net.Conn, seen *answers) int) client {
	return func(ctx context.Context, seen *answers) {
		for ctx.Err() == nil {
			last := brokenOff
			if c, err := load.Dial(ctx, address); err == nil {
				last = use(ctx, c, seen)
				_ = c.Close()
			}
			if ctx.Err() != nil {
				return // the flood broke it off
			}
			seen.add(last)
			pause(ctx)
		}
	}
}

// status reads an answer's first line, HTTP/1.1 200 OK.
func status(c net.Conn) int {
	var status int
	line, err := bufio.NewReader(c).ReadString('\n')
	if err != nil {
		return brokenOff
	}
	if _, err := fmt.Sscanf(line, "HTTP/1.1 %d", &status); err != nil {
		return brokenOff
	}
	return status
}
