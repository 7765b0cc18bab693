package auth

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/google/uuid"

	"kwai/internal/store"
)

// Import is an account of another system. All but Email may be zero: not given.
type Import struct {
	ID                         string // a UUID v4
	Email, FirstName, LastName string
	Hash                       string // bcrypt or argon2id
	CreatedAt, RevokedAt       time.Time
}

// Importable is an Import that was checked.
type Importable struct {
	store.User
	password store.Password
	ownID    bool // the id is the import's
	ownTime  bool // so is CreatedAt
}

// Cost is the kind of its hash and what verifying it costs; "" without one.
func (i Importable) Cost() string { return i.password.Cost }

// OwnID is the id that was given, or "".
func (i Importable) OwnID() string {
	if i.ownID {
		return i.ID
	}
	return ""
}

// CheckImport says what is wrong with an account of another system: its errors
// are Invalid. It computes no hash.
func (s *Service) CheckImport(i Import) (c Importable, err error) {
	if c.User, err = newUser(UserUpdate{Email: &i.Email, FirstName: &i.FirstName, LastName: &i.LastName}); err != nil {
		return c, err
	}
	if i.ID != "" {
		id, err := uuid.Parse(i.ID)
		if err != nil || len(i.ID) != len(c.ID) || id.Version() != 4 || id.Variant() != uuid.RFC4122 {
			return c, InvalidFields(Field{Name: "id", Message: "It must be a UUID of version 4."})
		}
		c.ID, c.ownID = id.String(), true
	}
	if i.Hash != "" {
		if c.password, err = importedHash(i.Hash); err != nil {
			return c, err
		}
		c.PasswordHash = i.Hash
	}
	c.ownTime = !i.CreatedAt.IsZero()
	if c.CreatedAt, err = s.pastTime("created_at", i.CreatedAt); err != nil {
		return c, err
	}
	c.RevokedAt, err = s.pastTime("revoked_at", i.RevokedAt)
	return c, err
}

// pastTime checks a time that was given, and rounds it as it is stored. Systems
// that have no empty time write one of long ago: that would revoke everybody.
func (s *Service) pastTime(field string, t time.Time) (time.Time, error) {
	switch {
	case t.IsZero():
		return t, nil
	case t.Unix() <= 0:
		return t, InvalidFields(Field{Name: field, Message: "It must be after 1970; leave it out where there is none."})
	case t.After(s.Store.Now().Add(time.Minute)):
		return t, InvalidFields(Field{Name: field, Message: "It is still to come."})
	}
	return t.UTC().Truncate(time.Microsecond), nil
}

// Imported is what became of an account that was imported.
type Imported int

// What can become of it.
const (
	Made         Imported = iota // or it would be, in a dry run
	ThereAlready                 // the same account is there; it stays as it is
	Taken                        // another account has its address or id
)

// ImportOptions say how accounts are imported.
type ImportOptions struct {
	Invite bool // those without a hash are mailed a link to choose a password
	DryRun bool // nothing is written
}

// ImportUsers makes accounts, all in one transaction. It returns what became of each,
// and in which fields an account that was there differs from it. Whether that is the
// same account follows from what can't be changed: so an import can be run again,
// whatever its users have done since.
func (s *Service) ImportUsers(ctx context.Context, batch []Importable, o ImportOptions) (became []Imported, differs [][]string, err error) {
	became, differs = make([]Imported, len(batch)), make([][]string, len(batch))
	if o.DryRun {
		for n, i := range batch {
			if became[n], differs[n], err = i.compare(s.Store.Read(ctx)); err != nil {
				return nil, nil, err
			}
		}
		return became, differs, nil
	}
	err = s.Store.InTx(ctx, func(tx *store.Tx) error {
		for n, i := range batch {
			became[n], differs[n] = Made, nil
			i.EmailProvenAt = tx.Now // an operator vouches
			made, err := tx.InsertUser(i.User, i.password)
			switch {
			case err != nil:
			case made:
				err = s.publishMade(tx, i.User, o.Invite)
			default:
				became[n], differs[n], err = i.compare(tx.Reader)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	return became, differs, err
}

// publishMade publishes that an account was made, and what it was made with.
func (s *Service) publishMade(tx *store.Tx, user store.User, invite bool) error {
	kinds := []string{EventCreated}
	switch {
	case !user.RevokedAt.IsZero():
		kinds = append(kinds, EventRevoked)
	case invite && user.PasswordHash == "":
		kinds = append(kinds, EventInvitation)
	}
	for _, kind := range kinds {
		if err := s.publish(tx, Operator, happening{kind: kind, reason: ByCommand, user: user.ID}); err != nil {
			return err
		}
	}
	return nil
}

// compare looks for the account, or what is in its way.
func (i Importable) compare(r store.Reader) (Imported, []string, error) {
	there, err := r.UserByEmail(i.EmailKey)
	if errors.Is(err, store.ErrNotFound) {
		there, err = r.UserByID(i.ID)
	}
	if errors.Is(err, store.ErrNotFound) {
		return Made, nil, nil
	}
	if err != nil {
		return 0, nil, err
	}
	differs := i.differs(there)
	if slices.ContainsFunc(differs, func(field string) bool { return field != "hash" && field != "revoked_at" }) {
		return Taken, differs, nil
	}
	return ThereAlready, differs, nil
}

// differs lists the fields, among those given, in which the two differ.
func (i Importable) differs(there store.User) (fields []string) {
	for _, f := range []struct {
		name  string
		given bool
		same  bool
	}{
		{"id", i.ownID, i.ID == there.ID},
		{"email", true, i.Email == there.Email},
		{"first_name", i.FirstName != "", i.FirstName == there.FirstName},
		{"last_name", i.LastName != "", i.LastName == there.LastName},
		{"created_at", i.ownTime, i.CreatedAt.Equal(there.CreatedAt)},
		{"hash", i.PasswordHash != "", i.PasswordHash == there.PasswordHash},
		{"revoked_at", !i.RevokedAt.IsZero(), !there.RevokedAt.IsZero()},
	} {
		if f.given && !f.same {
			fields = append(fields, f.name)
		}
	}
	return fields
}
