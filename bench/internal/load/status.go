package load

import "fmt"

// StatusError is the error of a step of [Renew], [Check], [Logout] and [Login]
// that was answered, but not by 200.
type StatusError struct {
	Status int
	Body   string
}

func (e *StatusError) Error() string { return fmt.Sprintf("status %d: %s", e.Status, e.Body) }
