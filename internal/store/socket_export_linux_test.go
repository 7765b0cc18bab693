package store

// Stale looks at a connection of the pool.
var Stale = stale
