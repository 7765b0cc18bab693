package bus

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	// duplicates is how long a stream made by kwai knows the ids that it has stored.
	duplicates = 10 * time.Minute
	// minDuplicates is what an existing stream must have at least. A server may
	// die after it has published and before it has recorded that: the next one
	// publishes again once the lease has ended.
	minDuplicates = time.Minute
	// roomForEvent is the size of an event without its source, in bytes, rounded up.
	roomForEvent = 1 << 10
)

// ensureStream makes the stream if it is missing, and refuses a stream that would
// lose events.
func (n *NATS) ensureStream(ctx context.Context, js jetstream.JetStream) error {
	found, err := js.Stream(ctx, n.setting.stream)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		found, err = js.CreateStream(ctx, n.newStream())
		if err == nil {
			n.log.Info("made a stream for events in NATS", "stream", n.setting.stream)
		}
		if errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) { // another server made it just now
			found, err = js.Stream(ctx, n.setting.stream)
		}
	}
	if err != nil {
		return n.explain(err)
	}
	config := found.CachedInfo().Config
	if why := n.unfit(config); why != "" {
		return fmt.Errorf("%w: the stream %s %s: change it, or name another one with stream=NAME", ErrRefused, n.setting.stream, why)
	}
	if dropsOld(config) && n.warned.CompareAndSwap(false, true) {
		n.log.Warn("the stream in NATS drops the oldest events when it is full, read or not", "stream", n.setting.stream)
	}
	return nil
}

// newStream is the stream that kwai makes if there is none. A full one refuses
// events; the account, the disk or an operator may limit it. Then events wait in the
// database, where their number is seen and their age bounded. None is lost unseen.
func (n *NATS) newStream() jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name:        n.setting.stream,
		Description: "Events of kwai",
		Subjects:    []string{n.prefix + ".>"},
		Retention:   jetstream.LimitsPolicy,
		Storage:     jetstream.FileStorage,
		Replicas:    n.setting.replicas,
		MaxAge:      n.o.MaxAge,
		MaxBytes:    cmp.Or(n.setting.maxBytes, -1),
		Discard:     jetstream.DiscardNew,
		Duplicates:  min(duplicates, n.o.MaxAge),
	}
}

// unfit says why a stream can't be used, or "". Its operator decides how much and
// how long it keeps.
func (n *NATS) unfit(c jetstream.StreamConfig) string {
	takes := false
	for _, filter := range c.Subjects {
		takes = takes || covers(filter, n.prefix+".*.*") // an event type has two words
	}
	least := min(minDuplicates, n.o.MaxAge)
	switch {
	case !takes:
		return fmt.Sprintf("does not take the subjects %s.>", n.prefix)
	case c.Retention != jetstream.LimitsPolicy:
		return fmt.Sprintf("has the retention %v, so that one reader takes events from the others; it must be limits", c.Retention)
	case c.Storage != jetstream.FileStorage:
		return "is kept in memory, so that NATS loses it when it ends; its storage must be file"
	case c.PersistMode == jetstream.AsyncPersistMode:
		return "acknowledges events before it has written them; its persist mode must be default"
	case c.NoAck:
		return "acknowledges nothing; no_ack must be off"
	case c.Sealed:
		return "is sealed"
	case c.SubjectTransform != nil:
		return "changes the subjects of events (subject_transform)"
	case c.Duplicates < least:
		return fmt.Sprintf("forgets after %v which events it has; its duplicate window must be %v at least", c.Duplicates, least)
	case c.MaxMsgSize > 0 && int(c.MaxMsgSize) < roomForEvent+len(n.o.Source):
		return fmt.Sprintf("takes messages of %d bytes only; it must be %d at least", c.MaxMsgSize, roomForEvent+len(n.o.Source))
	}
	return ""
}

// dropsOld reports whether a full stream drops old events to make room for new ones.
func dropsOld(c jetstream.StreamConfig) bool {
	return c.Discard == jetstream.DiscardOld && (c.MaxMsgs > 0 || c.MaxBytes > 0) ||
		c.MaxMsgsPerSubject > 0 && !c.DiscardNewPerSubject
}

// covers reports whether a filter takes every subject that a pattern takes.
func covers(filter, pattern string) bool {
	filters, patterns := strings.Split(filter, "."), strings.Split(pattern, ".")
	for i, f := range filters {
		if f == ">" {
			return len(patterns) > i
		}
		if i >= len(patterns) || f != "*" && f != patterns[i] {
			return false
		}
	}
	return len(filters) == len(patterns)
}

// Codes of the JetStream API that the library has no names for.
const (
	codeUnavailable jetstream.ErrorCode = 10008
	codeNoResources jetstream.ErrorCode = 10023
	codeOverlap     jetstream.ErrorCode = 10065
	codeNotStored   jetstream.ErrorCode = 10077
	codeOffline     jetstream.ErrorCode = 10118
	codeOfflineWhy  jetstream.ErrorCode = 10194
	codeOtherStream jetstream.ErrorCode = 10060
)

// remedies say what to do if NATS refuses to make a stream.
var remedies = map[jetstream.ErrorCode]string{
	10113: "add max_bytes=N to the setting, or make the stream yourself", // account requires max bytes
	10122: "lower max_bytes=N in the setting",                            // stream exceeds the account's max stream bytes
	10047: "lower max_bytes=N in the setting, or give NATS or the account more storage",
	10027: "let the account have one more stream, or name one that is there with stream=NAME", // maximum number of streams
	10074: "leave replicas=N out, or run NATS as a cluster",                                   // replicas > 1 not supported
}

// explain turns an error of NATS into one that says what to do. It wraps ErrRefused
// if NATS has understood and says no.
func (n *NATS) explain(err error) error {
	if denied := n.denied.Load(); denied != nil && errors.Is(err, context.DeadlineExceeded) {
		// NATS doesn't answer a user without the permission.
		return fmt.Errorf("%w: %w: give the user the permissions that docs/events.md lists", ErrRefused, *denied)
	}
	var api *jetstream.APIError
	if js, ok := errors.AsType[jetstream.JetStreamError](err); ok {
		api = js.APIError()
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("NATS has not answered within %v", n.times.answer)
	case errors.Is(err, context.Canceled), errors.Is(err, nats.ErrConnectionClosed):
		return errAway
	case errors.Is(err, nats.ErrNoResponders), errors.Is(err, jetstream.ErrJetStreamNotEnabled), errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount):
		return fmt.Errorf("%w: JetStream is not enabled at this NATS server or for this account: enable it there", ErrRefused)
	case api == nil:
		return err
	case api.ErrorCode == codeOverlap, api.ErrorCode == codeOtherStream:
		return fmt.Errorf("%w: another stream takes subjects of %s.>: change its subjects, or choose another name with stream=NAME", ErrRefused, n.prefix)
	case api.ErrorCode == codeNotStored, api.ErrorCode == codeNoResources:
		return fmt.Errorf("%w: the stream %s can't take more: %s: raise its limits, or those of its account or server", ErrRefused, n.setting.stream, api.Description)
	case api.Code == 503, api.ErrorCode == codeUnavailable, api.ErrorCode == codeOffline, api.ErrorCode == codeOfflineWhy:
		return fmt.Errorf("NATS can't do it now: %s", api.Description)
	}
	err = fmt.Errorf("%w: NATS says of the stream %s: %s", ErrRefused, n.setting.stream, api.Description)
	if way := remedies[api.ErrorCode]; way != "" {
		err = fmt.Errorf("%w: %s", err, way)
	}
	return err
}

// explainConnection is explain for an attempt to connect.
func (n *NATS) explainConnection(err error) error {
	text := strings.ToLower(err.Error())
	for _, reason := range []string{"authorization violation", "authentication expired", "authentication revoked"} {
		if strings.Contains(text, reason) {
			return fmt.Errorf("%w: NATS says %s: look at the user and password, the token or the credentials", ErrRefused, reason)
		}
	}
	_, untrusted := errors.AsType[*tls.CertificateVerificationError](err)
	remote, ok := errors.AsType[*net.OpError](err)
	// Until our time-out, or its own.
	silent := ok && remote.Op == "read" || errors.Is(err, io.EOF)
	alert := ok && remote.Op == "remote error" || strings.Contains(text, "closed by remote after tls handshake") // as crypto/tls and nats.go write it
	_, noTLS := errors.AsType[tls.RecordHeaderError](err)
	switch {
	case noTLS && n.setting.handshakeFirst:
		return fmt.Errorf("%w: NATS has no TLS here, or doesn't begin with it: leave handshake_first out", ErrRefused)
	case errors.Is(err, nats.ErrSecureConnWanted), noTLS:
		return fmt.Errorf("%w: NATS has no TLS here, which tls://, ca and cert ask for", ErrRefused)
	case untrusted:
		return fmt.Errorf("%w: the certificate of NATS is not trusted (ca=FILE names its authority): %w", ErrRefused, err)
	case alert:
		return fmt.Errorf("%w: NATS ended the TLS handshake (cert=FILE&key=FILE is for one that asks for certificates): %w", ErrRefused, err)
	case silent && !n.setting.handshakeFirst:
		return fmt.Errorf("NATS takes the connection and says nothing: if it waits for TLS (its handshake_first), add handshake_first=true to the setting: %w", err)
	}
	return err
}
