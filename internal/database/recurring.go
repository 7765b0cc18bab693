package database

import "time"

// Recurring keeps an error that each try repeats, while the database is away, from
// filling the log. It belongs to one goroutine; its zero value is ready.
type Recurring struct{ logged time.Time }

// Log says whether err is to be logged: at once, and then each minute until a try
// succeeds.
func (r *Recurring) Log(err error) bool {
	if err == nil {
		r.logged = time.Time{}
		return false
	}
	if !r.logged.IsZero() && time.Since(r.logged) < time.Minute {
		return false
	}
	r.logged = time.Now()
	return true
}
