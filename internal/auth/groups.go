package auth

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"

	"kwai/internal/store"
)

var (
	groupName  = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)
	errNoGroup = refuse(NotFound, "There is no such group.")
)

// CreateGroup makes a group. Invalid for a bad name, Conflict if there is one.
func (s *Service) CreateGroup(ctx context.Context, name string) error {
	if !groupName.MatchString(name) {
		return InvalidFields(Field{Name: "group", Message: "Its name must be up to 64 letters, digits, dots, dashes and underscores."})
	}
	return s.Store.InTx(ctx, func(tx *store.Tx) error {
		if made, err := tx.InsertGroup(name); err != nil {
			return err
		} else if !made {
			return refuse(Conflict, "There is a group of that name already.")
		}
		return recordGroup(tx, AuditGroupCreated, name, "")
	})
}

// DeleteGroup deletes a group. Conflict while an app asks for it: without its last group
// an app would let everybody in.
func (s *Service) DeleteGroup(ctx context.Context, name string) error {
	return s.changeGroup(ctx, name, func(tx *store.Tx) error {
		apps, err := tx.AppsOfGroup(name)
		if err != nil {
			return err
		}
		if len(apps) > 0 {
			return refuse(Conflict, fmt.Sprintf("The app %s asks for the group: change it first, by kwai app update.", apps[0]))
		}
		if required, err := tx.RequiresTwoSteps(name); err != nil {
			return err
		} else if required { // its members' logins demand less then
			if err := tx.RequireTwoSteps(name, false); err != nil {
				return err
			}
		}
		if err := tx.DeleteGroup(name); err != nil {
			return err
		}
		return recordGroup(tx, AuditGroupDeleted, name, "")
	})
}

// RequireTwoSteps has a group's members log in by two steps, or no longer: who has no
// authenticator app enrols one at the next login. Logins that are under way end in
// nothing. Sessions go on.
func (s *Service) RequireTwoSteps(ctx context.Context, name string, on bool) error {
	return s.changeGroup(ctx, name, func(tx *store.Tx) error {
		if before, err := tx.RequiresTwoSteps(name); err != nil || before == on {
			return err
		}
		if err := tx.RequireTwoSteps(name, on); err != nil {
			return err
		}
		how := "off"
		if on {
			how = "on"
		}
		return recordGroup(tx, AuditGroupTwoSteps, name+" "+how, "")
	})
}

// AddMembers adds users to a group; those who are in it already stay.
func (s *Service) AddMembers(ctx context.Context, group string, who ...string) error {
	return s.changeMembers(ctx, group, AuditGroupJoined, who, (*store.Tx).AddMember)
}

// RemoveMembers takes users out of a group. What they may no longer use refuses them at
// the next look: at once, at kwai's own doors.
func (s *Service) RemoveMembers(ctx context.Context, group string, who ...string) error {
	return s.changeMembers(ctx, group, AuditGroupLeft, who, (*store.Tx).RemoveMember)
}

func (s *Service) changeMembers(ctx context.Context, group, kind string, who []string, change func(tx *store.Tx, group, userID string) (bool, error)) error {
	users := make([]store.User, len(who))
	for i, name := range who {
		user, err := s.User(ctx, name)
		if err != nil {
			return err
		}
		users[i] = user
	}
	// In one order, since each is locked: so two changes don't wait for each other.
	slices.SortFunc(users, func(a, b store.User) int { return cmp.Compare(a.ID, b.ID) })
	return s.changeGroup(ctx, group, func(tx *store.Tx) error {
		required, err := tx.RequiresTwoSteps(group)
		if err != nil {
			return err
		}
		for _, u := range users {
			if _, err := tx.LockUser(u.ID); err != nil {
				return gone(err)
			}
			changed, err := change(tx, group, u.ID)
			if err == nil && changed && required {
				err = tx.RaiseAuthVersion(u.ID)
			}
			if err == nil && changed {
				err = recordGroup(tx, kind, group, u.ID)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}

func (s *Service) changeGroup(ctx context.Context, name string, change func(*store.Tx) error) error {
	return s.Store.InTx(ctx, func(tx *store.Tx) error {
		if there, err := tx.LockGroup(name); err != nil {
			return err
		} else if !there {
			return errNoGroup
		}
		return change(tx)
	})
}

// Members lists a group's members; NotFound if there is no such group.
func (s *Service) Members(ctx context.Context, group string) ([]store.User, error) {
	err := errNoGroup
	groups, readErr := s.Store.Read(ctx).Groups()
	for _, g := range groups {
		if g.Name == group {
			err = nil
		}
	}
	if readErr != nil || err != nil {
		return nil, errors.Join(readErr, err)
	}
	return s.Store.Read(ctx).MembersOf(group)
}

// groupsThere refuses a group that isn't there, and keeps the others.
func groupsThere(tx *store.Tx, groups []string) error {
	for _, g := range groups {
		if there, err := tx.LockGroup(g); err != nil {
			return err
		} else if !there {
			return InvalidFields(Field{Name: "groups", Message: fmt.Sprintf("There is no group %q: kwai group create makes it.", g)})
		}
	}
	return nil
}

func recordGroup(tx *store.Tx, kind, group, user string) error {
	return record(tx, nextID(tx), Operator, happening{kind: kind, reason: ByCommand + ": " + group, user: user})
}
