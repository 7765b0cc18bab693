package store

// Passkey is a user's.
type Passkey struct{ ID string }
