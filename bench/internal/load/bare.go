package load

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"time"

	"kwai/internal/testing/cluster"
)

// bareCommand is the hidden command by which a program runs itself as the bare
// handler: in a process of its own, as kwai is.
const bareCommand = "serve-bare"

// BareMain is the first call of a program's main. Where the program was started
// by [StartBare], [HashRate] or [SignRate] it does what they measure, and doesn't return.
func BareMain() {
	var err error
	switch {
	case len(os.Args) == 4 && os.Args[1] == bareCommand:
		err = serveBare(os.Args[2], os.Args[3])
	case len(os.Args) == 3 && os.Args[1] == hashCommand:
		err = atRate(os.Args[2], hash)
	case len(os.Args) == 3 && os.Args[1] == signCommand:
		err = atRate(os.Args[2], sign)
	default:
		return
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// serveBare serves the handler that does nothing but read a request and answer
// so many bytes.
func serveBare(address, bytesText string) error {
	size, err := strconv.Atoi(bytesText)
	if err != nil {
		return err
	}
	body := bytes.Repeat([]byte("x"), size)
	server := &http.Server{
		Addr: address,
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

// StartBare starts the bare handler, which answers 200 and a body of that size,
// in bytes, to every request.
func StartBare(ctx context.Context, size int) (*cluster.Server, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	address, err := cluster.FreeAddress(ctx)
	if err != nil {
		return nil, err
	}
	s, err := cluster.StartServer(ctx, cluster.Command{
		Program: program, Args: []string{bareCommand, address, strconv.Itoa(size)}, Env: os.Environ(),
		Address: address, Ready: "/",
	})
	if err != nil {
		return nil, fmt.Errorf("the bare handler: %w", err)
	}
	return s, nil
}
