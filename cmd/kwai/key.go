package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"kwai/internal/auth"
	"kwai/internal/token"
)

type keyCmd struct {
	New    keyNewCmd    `cmd:"" help:"Print a new master key: a line for --master-key-file."`
	List   keyListCmd   `cmd:"" help:"List the server's keys and what each is used for."`
	Rotate keyRotateCmd `cmd:"" help:"Make the next keys of the server now."`
	Revoke keyRevokeCmd `cmd:"" help:"Take a key out that was stolen: nothing made with it is accepted any more."`
}

type keyNewCmd struct{}

func (keyNewCmd) Run(c console) error {
	_, err := fmt.Fprintln(c.out, token.NewMasterKey())
	return err
}

type keyListCmd struct {
	JSON bool `name:"json" help:"Print a JSON array."`
}

func (keyListCmd) Help() string {
	return "A key is next (published, not used yet), active, retired (what was made with it is accepted until it has expired) or expired. " +
		"Which master key seals it is shown where the master key file can be read."
}

// serverKeyView is a key as it is listed.
type serverKeyView struct {
	ID        string     `json:"id"`
	Purpose   string     `json:"purpose"`
	State     string     `json:"state"`
	CreatedAt time.Time  `json:"created_at"`
	ActiveAt  time.Time  `json:"active_at"`
	Until     *time.Time `json:"until"`                // when nothing made with it is accepted any more; null: not known yet
	SealedBy  string     `json:"master_key,omitempty"` // first, older or none
}

func (cmd keyListCmd) Run(ctx context.Context, s *Settings, c console) error {
	return withRules(ctx, s, c, func(rules *auth.Service) error {
		keys, err := auth.KeyStates(ctx, rules.Store, s.keyRules())
		if err != nil {
			return err
		}
		master, err := s.listingMaster(rules.Log)
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPermission) {
			return &usageError{"--master-key-file", err}
		}
		opened := 0
		views := make([]serverKeyView, len(keys))
		for i, key := range keys {
			views[i] = serverKeyView{
				ID: key.ID, Purpose: string(key.Purpose), State: string(key.State),
				CreatedAt: key.CreatedAt, ActiveAt: activeFrom(key.Key), Until: orNull(key.Until),
			}
			if master != nil {
				if views[i].SealedBy = sealedBy(master, key.Key); views[i].SealedBy != "none" {
					opened++
				}
			}
		}
		switch {
		case master == nil:
			fmt.Fprintf(c.err, "which master key seals them isn't known without the servers' --master-key-file: %s\n", oneLine(err))
		case opened == 0 && len(keys) > 0:
			fmt.Fprintf(c.err, "no master key in %s opens any of them: it is not the servers' --master-key-file\n", s.masterKeyFile())
		}
		if cmd.JSON {
			return writeJSON(c.out, views)
		}
		t := newTable(c.out, 0, "ID", "PURPOSE", "STATE", "MADE", "ACTIVE FROM", "ACCEPTED UNTIL", "MASTER KEY")
		for _, v := range views {
			until := "-"
			if v.Until != nil {
				until = formatTime(v.Until)
			}
			t.row(v.ID, v.Purpose, v.State, formatTime(&v.CreatedAt), formatTime(&v.ActiveAt), until, cmp.Or(v.SealedBy, "unknown"))
		}
		return t.Flush()
	})
}

// activeFrom is since when a key is used. One that took a revoked key's place has
// its time, which may be before it was made.
func activeFrom(key token.Key) time.Time {
	if from := key.ActiveAt; from.After(key.CreatedAt) {
		return from
	}
	return key.CreatedAt
}

func sealedBy(master *token.Master, key token.Key) string {
	switch number, ok := master.Under(key); {
	case !ok:
		return "none"
	case number == 0:
		return "first"
	}
	return "older"
}

type keyRotateCmd struct {
	Purpose string `enum:"sign,mac,id,all" default:"all" placeholder:"PURPOSE" help:"sign (access tokens), mac (refresh tokens, cookies, recoveries), id (ID tokens) or all (${default})."`
}

func (keyRotateCmd) Help() string {
	return "Nobody is logged out. The new keys are published first and used once everybody can know them: after twice --jwks-max-age and 3 s. " +
		"The old ones are accepted until the last that was made with them has expired. Servers follow by themselves."
}

func (cmd keyRotateCmd) Run(ctx context.Context, s *Settings, c console) error {
	of := []token.Purpose{token.Purpose(cmd.Purpose)}
	if cmd.Purpose == "all" {
		of = []token.Purpose{token.Sign, token.MAC, token.ID}
	}
	return withKeys(ctx, s, c, func(keys *auth.Keys) error {
		made, err := keys.Rotate(ctx, of...)
		if err != nil {
			return err
		}
		states, err := keys.States(ctx)
		if err != nil {
			return err
		}
		for _, key := range made {
			active := key.ActiveAt
			fmt.Fprintf(c.out, "%s key %s: published now, used from %s on\n", key.Purpose, key.ID, formatTime(&active))
			for _, old := range states {
				if old.Purpose == key.Purpose && old.State == token.Active {
					fmt.Fprintf(c.out, "%s key %s: used until then, what was made with it is accepted until %s\n", old.Purpose, old.ID, formatTime(&old.Until))
				}
			}
		}
		return nil
	})
}

type keyRevokeCmd struct {
	ID string `arg:"" help:"The key's id, as kwai key list shows it."`
}

func (keyRevokeCmd) Help() string {
	return "For a key that was stolen; to change one that wasn't, use rotate. When the command has ended, no server accepts a token made with the key. " +
		"If it was active, another one takes its place at once. " +
		"Of a sign key: access tokens made with it end, clients renew them; programs that check tokens by themselves know of it once they fetch the public keys again (--jwks-max-age). " +
		"Of a decoy key, which decides how long a login with an unknown address takes: that time changes. " +
		"Of a mac key: clients whose newest refresh token was made with it log in again, and recovery links made with it end. " +
		"Of a seal key: codes of apps end, and authenticator apps that were set up under it; their users need a recovery code, a passkey or kwai user reset-factors. " +
		"Sessions that a thief renewed with another key go on: end them by kwai user revoke or a new password."
}

func (cmd *keyRevokeCmd) Run(ctx context.Context, s *Settings, c console) error {
	return withKeys(ctx, s, c, func(keys *auth.Keys) error {
		r, err := keys.Revoke(ctx, cmd.ID)
		if err != nil {
			return err
		}
		if err := keys.SettleRevoked(ctx, r); err != nil {
			return fmt.Errorf("the key is revoked, but servers may go on with it for %v: %w", auth.KeysFollow, err)
		}
		fmt.Fprintf(c.out, "revoked the %s key %s (it was %s): nothing made with it is accepted any more\n", r.Purpose, r.ID, r.State)
		if r.Replacement != nil {
			fmt.Fprintf(c.out, "%s key %s is active instead\n", r.Replacement.Purpose, r.Replacement.ID)
		}
		switch {
		case r.Purpose == token.Decoy:
			fmt.Fprintln(c.out, "the time that a login with an unknown address takes may differ from before")
		case r.Purpose == token.MAC && r.State != token.Next:
			fmt.Fprintf(c.out, "clients whose newest refresh token was made with it must log in again; recoveries ended: %d\n", r.Recoveries)
		case r.Purpose == token.Seal:
			fmt.Fprintln(c.out, "authenticator apps that were set up under it work no longer: their users log in by a recovery code or a passkey, or after kwai user reset-factors")
		case r.State != token.Next:
			fmt.Fprintf(c.out, "clients renew their access tokens; programs that check them by themselves may take up to %s to know\n", formatDuration(s.JWKSMaxAge))
		}
		return nil
	})
}
