package web

import (
	"encoding/json"
	"errors"
	"iter"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"kwai/internal/auth"
)

func rows[T any](err error, all ...T) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		for _, v := range all {
			if !yield(v, nil) {
				return
			}
		}
		if err != nil {
			var none T
			yield(none, err)
		}
	}
}

// The file is JSON whether a list is empty or not, and isn't when a list breaks off.
func TestDataIsWrittenAsItIsRead(t *testing.T) {
	t.Parallel()
	d := auth.UserData{Networks: rows[auth.NetworkData](nil), Groups: rows[string](nil), Grants: rows(nil, auth.GrantData{App: "a"}), Sessions: rows(nil, auth.SessionData{ID: "s"}), AppSessions: rows[auth.AppSessionData](nil), AuditLog: rows(nil, auth.EntryData{Kind: hostile}, auth.EntryData{})}
	var out strings.Builder
	if err := writeData(&out, d); err != nil || !json.Valid([]byte(out.String())) {
		t.Errorf("%v: %s", err, out.String())
	}
	broken := errors.New("the database is away")
	d.AuditLog = rows(broken, auth.EntryData{})
	out.Reset()
	if err := writeData(&out, d); !errors.Is(err, broken) || json.Valid([]byte(out.String())) {
		t.Errorf("error %v, and it is whole: %s", err, out.String())
	}
	if err := writeData(failing{}, d); err == nil {
		t.Error("a client that went away is written to")
	}
}

type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, errors.New("the client went away") }

// A slow line has half a minute for each part of a download, and a quarter of an hour
// for all.
func TestADownloadMayBeSlow(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := &deadlines{ResponseRecorder: httptest.NewRecorder()}
		out := &slowWriter{w, http.NewResponseController(w), time.Now().Add(downloadLife)}
		begun := time.Now()
		for range 40 {
			if _, err := out.Write([]byte("x")); err != nil {
				t.Fatal(err)
			}
			if left := time.Until(w.deadline); left != min(30*time.Second, downloadLife-time.Since(begun)) {
				t.Errorf("after %v it has %v left", time.Since(begun), left)
			}
			time.Sleep(29 * time.Second)
		}
	})
}

type deadlines struct {
	*httptest.ResponseRecorder
	deadline time.Time
}

func (d *deadlines) SetWriteDeadline(t time.Time) error { d.deadline = t; return nil }
