package web

import (
	"context"
	"log/slog"
	"net/http"
	"runtime/debug"
	"time"

	"kwai/internal/auth"
)

// answered keeps the status of an answer, and what handlers add to the request's
// line in the log. Never a query argument, a token, a password or the address of an
// unknown account.
type answered struct {
	http.ResponseWriter
	status int
	attrs  []slog.Attr
}

// note adds to the request's line in the log.
func note(w http.ResponseWriter, name string, value any) {
	if a, ok := w.(*answered); ok {
		a.attrs = append(a.attrs, slog.Any(name, value))
	}
}

// noteApp notes the app of a request: its id, or the first characters of a client_id that
// is no app's, which may be a secret in the wrong place.
func noteApp(w http.ResponseWriter, id, asked string) {
	if id == "" && asked != "" {
		const shown = 8
		id = forLog(asked[:min(len(asked), shown)]) + "…"
	}
	if id != "" {
		note(w, "app", id)
	}
}

func (w *answered) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *answered) Write(b []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	return w.ResponseWriter.Write(b)
}

// Unwrap is for http.ResponseController.
func (w *answered) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// logged logs and counts each request, makes a 500 of a panic, and puts the client
// into the request's context.
func (s *Server) logged(m *routeMetrics, next http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		begun := time.Now()
		s.metrics.inFlight.Inc()
		a := &answered{ResponseWriter: w}
		var client auth.Client
		defer func() {
			defer s.metrics.inFlight.Dec()
			if p := recover(); p != nil {
				if p != http.ErrAbortHandler { //nolint:errorlint // net/http compares it so, too
					s.Log.Error("a request panicked", "route", m.route, "panic", p, "stack", string(debug.Stack()))
				}
				if a.status != 0 {
					m.count(r.Method, http.StatusInternalServerError, time.Since(begun))
					panic(http.ErrAbortHandler) // half an answer must not look whole
				}
				s.problem(a, r, &httpError{http.StatusInternalServerError, "The server made a mistake. It has been logged."})
			}
			took := time.Since(begun)
			m.count(r.Method, a.status, took)
			s.log(r, client, m.route, a, took)
		}()
		client = s.client(r)
		next(a, r.WithContext(context.WithValue(r.Context(), senderKey{}, &sender{client: client})))
	})
}

func (s *Server) log(r *http.Request, client auth.Client, route string, a *answered, took time.Duration) {
	level := slog.LevelInfo
	switch {
	case a.status == http.StatusOK && (route == "/healthz" || route == "/readyz"):
		level = slog.LevelDebug // proxies ask every second
	case a.status == http.StatusServiceUnavailable:
		level = slog.LevelWarn // any client can make the server busy
	case a.status >= http.StatusInternalServerError:
		level = slog.LevelError
	}
	attrs := append([]slog.Attr{
		slog.String("method", r.Method[:min(len(r.Method), 16)]), // the client may make one up
		slog.String("route", route),
		slog.Int("status", a.status),
		slog.Duration("took", took),
		slog.String("client", client.Address.String()),
	}, a.attrs...)
	s.Log.LogAttrs(r.Context(), level, "request", attrs...)
}
