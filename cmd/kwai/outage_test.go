package main

import (
	"context"
	"testing"
	"time"

	"kwai/internal/mail/mailtest"
)

// waitMails returns the mails when there are n.
func waitMails(tb testing.TB, m *mailtest.Server, n int) []mailtest.Mail {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), time.Minute)
	defer cancel()
	mails, err := m.Wait(ctx, n)
	if err != nil {
		tb.Fatal(err)
	}
	return mails
}
