// Command events prints what kwai publishes to NATS JetStream, one event a line. It is an
// example of a program that reads events. It loses none, even if it, kwai or NATS is
// stopped and started again at any moment.
//
//	go run ./examples/events -nats nats://127.0.0.1:4222 -name my-program
//
// It acknowledges an event after printing it. NATS stores that under the name, and
// delivers the rest when the program comes back. After a crash between the two it prints
// an event twice, with the same id. A program that must not act twice stores the ids of
// the last minutes or, better, acts so that twice has the same effect as once.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// pause lies before it tries again what failed.
var pause = time.Second

// event is what this program needs of a CloudEvent.
type event struct {
	ID   string
	Type string
	Time time.Time
	Data struct{ User, Session string }
}

func (e event) String() string {
	text := fmt.Sprint(e.Time.Format(time.RFC3339), " ", e.Type, " ", e.ID, " user=", e.Data.User)
	if e.Data.Session != "" {
		text += " session=" + e.Data.Session
	}
	return text
}

func main() {
	server := flag.String("nats", nats.DefaultURL, "NATS servers, separated by commas")
	credentials := flag.String("credentials", "", "NATS credentials file (.creds)")
	stream := flag.String("stream", "KWAI", "the stream, as kwai's --bus names it")
	name := flag.String("name", "example", "under which NATS remembers what was read")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *server, *credentials, *stream, *name); err != nil {
		log.Fatal(err)
	}
}

// run prints events until ctx ends. It connects for as long as it takes.
func run(ctx context.Context, server, credentials, stream, name string) error {
	options := []nats.Option{
		nats.Name(name), nats.RetryOnFailedConnect(true), nats.MaxReconnects(-1), nats.ReconnectWait(pause),
	}
	if credentials != "" {
		options = append(options, nats.UserCredentials(credentials))
	}
	conn, err := nats.Connect(server, options...)
	if err != nil {
		return err
	}
	defer conn.Close()
	js, err := jetstream.New(conn)
	if err != nil {
		return err
	}
	for ctx.Err() == nil {
		if err := read(ctx, js, stream, name); err != nil && ctx.Err() == nil {
			log.Print("trying again: ", err) // NATS is away, or there is no stream yet
			select {
			case <-ctx.Done():
			case <-time.After(pause):
			}
		}
	}
	return nil
}

// read prints events until something fails.
func read(ctx context.Context, js jetstream.JetStream, stream, name string) error {
	asking, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	consumer, err := js.CreateOrUpdateConsumer(asking, stream, jetstream.ConsumerConfig{
		Durable:       name,
		AckPolicy:     jetstream.AckExplicitPolicy,
		AckWait:       10 * time.Second, // what is not acknowledged by then comes again
		MaxAckPending: 1,                // one after the other: else a repeated event comes after the next
	})
	if err != nil {
		return err
	}
	events, err := consumer.Messages(jetstream.PullMaxMessages(1), jetstream.PullExpiry(5*time.Second))
	if err != nil {
		return err
	}
	defer events.Stop()
	log.Print("reading ", stream)
	for {
		m, err := events.Next(jetstream.NextContext(ctx))
		if err != nil {
			return err
		}
		var e event
		if err := json.Unmarshal(m.Data(), &e); err != nil {
			log.Print("skipping what is no event: ", err) // it would come again and again
		} else {
			fmt.Println(e)
		}
		if err := m.Ack(); err != nil {
			return err
		}
	}
}
