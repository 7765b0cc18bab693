package web

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"kwai/internal/auth"
)

// Large bodies share a bounded memory; small ones are always read.
func TestLargeBodiesShareTheMemory(t *testing.T) {
	t.Parallel()
	var s Server
	read := func(size int) error {
		r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader("a="+strings.Repeat("b", size-2)))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		_, err := s.readForm(httptest.NewRecorder(), r)
		return err
	}
	for _, tt := range []struct {
		used int64
		size int
		want error
	}{
		{0, maxBody, nil},
		{maxBodies - maxBody, maxBody, nil},
		{maxBodies - maxBody + 1, maxBody, auth.ErrBusy},
		{maxBodies, smallBody + 1, auth.ErrBusy},
		{maxBodies, smallBody, nil},
	} {
		s.bodies.Store(tt.used)
		if err := read(tt.size); !errors.Is(err, tt.want) {
			t.Errorf("%d bytes beside %d: %v, want %v", tt.size, tt.used, err, tt.want)
		}
		if left := s.bodies.Load(); left != tt.used {
			t.Errorf("%d bytes beside %d: afterwards %d are counted", tt.size, tt.used, left)
		}
	}
}
