package main

import (
	"bytes"
	"io"
	"sync"
	"time"
)

// logWriter writes the server's log to standard error in the background: a reader
// that stands still or is gone must not hold up the server. What doesn't fit until
// it reads on is lost, and counted.
type logWriter struct {
	to     io.Writer
	report func(lines int) // called when writing goes on
	wake   chan struct{}   // holds one
	ended  chan struct{}

	mu      sync.Mutex
	waiting []byte
	missed  int
	closed  bool
}

// logRoom is how many bytes may wait, beside as many that are being written.
const logRoom = 256 << 10

// logTimeout is how long the end waits for a reader that stands still.
const logTimeout = time.Second

func newLogWriter(to io.Writer, report func(lines int)) *logWriter {
	w := &logWriter{to: to, report: report, wake: make(chan struct{}, 1), ended: make(chan struct{})}
	go w.run()
	return w
}

// Write takes a whole line, as package slog writes it. It never waits for the
// reader, and never fails.
func (w *logWriter) Write(line []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed || len(w.waiting)+len(line) > logRoom {
		w.missed++
		return len(line), nil
	}
	w.waiting = append(w.waiting, line...)
	select {
	case w.wake <- struct{}{}:
	default:
	}
	return len(line), nil
}

func (w *logWriter) run() {
	defer close(w.ended)
	var free []byte
	for range w.wake {
		w.mu.Lock()
		lines, missed := w.waiting, w.missed
		w.waiting, w.missed = free[:0], 0
		w.mu.Unlock()
		_, err := w.to.Write(lines)
		free = lines
		if err != nil { // the disk is full, or the reader is gone
			missed += bytes.Count(lines, []byte("\n"))
		}
		if err != nil {
			w.mu.Lock()
			w.missed += missed
			w.mu.Unlock()
		} else if missed > 0 {
			w.report(missed)
		}
	}
}

// close waits until all is written, but not for long.
func (w *logWriter) close() {
	w.mu.Lock()
	if !w.closed {
		w.closed = true
		close(w.wake)
	}
	w.mu.Unlock()
	select {
	case <-w.ended:
	case <-time.After(logTimeout):
	}
}
