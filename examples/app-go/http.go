package main

import (
	"encoding/json"
	"errors"
	"html/template"
	"log"
	"net/http"
	"os"
)

// credentials are what kwai app create prints.
type credentials struct {
	ID     string `json:"client_id"`
	Secret string `json:"client_secret"`
}

// settings reads the arguments, and the file that the first one names.
func settings() (app credentials, issuer, home string) {
	const usage = `usage: app-go FILE [ISSUER [HOME]]
FILE has what kwai app create printed, ISSUER is kwai's public URL (http://localhost:8080), HOME this app's (http://localhost:5000)`
	args := [...]string{"", "http://localhost:8080", "http://localhost:5000"}
	if n := copy(args[:], os.Args[1:]); n == 0 || n < len(os.Args)-1 {
		log.Fatal(usage)
	}
	text, err := os.ReadFile(args[0])
	check(err)
	if err := json.Unmarshal(text, &app); err != nil || app.ID == "" {
		log.Fatalf("%s does not hold what kwai app create prints", args[0])
	}
	return app, args[1], args[2]
}

type view struct{ Session, Failed any } // nil: none

var page = template.Must(template.New("").Parse(`<!DOCTYPE html><html lang="en"><title>Go app</title><link rel="icon" href="data:,">
{{with .Failed}}<p>{{.}}</p>{{end}}
{{with .Session}}<p>You are {{.Name}}, {{.Email}}.</p><a href="logout">Log out</a>{{else}}<p>Nobody is logged in.</p><a href="login">Log in</a>{{end}}`))

// told is an error that the user reads. The cause of others is in the log alone.
type told string

func (t told) Error() string { return string(t) }

// handle answers by a function that may fail.
func handle(pattern string, f func(http.ResponseWriter, *http.Request) error) {
	http.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		err := f(w, r)
		if err == nil {
			return
		}
		log.Printf("%q: %q", r.URL.Path, err) //nolint:gosec // quoted
		text, ok := errors.AsType[told](err)
		if !ok {
			text = "That did not work. Try again."
		}
		w.WriteHeader(http.StatusBadRequest)
		_ = page.Execute(w, view{Failed: text}) // an error here is a browser that went away
	})
}

func lead(w http.ResponseWriter, r *http.Request, to string) error {
	http.Redirect(w, r, to, http.StatusSeeOther)
	return nil
}

// setCookie keeps something in the browser. A real app is at https, and its cookies are Secure.
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

// check ends the program when it can't start.
func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
