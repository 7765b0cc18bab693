package web

import (
	"encoding/json"
	"errors"
	"iter"
	"strings"
	"testing"

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
	d := auth.UserData{Networks: rows[auth.NetworkData](nil), Sessions: rows(nil, auth.SessionData{ID: "s"}), AuditLog: rows(nil, auth.EntryData{Kind: hostile}, auth.EntryData{})}
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
