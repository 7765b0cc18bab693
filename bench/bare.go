package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"time"
)

// bareCommand is the hidden command by which this program runs itself as the
// bare handler: in a process of its own, as kwai is.
const bareCommand = "serve-bare"

// serveBare serves on the address os.Args[2] the handler that does nothing but
// read a request and answer as many bytes as os.Args[3] says.
func serveBare() error {
	size, err := strconv.Atoi(os.Args[3])
	if err != nil {
		return err
	}
	body := bytes.Repeat([]byte("x"), size)
	server := &http.Server{
		Addr: os.Args[2],
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set("Cache-Control", "no-store")
			_, _ = w.Write(body)
		}),
		// As kwai has them: each costs a timer.
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       15 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       2 * time.Minute,
	}
	return server.ListenAndServe()
}

// startBare starts the bare handler, which answers bodies of that size.
func startBare(ctx context.Context, size int) (*server, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	address, err := freeAddress(ctx)
	if err != nil {
		return nil, err
	}
	s := &server{address: address}
	s.cmd = exec.CommandContext(ctx, program, bareCommand, address, strconv.Itoa(size)) //nolint:gosec // itself
	s.cmd.Stderr = &s.log
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	if err := s.await(ctx, "/"); err != nil {
		s.stop()
		return nil, fmt.Errorf("the bare handler: %w\n%s", err, s.log.Bytes())
	}
	return s, nil
}
