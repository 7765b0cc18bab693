package main

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"kwai/bench/internal/load"
	"kwai/internal/testing/passkeytest"
)

// kind is one of the floods.
type kind struct {
	name     string
	promised promised
	// timeout is how long kwai bears a client that says too little. The largest
	// flood is older than that when it is measured, so that kwai's giving up and
	// the clients' coming anew are part of it.
	timeout time.Duration
	// prepare is done once, before the first of them; nil: nothing.
	prepare func(ctx context.Context) error
	client  client
	// connections are how many it comes from by default; nil: as many as
	// others do.
	connections []int
}

// promises says whether rates are promised beside a flood from n connections.
func (k kind) promises(n int) bool {
	switch k.promised {
	case nothingMore:
		return false
	case othersLogIn:
		return n <= othersPromisedUpTo
	case requestsGoOn, loginsGoOn:
	}
	return n <= promisedUpTo
}

// promised is what is promised of honest clients beside a flood, apart from
// what is of each: see judge.
type promised int

const (
	nothingMore  promised = iota
	requestsGoOn          // renewals, checks and logouts keep most of their speed
	loginsGoOn            // logins keep some of their rate
	othersLogIn           // logins from other networks keep most of theirs
)

// kinds are all floods; where kwai throttles, those that throttles concern.
func (t *target) kinds() []kind {
	address := t.server.Address
	wrong := func(i int) (path, form string) {
		return loginPath, loginForm(t.victims[i%len(t.victims)], wrongPassword)
	}
	nobody := func(int) (path, form string) { return loginPath, loginForm(randomEmail(), wrongPassword) }
	right := func(accounts int) func(i int) (path, form string) {
		return func(i int) (path, form string) { return loginPath, loginForm(t.victims[i%accounts], load.Password) }
	}
	page := func(i int) (path, form string) {
		_, form = wrong(i)
		return "/login", form
	}
	recoveries := func(int) (path, form string) {
		return "/api/v1/auth/recover", url.Values{"email": {randomEmail()}}.Encode()
	}
	if t.honest != "" {
		network := load.NewNetwork()
		one, many := func() string { return network }, load.NewNetwork
		useUp := func(ctx context.Context) error { return t.useUp(ctx, network) }
		return []kind{
			{name: "wrong logins, one network", promised: requestsGoOn, prepare: useUp, client: repeat(address, one, wrong)},
			{name: "unknown accounts, one network", promised: requestsGoOn, prepare: useUp, client: repeat(address, one, nobody)},
			{name: "wrong logins, many networks", promised: requestsGoOn, client: repeat(address, many, wrong)},
			{name: "unknown accounts, many networks", promised: requestsGoOn, client: repeat(address, many, nobody)},
			{name: "wrong logins on the page, many networks", promised: requestsGoOn, client: repeat(address, many, page)},
			{name: "right passwords of one account, one network", promised: othersLogIn, client: repeat(address, one, right(1)), connections: []int{64, othersPromisedUpTo}},
			{name: "right passwords of many accounts, one network", promised: othersLogIn, client: repeat(address, one, right(len(t.victims))), connections: []int{64, othersPromisedUpTo}},
			{name: "recoveries, many networks", client: repeat(address, many, recoveries)},
		}
	}
	nowhere := func() string { return "" }
	return []kind{
		{name: "wrong logins", promised: requestsGoOn, client: repeat(address, nowhere, wrong)},
		{name: "unknown accounts", promised: requestsGoOn, client: repeat(address, nowhere, nobody)},
		{name: "wrong logins on the page", promised: requestsGoOn, client: repeat(address, nowhere, page)},
		{name: "dead cookies", promised: requestsGoOn, client: oneByOne(address, nowhere, func(c *load.Conn, i int) (int, error) {
			return t.cookies.visit(c, i)
		})},
		{name: "wrong client secrets", promised: requestsGoOn, client: oneByOne(address, nowhere, func(c *load.Conn, _ int) (int, error) {
			return load.WrongSecret(c, t.app, t.code)
		})},
		{name: "forged codes", promised: requestsGoOn, client: oneByOne(address, nowhere, func(c *load.Conn, i int) (int, error) {
			return load.ForgedCode(c, t.app, forgeCode(t.code, i))
		})},
		{name: "anonymous requests for codes", promised: requestsGoOn, client: oneByOne(address, nowhere, func(c *load.Conn, _ int) (int, error) {
			return load.Anonymous(c, t.app)
		})},
		{name: "forged second steps", promised: requestsGoOn, client: repeat(address, nowhere, func(i int) (path, form string) {
			return loginPath, "otp=000000&auth_session=" + forge(t.forgeable, i) + "." + forge(t.forgeable, i)
		})},
		{name: "unknown passkeys", promised: requestsGoOn, client: oneByOne(address, nowhere, unknownPasskey())},
		{name: "recoveries", client: repeat(address, nowhere, recoveries)},
		{name: "forged renewals", promised: loginsGoOn, client: repeat(address, nowhere, func(i int) (path, form string) {
			return "/api/v1/auth/access_token", "refresh_token=" + forge(t.forgeable, i)
		})},
		{name: "slow bodies", timeout: 15 * time.Second, client: slowBody(address)},
		{name: "idle connections", timeout: 5 * time.Second, client: idle(address)},
	}
}

// publicURL is where kwai says that it is: passkeys are for a name, not for an address.
const (
	publicURL = "http://localhost:8080"
	atURL     = "--public-url=" + publicURL
)

// unknownPasskey answers a login by a passkey that nobody has registered. Its question is
// asked once for a thousand answers, which costs an attacker least.
func unknownPasskey() func(c *load.Conn, i int) (int, error) {
	key := passkeytest.New(publicURL, "localhost")
	key.Counter, key.UserHandle = 0, []byte(rand.Text()) // a counter would be written to by all at once
	var form atomic.Pointer[string]
	return func(c *load.Conn, i int) (int, error) {
		if form.Load() == nil || i%1000 == 0 {
			if status, err := c.Get("/login/passkey/options", ""); err != nil || status != http.StatusOK {
				return status, err
			}
			text := url.Values{"passkey": {string(key.Assert(c.Body()))}}.Encode()
			form.Store(&text)
		}
		return c.Post("/login/passkey", "", *form.Load())
	}
}

const loginPath = "/api/v1/auth/login"

const wrongPassword = "wrong " + load.Password

func loginForm(email, password string) string {
	return url.Values{"username": {email}, "password": {password}}.Encode()
}

func randomEmail() string { return rand.Text() + "@example.net" }

// forge makes the i-th refresh token that no key has made. Of two, one is well
// formed and names a key and a session that exist, so that only its MAC, the
// last 16 bytes, gives it away; the other is malformed in one of several ways.
func forge(token string, i int) string {
	raw, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil || len(raw) < 16 {
		panic("kwai's refresh tokens have another form now: " + token)
	}
	_, _ = rand.Read(raw[len(raw)-16:]) // never fails
	forged := base64.RawURLEncoding.EncodeToString(raw)
	switch i % 8 {
	case 0:
		return forged[1:]
	case 1:
		return forged + forged
	case 2:
		return "." + forged[1:] // no base64
	case 3:
		return "_" + forged[1:] // another version
	default:
		return forged
	}
}

// forgeCode is forge for a code: a key's id, and what that has sealed. Now and then the key
// is one that kwai hasn't.
func forgeCode(code string, i int) string {
	key, sealed, _ := strings.Cut(code, ".")
	if i%16 == 15 {
		key = fmt.Sprintf("%08x", i)
	}
	return key + "." + forge(sealed, i)
}

// useUp fails from a network until nothing is left of its allowance: from then on
// its floods are refused before anything is hashed.
func (t *target) useUp(ctx context.Context, network string) error {
	return load.InParallel(ctx, honestConnections, func(int) error {
		c := load.NewConnContext(ctx, t.server.Address)
		defer c.Close()
		c.From = network
		for {
			status, err := c.Post(loginPath, "", loginForm(randomEmail(), wrongPassword))
			if err != nil || status == http.StatusTooManyRequests {
				return err
			}
		}
	})
}

// repeat posts one form after the other; next makes the i-th of the flood's, and from
// tells the network it comes from.
func repeat(address string, from func() string, next func(i int) (path, form string)) client {
	return oneByOne(address, from, func(c *load.Conn, i int) (int, error) {
		path, form := next(i)
		return c.Post(path, "", form)
	})
}

// oneByOne sends one request after the other; send sends the flood's i-th.
func oneByOne(address string, from func() string, send func(c *load.Conn, i int) (status int, err error)) client {
	var turn atomic.Int64
	return func(ctx context.Context, seen *answers) {
		c := load.NewConnContext(ctx, address)
		defer c.Close()
		for ctx.Err() == nil {
			c.From = from()
			status, err := send(c, int(turn.Add(1)))
			switch {
			case ctx.Err() != nil: // the flood broke it off
			case err != nil:
				seen.add(brokenOff)
				pause(ctx)
			default:
				seen.add(status)
			}
		}
	}
}
