package main

import (
	"context"
	"log/slog"

	"kwai/internal/bus"
	"kwai/internal/store"
)

// eventPublisher is what tells events outside; nil where nothing does.
func (s *Settings) eventPublisher(log *slog.Logger) (*bus.NATS, error) {
	if s.Bus == "local" {
		return nil, nil
	}
	n, err := bus.NewNATS(s.Bus, bus.NATSOptions{Source: s.publicURL.String(), MaxAge: s.BusKeep, Log: log})
	if err != nil {
		return nil, &usageError{"--bus", err}
	}
	return n, nil
}

// startPublishing has events written for the publisher from now on.
func startPublishing(ctx context.Context, publisher *bus.NATS, b *bus.Bus, log *slog.Logger) error {
	if err := publisher.Connect(ctx, b.Wake); err != nil {
		return &usageError{"--bus", err}
	}
	if err := b.Register(ctx); err != nil {
		return err
	}
	log.Info("publishing events", "servers", publisher.Servers(), "stream", publisher.Stream())
	return nil
}

// warnOfUntold warns of events that are written for somebody whom this server
// does not tell: perhaps another one does, perhaps a setting was forgotten.
func (s *Settings) warnOfUntold(ctx context.Context, db *store.Store, buses map[string]*bus.Bus, log *slog.Logger) error {
	found, err := db.Read(ctx).Subscribers()
	for _, f := range found {
		if buses[f.Name] == nil && !f.SeenAt.IsZero() {
			log.Warn("events are kept for a subscriber whom this server does not tell (--bus)", "subscriber", f.Name, "seen", f.SeenAt, "keep", s.BusKeep)
		}
	}
	return err
}
