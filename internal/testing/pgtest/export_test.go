package pgtest

// Refuse is what a test gets where PostgreSQL is missing.
var Refuse = refuse
