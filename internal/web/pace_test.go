package web_test

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"kwai/internal/web"
)

func TestRefusalsArePaced(t *testing.T) {
	t.Parallel()
	perSecond := 1000 * runtime.GOMAXPROCS(0)
	for _, tt := range []struct {
		name    string
		n       int           // refusals asked for at once
		longest time.Duration // that one waits, at least
	}{
		{"a few, at once", perSecond / 10, 0},
		{"more, one after the other", perSecond/10 + perSecond/2, time.Second / 2},
		{"a flood, bounded", 5 * perSecond, time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := &web.Server{PublicURL: &url.URL{Scheme: "http", Host: "localhost"}, Log: slog.New(slog.DiscardHandler)}
				handler, err := s.Handler()
				if err != nil {
					t.Fatal(err)
				}
				gone, leave := context.WithCancel(t.Context())
				leave()
				begun := time.Now()
				var all sync.WaitGroup
				for range tt.n {
					all.Go(func() {
						w := httptest.NewRecorder()
						// Nobody waits for the answer: that must not help.
						handler.ServeHTTP(w, httptest.NewRequestWithContext(gone, http.MethodGet, "/nowhere", nil))
						if w.Code != http.StatusNotFound {
							t.Error(w.Code)
						}
					})
				}
				all.Wait()
				if took := time.Since(begun).Round(time.Second / 100); took != tt.longest {
					t.Errorf("%d refusals took %v, want %v", tt.n, took, tt.longest)
				}
			})
		})
	}
}
