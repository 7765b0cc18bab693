// Command app-go is a web app that logs people in by kwai, and out: also when they log out
// at kwai. docs/apps.md has the commands that make the app at kwai and start this.
package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"
)

type session struct{ IDToken, SID, Name, Email string }

var sessions sync.Map // by the value of a cookie; a real app keeps them in its database

func main() {
	app, issuer, home := settings()
	provider, err := oidc.NewProvider(context.Background(), issuer)
	check(err)
	var metadata map[string]any
	check(provider.Claims(&metadata))
	verifier := provider.Verifier(&oidc.Config{ClientID: app.ID})
	config := oauth2.Config{
		ClientID: app.ID, ClientSecret: app.Secret, Endpoint: provider.Endpoint(), RedirectURL: home + "/callback",
		Scopes: []string{oidc.ScopeOpenID, "profile", "email"},
	}

	handle("GET /{$}", func(w http.ResponseWriter, r *http.Request) error {
		s, _ := sessions.Load(cookie(r, "session"))
		return page.Execute(w, view{Session: s})
	})
	handle("GET /login", func(w http.ResponseWriter, r *http.Request) error {
		state, nonce, pkce := rand.Text(), rand.Text(), oauth2.GenerateVerifier()
		setCookie(w, "attempt", strings.Join([]string{state, nonce, pkce}, "."))
		return lead(w, r, config.AuthCodeURL(state, oidc.Nonce(nonce), oauth2.S256ChallengeOption(pkce)))
	})
	handle("GET /callback", func(w http.ResponseWriter, r *http.Request) error {
		attempt := append(strings.Split(cookie(r, "attempt"), "."), "", "") // state, nonce, verifier
		if attempt[0] == "" || r.FormValue("state") != attempt[0] || r.FormValue("iss") != issuer {
			return fmt.Errorf("%w (error %q)", told("This is no answer to a login that this browser has begun here."), r.FormValue("error"))
		}
		setCookie(w, "attempt", "") // it is good once
		if r.FormValue("error") != "" {
			return told("kwai refuses: " + r.FormValue("error") + " " + r.FormValue("error_description"))
		}
		token, err := config.Exchange(r.Context(), r.FormValue("code"), oauth2.VerifierOption(attempt[2]))
		if err != nil {
			return err
		}
		text, _ := token.Extra("id_token").(string)
		id, err := verifier.Verify(r.Context(), text)
		if err == nil && id.Nonce != attempt[1] {
			err = errors.New("the ID token has another nonce")
		}
		if err != nil {
			return err
		}
		s, key := session{IDToken: text}, rand.Text()
		if err := id.Claims(&s); err != nil {
			return err
		}
		sessions.Store(key, s)
		setCookie(w, "session", key)
		return lead(w, r, home+"/")
	})
	handle("GET /logout", func(w http.ResponseWriter, r *http.Request) error {
		s, _ := sessions.LoadAndDelete(cookie(r, "session"))
		hint, _ := s.(session) // kwai logs the browser out, and leads back
		q := url.Values{"id_token_hint": {hint.IDToken}, "post_logout_redirect_uri": {home + "/"}}
		return lead(w, r, metadata["end_session_endpoint"].(string)+"?"+q.Encode())
	})
	handle("POST /logouts", func(_ http.ResponseWriter, r *http.Request) error { // kwai says who has logged out
		token, err := verifier.VerifyLogout(r.Context(), r.FormValue("logout_token"))
		if err != nil {
			return err
		}
		sessions.Range(func(key, s any) bool {
			if s.(session).SID == token.SessionID {
				sessions.Delete(key)
			}
			return true
		})
		return nil
	})
	fmt.Println("Open", home)
	check(http.ListenAndServe(strings.TrimPrefix(home, "http://"), nil)) //nolint:gosec // an example, on loopback
}
