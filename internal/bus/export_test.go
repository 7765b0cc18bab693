package bus

import "time"

// Times are how long it waits for an answer and for a connection, and between
// two attempts to connect.
func (n *NATS) Times() (answer, connect, retry time.Duration) {
	return n.times.answer, n.times.connect, n.times.retry
}

// SetTimes changes them before Connect, so that a busy machine makes no
// difference and a quick one doesn't wait.
func (n *NATS) SetTimes(answer, connect, retry time.Duration) {
	n.times.answer, n.times.connect, n.times.retry = answer, connect, retry
}

// SetAnswerTime changes the first of them also between two deliveries.
func (n *NATS) SetAnswerTime(d time.Duration) { n.times.answer = d }
