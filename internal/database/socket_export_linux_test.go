package database

// Stale looks at a connection of the pool.
var Stale = stale
