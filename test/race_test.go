//go:build race

package test

// buildFlags are for the program: what the race detector finds in the server is
// what the tests that kill it are there for. Without -trimpath it is built of the
// packages that these tests are compiled with.
var buildFlags = []string{"-race", "-trimpath=false"}
