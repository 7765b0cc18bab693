// Package test runs kwai as its users do: the built program, its commands beside it, its
// databases, real mail and NATS servers, a real browser. Its tests stop parts of it at
// any moment, or take time. What kwai answered must stay true, and what it promised must
// happen.
//
//	crash       the server, PostgreSQL or a move is killed under load
//	replicas    one of three fails in every way, so do PostgreSQL and NATS
//	consistency all answers are those of one server that does one thing at a time
//	keys        server keys change and are revoked under load
//	restore     backups of a busy server, restores that are killed
//	durable     what is answered was synced before, as system calls show
//	guess       floods of guesses, from hundreds of networks
//	move        from SQLite to PostgreSQL, without a logout
//	stolen      what an attacker finds in a stolen database
//	browser     the pages in Chromium, by mouse and by keyboard
//	oauth       OAuth 2 libraries of Go and Python log in and renew
//	app         programs of others log people in by kwai, unmodified: docs/apps.md
//	postfix     mail by Postfix: TLS, logins, greylisting, refusals
//	proxies     nginx, HAProxy and Caddy in front of it, at a path that they remove
//	swagger     Swagger UI in Chromium logs in at kwai alone
//	clients     linters and client generators accept openapi.yaml; Node checks tokens
//	full        disks that are full or broken, and which alerts fire
//	operating   each command of docs/operating.md, from the page
//	deploy      the files of deploy/, by the programs that read them
//
// "go test ./test" runs a short form of most of them, in ten seconds on two cores, and
// says in one line what it left out. All of them, with the race detector in the program,
// too, take seven minutes:
//
//	KWAI_TEST=all go test -race ./test
//
// To run one of them many times:
//
//	KWAI_TEST=all go test -race -v -count=10 -run 'TestCrashOfTheServer/sqlite' ./test
//
// A test begins with [start] or [each] and gets a [site]: a server that can be killed and
// started again, with commands beside it. At its end each line of the server's log is
// compared with docs/operating.md. A failed test prints the server's log. Most tests
// depend on chance: a failure may need some runs to come again.
package test
