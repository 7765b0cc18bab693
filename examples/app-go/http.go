package main

import (
	"html/template"
	"log"
	"net/http"
)

var page = template.Must(template.New("").Parse(`<!DOCTYPE html><html lang="en"><title>Go app</title><link rel="icon" href="data:,">
{{with .}}<p>You are {{.Name}}, {{.Email}}.</p><a href="logout">Log out</a>{{else}}<p>Nobody is logged in.</p><a href="login">Log in</a>{{end}}`))

// handle answers by a function that may fail.
func handle(pattern string, f func(http.ResponseWriter, *http.Request) error) {
	http.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		if err := f(w, r); err != nil {
			log.Printf("%q: %v", r.URL.Path, err) //nolint:gosec // quoted
			http.Error(w, "That did not work. Try again.", http.StatusBadRequest)
		}
	})
}

func lead(w http.ResponseWriter, r *http.Request, to string) error {
	http.Redirect(w, r, to, http.StatusSeeOther)
	return nil
}

// setCookie keeps something in the browser. Over https, it is Secure, too.
func setCookie(w http.ResponseWriter, name, value string) {
	http.SetCookie(w, &http.Cookie{Name: name, Value: value, Path: "/", HttpOnly: true, SameSite: http.SameSiteLaxMode}) //nolint:gosec // over plain HTTP
}

func cookie(r *http.Request, name string) string {
	c, err := r.Cookie(name)
	if err != nil {
		return ""
	}
	return c.Value
}

// read has a function fill a value, at the start.
func read[T any](fill func(any) error) (v T) {
	check(fill(&v))
	return v
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
