package main

import (
	"context"
	"math/rand/v2"
	"strings"

	"golang.org/x/crypto/bcrypt"

	"kwai/bench/internal/load"
	"kwai/internal/password"
	"kwai/internal/testing/cluster"
)

// kind is what an address may be to kwai.
type kind int

const (
	known     kind = iota // an account with a password
	unknown               // no account
	revoked               // a revoked account with a password
	stepped               // an account with a password that needs a code, too
	invited               // an account whose user hasn't chosen a password yet
	malformed             // nobody's, as anyone can see: "a..b@example.org"
	other                 // an account of the others, whom the load is
	kinds
)

func (k kind) String() string {
	return [kinds]string{"known", "unknown", "revoked", "stepped", "invited", "malformed", "other"}[k]
}

// class is one of the costs that stored hashes have. They lie far apart, so that
// the time of an answer tells the class, to an attacker as to this program.
type class struct {
	name  string
	share int // of ten accounts that have a password
	hash  func() (string, error)
}

// classes are those of a site that came from bcrypt, has raised the parameters
// of its argon2id since, and had some of its users log in after that. The old
// ones are cheaper than they would be, for the sake of time.
var classes = [...]class{
	{"argon2id 2 MiB, 1 pass", 3, func() (string, error) { return load.Hash(password.Params{MemoryKiB: 2048, Time: 1, Threads: 1}), nil }},
	{"bcrypt 7", 3, func() (string, error) {
		hash, err := bcrypt.GenerateFromPassword([]byte(load.Password), 7)
		return string(hash), err
	}},
	{"argon2id of today", 4, func() (string, error) { return load.Hash(password.Default), nil }},
}

// today is the index of the class that new hashes have.
const today = len(classes) - 1

// classOf gives n accounts their classes in exactly these shares, ten by ten.
func classOf(i int) int {
	at := i % 10
	for c := range classes {
		if at -= classes[c].share; at < 0 {
			return c
		}
	}
	return today
}

// subject is an address that is asked for.
type subject struct {
	kind  kind
	email string
	made  int // the class of its hash; -1 where it has none
	found int // the class that its login's time shows; see findClasses
}

// scene is a kwai with accounts of all kinds.
type scene struct {
	kwai     cluster.Kwai
	subjects [kinds][]*subject
	failed   bool // each has failed where that is once too often: see throttle
}

// others is how many accounts the load has. By their shares too, so that they
// don't change the proportions in which costs occur.
const others = 40

// newScene makes kwai's database and so many accounts of each kind, and thinks
// up as many addresses without one. All have the same form and length, and which
// address is of which kind was tossed for.
func newScene(ctx context.Context, kwai cluster.Kwai, each int) (*scene, error) {
	s := &scene{kwai: kwai}
	server, err := kwai.Start(ctx) // makes the database
	if err != nil {
		return nil, err
	}
	server.Stop()
	var hashes [len(classes)]string
	for c := range classes {
		if hashes[c], err = classes[c].hash(); err != nil {
			return nil, err
		}
	}
	var accounts []load.Account
	for k := range kinds {
		n := each
		if k == other {
			n = others
		}
		for i := range n {
			u := &subject{kind: k, email: newAddress(), made: -1, found: -1}
			account := load.Account{Email: u.email, Revoked: k == revoked, TwoSteps: k == stepped}
			if k == known || k == revoked || k == stepped || k == other {
				u.made = classOf(i)
				account.Hash = hashes[u.made]
			}
			if k == malformed {
				u.email = u.email[:4] + ".." + u.email[6:]
			}
			if k != unknown && k != malformed {
				accounts = append(accounts, account)
			}
			s.subjects[k] = append(s.subjects[k], u)
		}
	}
	shuffle(accounts) // as it is where they came one by one
	return s, load.AddKinds(ctx, kwai.DatabaseURL(), accounts)
}

// newAddress thinks up an address; two are never the same.
func newAddress() string {
	var local strings.Builder
	for range 12 {
		local.WriteByte(byte('a' + toss(26)))
	}
	return local.String() + "@example.org"
}

// emails are the addresses of the others who have today's hashes: a login
// changes nothing about them that this program measures.
func (s *scene) emails() (emails []string) {
	for _, u := range s.subjects[other] {
		if u.made == today {
			emails = append(emails, u.email)
		}
	}
	return emails
}

// toss gives a number below n, shuffle an order: random, and no secret.
func toss(n int) int { return rand.IntN(n) } //nolint:gosec // no secret

func shuffle[T any](all []T) {
	rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] }) //nolint:gosec // no secret
}
