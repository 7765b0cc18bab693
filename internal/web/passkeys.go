package web

import (
	"cmp"
	_ "embed"
	"encoding/json"
	"errors"
	"net/http"
	"slices"

	"kwai/internal/auth"
)

//go:embed pages/passkey.js
var passkeyScript []byte

// script is the one script of the pages: without it there are no passkeys, and all else
// works.
var script = newFile(passkeyScript)

// passkeyJS answers GET /passkey.js.
func (s *Server) passkeyJS(w http.ResponseWriter, r *http.Request) error {
	return script.serve(w, r, "text/javascript; charset=utf-8")
}

// passkeyHost is the host that passkeys are for; "" where there can be none.
func (s *Server) passkeyHost() string {
	if s.PublicURL == nil {
		return ""
	}
	return auth.PasskeyHost(s.PublicURL.String())
}

// writeOptions answers with what a browser makes or shows a passkey by.
func writeOptions(w http.ResponseWriter, options json.RawMessage, err error) error {
	if err != nil {
		return err
	}
	w.Header().Set("Cache-Control", "no-store")
	return writeJSON(w, options)
}

// passkeyBack leads to the login who comes back to the page of a refused passkey.
func (s *Server) passkeyBack(w http.ResponseWriter, r *http.Request) error {
	return seeOther(w, r, "login")
}

// passkeyChallenge answers GET /login/passkey/options.
func (s *Server) passkeyChallenge(w http.ResponseWriter, r *http.Request) error {
	options, err := s.Rules.ChallengePasskey(r.Context())
	return writeOptions(w, options, err)
}

// passkeyLogin takes what the browser made of it: a login, or a fresh proof of the
// visitor.
func (s *Server) passkeyLogin(w http.ResponseWriter, r *http.Request) error {
	f, err := s.readForm(w, r)
	if err != nil {
		return err
	}
	page := loginPage{Stay: f.optional("stay") != "", Next: next(f.optional("next"))}
	answer := []byte(f.optional("passkey"))
	before, err := s.visitor(w, r)
	if err != nil && !errors.Is(err, auth.ErrNotLoggedIn) {
		return err
	}
	visits := err == nil
	var cookie auth.Cookie
	if page.Prove = visits && f.optional("prove") != ""; page.Prove {
		page.Email = before.User.Email
		cookie, err = s.Rules.ProvePasskey(r.Context(), s.pageClient(r), before, answer)
	} else {
		cookie, err = s.Rules.LoginPasskey(r.Context(), s.pageClient(r), answer, page.Stay)
	}
	if err != nil {
		return s.refuseLogin(w, r, page, err)
	}
	return s.enter(w, r, cookie, before, visits && !page.Prove, page.Next)
}

// passkeyRow is a row of "passkeys".
type passkeyRow struct {
	auth.Passkey
	Elsewhere bool   // it is for another host
	NewName   string // as the field has it
	Error     string // what is wrong with that; "" when nothing is
}

// passkeysPage is the data of "passkeys".
type passkeysPage struct {
	Rows   []passkeyRow
	Full   bool   // there can be no more
	Most   int    // so many
	Name   string // that a new one gets
	Error  string // what is wrong with that
	Notice string // why something can't be done
	Done   string // what has just been done; "": nothing
}

// Wrong says that something has to be put right.
func (p passkeysPage) Wrong() bool {
	return p.Error != "" || p.Notice != "" || slices.ContainsFunc(p.Rows, func(row passkeyRow) bool { return row.Error != "" })
}

// passkeysPage lists the visitor's passkeys.
func (s *Server) passkeysPage(w http.ResponseWriter, r *http.Request, v auth.Visitor) error {
	return s.showPasskeys(w, r, v, http.StatusOK, func(page *passkeysPage) { page.Done = s.done(r) })
}

func (s *Server) showPasskeys(w http.ResponseWriter, r *http.Request, v auth.Visitor, status int, change func(*passkeysPage)) error {
	found, err := s.Rules.Passkeys(r.Context(), v)
	if err != nil {
		return err
	}
	l, host := s.language(r), s.passkeyHost()
	page := passkeysPage{Full: len(found) >= auth.MaxPasskeys, Most: auth.MaxPasskeys, Name: cmp.Or(l.Device(r.UserAgent()), l.Text("passkey.one"))}
	for _, p := range found {
		page.Rows = append(page.Rows, passkeyRow{Passkey: p, Elsewhere: p.RPID != host, NewName: p.Name})
	}
	change(&page)
	return s.visitPage(w, r, v, status, "passkeys", page)
}

// passkeyOptions answers POST /account/passkeys/options. The form that is sent there is
// the page's, so that it is as fresh as that.
func (s *Server) passkeyOptions(w http.ResponseWriter, r *http.Request, v auth.Visitor, _ *form) error {
	options, err := s.Rules.OfferPasskey(r.Context(), v, s.Brand.Name)
	return writeOptions(w, options, err)
}

// passkeysForm adds or renames a passkey.
func (s *Server) passkeysForm(w http.ResponseWriter, r *http.Request, v auth.Visitor, f *form) error {
	name, renamed := f.optional("name"), f.optional("rename")
	if renamed == "" && !v.FreshForm {
		return proveFirst(w, r)
	}
	var err error
	done := "passkey-renamed"
	if client := s.pageClient(r); renamed != "" {
		err = s.Rules.RenamePasskey(r.Context(), client, v, renamed, name)
	} else {
		done = "passkey-added"
		err = s.Rules.AddPasskey(r.Context(), client, v, name, []byte(f.optional("passkey")))
	}
	switch {
	case errors.Is(err, auth.ErrNoPasskey): // it is gone already
		return seeOther(w, r, "account/passkeys")
	case err != nil:
		return s.refusePasskey(w, r, v, name, renamed, err)
	}
	return seeOther(w, r, "account/passkeys?done="+done)
}

// passkeyRemovePage asks whether a passkey is to be removed. One that is none of the
// visitor's, or is gone, leads to the list.
func (s *Server) passkeyRemovePage(w http.ResponseWriter, r *http.Request, v auth.Visitor) error {
	found, err := s.Rules.Passkeys(r.Context(), v)
	if err != nil {
		return err
	}
	id := r.URL.Query().Get("id")
	i := slices.IndexFunc(found, func(p auth.Passkey) bool { return p.ID == id })
	if i < 0 {
		return seeOther(w, r, "account/passkeys")
	}
	return s.visitPage(w, r, v, http.StatusOK, "passkeyremove", found[i])
}

// passkeyRemoveForm removes it.
func (s *Server) passkeyRemoveForm(w http.ResponseWriter, r *http.Request, v auth.Visitor, f *form) error {
	err := s.Rules.RemovePasskey(r.Context(), s.pageClient(r), v, f.optional("id"))
	switch {
	case errors.Is(err, auth.ErrNoPasskey): // it is gone already
		return seeOther(w, r, "account/passkeys")
	case err != nil:
		return err
	}
	return seeOther(w, r, "account/passkeys?done=passkey-removed")
}

// refusePasskey shows the page again, with what is wrong.
func (s *Server) refusePasskey(w http.ResponseWriter, r *http.Request, v auth.Visitor, name, renamed string, err error) error {
	refused, _ := errors.AsType[*auth.Error](err)
	l, wrong, notice := s.language(r), "", ""
	switch {
	case errors.Is(err, auth.ErrPasskeyAnswer), errors.Is(err, auth.ErrForm):
		notice = l.Text("passkey.not_made")
	case errors.Is(err, auth.ErrPasskeyThere):
		notice = l.Text("passkey.there")
	case errors.Is(err, auth.ErrManyPasskeys): // the page says so
	case refused != nil && len(refused.Fields) > 0:
		wrong = l.Text(refused.Fields[0].Code, "most", auth.MaxName)
	default:
		return err
	}
	return s.showPasskeys(w, r, v, s.explain(w, r, err).Status, func(page *passkeysPage) {
		page.Notice = notice
		if renamed == "" {
			page.Name, page.Error = name, wrong
			return
		}
		for i := range page.Rows {
			if row := &page.Rows[i]; row.ID == renamed {
				row.NewName, row.Error = name, wrong
			}
		}
	})
}
