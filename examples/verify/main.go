// Command verify is an example of a program that trusts kwai's access tokens:
// its users log in at kwai and show it the token.
//
//	go run ./examples/verify -issuer http://localhost:8080
//	curl -H "Authorization: Bearer $TOKEN" http://127.0.0.1:8081/hello
//
// GET /hello is cheap: it checks the signature, with keys that are fetched now and then,
// and goes on while kwai is away. After a logout it accepts a token until the token
// expires. GET /secret asks kwai about each token, so nobody is let in after a logout,
// nor while kwai is away. GET /readyz says whether tokens can be checked.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"kwai/verify"
)

func main() {
	issuer := flag.String("issuer", "http://localhost:8080", "kwai's public URL")
	audience := flag.String("audience", "kwai", "the audience of the tokens, as kwai's --audience")
	listen := flag.String("listen", "127.0.0.1:8081", "address to serve at")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *issuer, *audience, *listen); err != nil {
		log.Fatal(err)
	}
}

// run serves until ctx ends.
func run(ctx context.Context, issuer, audience, listen string) error {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", listen)
	if err != nil {
		return err
	}
	tokens := &verify.Verifier{Issuer: issuer, Audience: audience}
	if err := tokens.Ready(ctx); err != nil {
		log.Print(err) // kwai may come later
	}
	s := &http.Server{Handler: routes(tokens, issuer, audience), ReadHeaderTimeout: 10 * time.Second}
	defer context.AfterFunc(ctx, func() {
		ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		_ = s.Shutdown(ending)
	})()
	fmt.Printf("serving http://%s\n", l.Addr())
	if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func routes(tokens *verify.Verifier, issuer, audience string) http.Handler {
	live := &verify.Verifier{Issuer: issuer, Audience: audience, Live: true}
	mux := http.NewServeMux()
	mux.Handle("GET /hello", tokens.Protect(http.HandlerFunc(hello)))
	mux.Handle("GET /secret", live.Protect(http.HandlerFunc(hello)))
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		if err := tokens.Ready(r.Context()); err != nil {
			log.Print(err)
			http.Error(w, "not ready", http.StatusServiceUnavailable)
		}
	})
	return mux
}

// hello answers with the token's claims about the user.
func hello(w http.ResponseWriter, r *http.Request) {
	claims := verify.FromContext(r.Context())
	w.Header().Set("Content-Type", "application/json")
	answer := greeting{claims.Subject, claims.SessionID, claims.ExpiresAt.Format(time.RFC3339)}
	if err := json.NewEncoder(w).Encode(answer); err != nil {
		log.Print(err) // the client has disconnected
	}
}

type greeting struct {
	User    string `json:"user"`
	Session string `json:"session"`
	Until   string `json:"until"`
}
