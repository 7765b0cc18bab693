package test

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
)

// pageSession is what a client's browser has of a session.
type pageSession struct {
	cookie   string // the newest that arrived
	replaced string // the one before; or ""
	leaving  bool   // a logout was cut off
	ended    string // the operation that ended it
}

// page does an operation on a page that must be answered with one of the statuses, as
// pageStatus has them, or cut off. Who is refused must be refused by all servers.
func (c *client) page(op, path, cookie string, want []int, fields ...string) (a answer, err error) {
	for _, server := range c.serversFor(want) {
		a, err = c.sendWith(server+path, pageHeader(cookie), form(fields...))
		if a, err = c.judge(server, op, a, err, pageStatus(a), want); err != nil {
			return a, err
		}
	}
	return a, nil
}

// pageStatus is that of an answer, but 401 where it leads to the login, unfresh where it
// leads to a fresh proof, and 200 where it leads on.
func pageStatus(a answer) int {
	if a.Status == http.StatusSeeOther {
		return a.visits()
	}
	return a.Status
}

// visitors are the statuses of visits by a cookie that is good, whether it is fresh.
var visitors = []int{http.StatusOK, unfresh}

const mostPages = 3

// pageStep does something on the pages at random.
func (c *client) pageStep() error {
	r := c.rng.IntN(100)
	if len(c.pages) == 0 || len(c.pages) < mostPages && r >= 90 {
		return c.browse()
	}
	s := c.pages[c.rng.IntN(len(c.pages))]
	switch {
	case r >= 80:
		return c.leave(s, false)
	case r >= 77:
		return c.leave(s, true)
	case r >= 72:
		return c.choose(s)
	case r >= 40:
		return c.visit(s)
	default:
		return c.prove(s)
	}
}

// browse logs in on the page.
func (c *client) browse() error {
	a, err := c.page(opPage, "/login", "", accepted, "username", c.email, "password", c.password)
	if err != nil {
		c.settle = c.browse
		return err
	}
	c.pages = append(c.pages, &pageSession{cookie: a.cookie()})
	return nil
}

func (c *client) visit(s *pageSession) error {
	_, err := c.page(opVisit, "/account/password", s.cookie, visitors)
	return err
}

func (c *client) prove(s *pageSession) error {
	a, err := c.page(opProve, "/login", s.cookie, accepted, "prove", "1", "username", c.email, "password", c.password)
	if err != nil {
		c.settle = func() error { return c.settleProof(s) }
		return err
	}
	if !sameSession(a.cookie(), s.cookie) {
		return errors.New("a proof in a live session opened another one")
	}
	s.replaced, s.cookie = s.cookie, a.cookie()
	return nil
}

// settleProof holds that proofs whose answers got lost logged nobody out.
func (c *client) settleProof(s *pageSession) error {
	if _, err := c.page(opVisitor, "/account", s.cookie, accepted); errors.Is(err, errCut) {
		c.settle = func() error { return c.settleProof(s) }
		return err
	} else if err != nil {
		return fmt.Errorf("the cookie from before a proof that was cut off: %w", err)
	}
	return c.prove(s)
}

// sameSession compares the sessions of two cookies.
func sameSession(a, b string) bool {
	const id = 28 // characters that hold version, key and most of the session's id
	return len(a) > id && len(b) > id && a[:id] == b[:id]
}

// leave logs out, here or everywhere. One that was cut off may have done it, or does it
// in between: the database may have it without its server.
func (c *client) leave(s *pageSession, everywhere bool) error {
	a, err := c.page(opVisitor, "/logout", s.cookie, acceptedOrRefused)
	again := func() error { return c.leave(s, everywhere) }
	if err != nil {
		c.settle = again
		return err
	}
	if pageStatus(a) == http.StatusOK {
		fields := []string{"form", a.seal()}
		if everywhere {
			fields = append(fields, "everywhere", "1")
		}
		statuses := accepted
		if s.leaving {
			statuses = acceptedOrRefused
		}
		if a, err = c.page(opLeave, "/logout", s.cookie, statuses, fields...); err != nil {
			s.leaving = true
			c.settle = again
			return err
		}
		if pageStatus(a) == http.StatusOK && a.leads() != "out" {
			return fmt.Errorf("a logout led to %q", a.leads())
		}
	} else if !s.leaving {
		return errors.New("a live session's cookie was refused at the logout")
	}
	if everywhere {
		c.endAll(opLeave, nil)
	}
	c.endPage(s, opLeave)
	return nil
}

func (c *client) endPage(s *pageSession, op string) {
	if i := slices.Index(c.pages, s); i >= 0 {
		s.ended = op
		for _, a := range c.apps {
			a.hears = a.hears || a.in == s && !a.deaf
		}
		c.endApps(s, op)
		c.pages = slices.Delete(c.pages, i, i+1)
		c.deadPages = append(c.deadPages, s)
	}
}

// endAll notes that all sessions have ended, but the one to keep.
func (c *client) endAll(op string, keep *pageSession) {
	for _, s := range c.live {
		s.ended = op
	}
	c.dead, c.live = append(c.dead, c.live...), nil
	for _, s := range slices.Clone(c.pages) {
		if s != keep {
			c.endPage(s, op)
		}
	}
}

// choose gives the account another password in a session that has proved lately.
func (c *client) choose(s *pageSession) error {
	a, err := c.page(opVisitor, "/account/password", s.cookie, visitors)
	if err != nil {
		return err
	}
	if pageStatus(a) == unfresh {
		return c.prove(s)
	}
	password := fmt.Sprintf("a password numbered %d", len(c.retired)+1)
	still := c.still.Load() != nil
	a, err = c.page(opChoose, "/account/password", s.cookie, accepted, "form", a.seal(), "password", password)
	if err != nil {
		c.settle = func() error { return c.settlePassword(s, password) }
		if still {
			c.settle = func() error { return c.overtake(password) }
		}
		return err
	}
	if a.leads() != "account?done=password" {
		return fmt.Errorf("a new password led to %q", a.leads())
	}
	if !sameSession(a.cookie(), s.cookie) {
		return errors.New("a new password opened another session")
	}
	s.replaced, s.cookie = s.cookie, a.cookie()
	c.changedIn(s, password)
	return nil
}

// verifyPages holds what was answered on the pages against what the server says now.
func (c *client) verifyPages() error {
	for _, s := range slices.Clone(c.pages) {
		if err := c.visit(s); err != nil {
			return fmt.Errorf("the newest cookie of a live session: %w", err)
		}
		c.add(c.checked, opPage)
		if s.replaced != "" {
			if _, err := c.page(opVisit, "/account/password", s.replaced, refused); err != nil {
				return fmt.Errorf("a cookie that was replaced, once the newest came back: %w", err)
			}
			c.add(c.checked, opProve)
		}
		before := s.cookie
		if err := c.prove(s); err != nil {
			return fmt.Errorf("a proof in a live session: %w", err)
		}
		if _, err := c.page(opVisit, "/account/password", before, []int{unfresh}); err != nil {
			return fmt.Errorf("the cookie from before a proof: %w", err)
		}
		if _, err := c.page(opVisit, "/account/password", s.cookie, accepted); err != nil {
			return fmt.Errorf("the cookie of a proof: %w", err)
		}
	}
	for i, s := range c.deadPages {
		if i < c.settledPages && c.rng.IntN(len(c.deadPages)) > 10 {
			continue
		}
		if _, err := c.page(opVisit, "/account/password", s.cookie, refused); err != nil {
			return fmt.Errorf("the cookie of a session that was ended by %s: %w", s.ended, err)
		}
		c.add(c.checked, s.ended)
	}
	c.settledPages = len(c.deadPages)
	return nil
}

// remove deletes an account by a command, under load; what was answered is final.
func (c *crash) remove(k *client) {
	c.t.Helper()
	if err := k.browse(); err != nil {
		c.t.Errorf("a login by page: %v", err)
		return
	}
	_, stderr, code := c.servers[0].command("", "user", "delete", k.email)
	if code != 0 && !mayBeBusy(stderr) {
		c.t.Errorf("kwai user delete: exit code %d: %s", code, stderr)
	}
	if code == 0 {
		c.added = slices.DeleteFunc(c.added, func(a *client) bool { return a == k })
		k.endAll(opDelete, nil)
		c.removed = append(c.removed, k)
	}
}

// verifyRemoved holds that nothing of accounts that were deleted is accepted.
func (c *crash) verifyRemoved() {
	c.t.Helper()
	for _, k := range c.removed {
		err := k.verifyPages()
		if err == nil {
			_, err = k.ask(opLogin, "", refused, "username", k.email, "password", k.password)
		}
		if err == nil {
			_, err = k.page(opPage, "/login", "", refused, "username", k.email, "password", k.password)
		}
		if err != nil {
			c.t.Errorf("an account that was deleted: %v", err)
		}
	}
}
