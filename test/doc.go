// Package test runs kwai as its users do: the built program, its commands beside
// it, its databases, real mail and NATS servers, a real browser. It has the tests
// that end parts of it at any moment, or take time: what was answered must stand
// and what was promised must come.
//
//	crash       the server, PostgreSQL or a move is killed under load
//	replicas    one of three fails in every way, so do PostgreSQL and NATS
//	consistency all answers are such as one server gives that does one thing at a time
//	keys        server keys change and are revoked under load
//	restore     backups of a busy server, restores that are killed
//	durable     what is answered was synced before, as system calls show
//	guess       floods of guesses, from hundreds of networks
//	move        from SQLite to PostgreSQL, and nobody notices
//	stolen      what a thief of the database finds
//	browser     the pages in Chromium, by mouse and by keyboard
//	oauth       OAuth 2 libraries of Go and Python log in and renew
//	postfix     mail by Postfix: TLS, logins, greylisting, refusals
//	proxies     nginx, HAProxy and Caddy before it, at a path that they strip
//	swagger     Swagger UI in Chromium logs in at kwai alone
//	clients     linters and generators of clients like openapi.yaml; Node checks tokens
//	full        disks that are full or broken, and which alerts fire
//	operating   each command of docs/operating.md, from the page
//	deploy      the files of deploy/, by the programs that read them
//
// "go test ./test" has a short form of most of them, in ten seconds on two cores,
// and says in one line what it left out. All, with the race detector in the
// program too, take seven minutes:
//
//	KWAI_TEST=all go test -race ./test
//
// One of them, as often as one likes:
//
//	KWAI_TEST=all go test -race -v -count=10 -run 'TestCrashOfTheServer/sqlite' ./test
//
// A test starts with [start] or [each] and has a [site]: a server that can be
// killed and started again, and commands beside it. A failed test tells the
// server's log. Chance plays a part in most: a failure may need some runs to come
// again.
package test
