package web

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"time"

	"kwai/internal/auth"
)

// dataPage says what can be downloaded.
func (s *Server) dataPage(w http.ResponseWriter, r *http.Request, v auth.Visitor) error {
	return s.visitPage(w, r, v, http.StatusOK, "data", nil)
}

// data answers GET /account/data.json with all that is kept about the visitor. It may be
// much: it is written as it is read. Once that has begun, a failure cuts it off.
func (s *Server) data(w http.ResponseWriter, r *http.Request, v auth.Visitor) error {
	var found auth.UserData
	if r.Method != http.MethodHead {
		var err error
		if found, err = s.Rules.Data(r.Context(), s.pageClient(r), v); err != nil {
			return err
		}
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Content-Disposition", `attachment; filename="account.json"`)
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(http.StatusOK)
	if r.Method == http.MethodHead {
		return nil
	}
	out := bufio.NewWriter(&slowWriter{w, http.NewResponseController(w), time.Now().Add(downloadLife)})
	err := writeData(out, found)
	if err == nil {
		err = out.Flush()
	}
	if err != nil {
		if !errors.Is(err, context.Canceled) { // else the client went away
			s.Log.Warn("a download of a user's data was cut off", "user", v.ID, "error", err)
		}
		panic(http.ErrAbortHandler)
	}
	return nil
}

// A download may be large, and the line slow: each part of it has partLife, all of it
// downloadLife.
const (
	partLife     = 30 * time.Second
	downloadLife = 15 * time.Minute
)

type slowWriter struct {
	w    http.ResponseWriter
	rc   *http.ResponseController
	last time.Time
}

func (s *slowWriter) Write(part []byte) (int, error) {
	deadline := time.Now().Add(partLife)
	if deadline.After(s.last) {
		deadline = s.last
	}
	_ = s.rc.SetWriteDeadline(deadline) // each connection can have one
	return s.w.Write(part)
}

// writeData writes an object, whose lists have a row a line.
func writeData(out io.Writer, d auth.UserData) error {
	account, err := json.Marshal(d.Account)
	if err != nil {
		return err
	}
	factors, err := json.Marshal(d.Factors)
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(out, "{\"account\":%s,\n\"factors\":%s", account, factors); err != nil {
		return err
	}
	for _, list := range []func() error{
		func() error { return writeList(out, "networks", d.Networks) },
		func() error { return writeList(out, "groups", d.Groups) },
		func() error { return writeList(out, "grants", d.Grants) },
		func() error { return writeList(out, "sessions", d.Sessions) },
		func() error { return writeList(out, "app_sessions", d.AppSessions) },
		func() error { return writeList(out, "audit_log", d.AuditLog) },
	} {
		if err := list(); err != nil {
			return err
		}
	}
	_, err = io.WriteString(out, "}\n")
	return err
}

func writeList[T any](out io.Writer, name string, rows iter.Seq2[T, error]) error {
	if _, err := fmt.Fprintf(out, ",\n%q:[", name); err != nil {
		return err
	}
	comma := ""
	for row, err := range rows {
		if err != nil {
			return err
		}
		line, err := json.Marshal(row)
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintf(out, "%s\n%s", comma, line); err != nil {
			return err
		}
		comma = ","
	}
	_, err := io.WriteString(out, "]")
	return err
}
