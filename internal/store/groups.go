package store

import (
	"time"

	"kwai/internal/database"
)

// Group is a name for some users.
type Group struct {
	Name      string
	Members   int64
	TwoSteps  bool // its members must log in by two steps
	CreatedAt time.Time
}

// Groups lists all groups, by their names.
func (r Reader) Groups() ([]Group, error) {
	return database.QueryRows(r.db, func(scan database.Scan) (g Group, err error) {
		var twoSteps int64
		err = scan(&g.Name, &g.Members, &twoSteps, (*instant)(&g.CreatedAt))
		g.TwoSteps = twoSteps == 1
		return g, err
	}, `SELECT name, (SELECT COUNT(*) FROM group_members WHERE group_name = name), two_steps, created_at FROM user_groups ORDER BY name`)
}

// GroupsOf lists the names of a user's groups.
func (r Reader) GroupsOf(userID string) ([]string, error) {
	return database.QueryRows(r.db, database.Column[string], `SELECT group_name FROM group_members WHERE user_id = $1 ORDER BY group_name`, userID)
}

// MembersOf lists a group's members, by their addresses.
func (r Reader) MembersOf(group string) ([]User, error) {
	return database.QueryRows(r.db, scanUser, `SELECT `+userColumns+` FROM users JOIN group_members ON group_members.user_id = users.id
		WHERE group_members.group_name = $1 ORDER BY users.email_key`, group)
}

// AppsOfGroup lists the ids of the apps that a group may use.
func (r Reader) AppsOfGroup(group string) ([]string, error) {
	return database.QueryRows(r.db, database.Column[string], `SELECT app_id FROM app_groups WHERE group_name = $1 ORDER BY app_id`, group)
}

// RequiresTwoSteps says whether a group's members must log in by two steps, after
// LockGroup.
func (tx *Tx) RequiresTwoSteps(group string) (bool, error) {
	n, err := database.QueryRow(tx.db, database.Column[int64], `SELECT two_steps FROM user_groups WHERE name = $1`, group)
	return n == 1, err
}

// InsertGroup adds a group; false if there is one of that name.
func (tx *Tx) InsertGroup(name string) (bool, error) {
	n, err := tx.Exec(`INSERT INTO user_groups (name, created_at) VALUES ($1, $2) ON CONFLICT DO NOTHING`, name, micros(tx.Now))
	return n == 1, err
}

// LockGroup keeps a group as it is until the transaction ends; false if there is none.
func (tx *Tx) LockGroup(name string) (bool, error) {
	n, err := tx.Exec(`UPDATE user_groups SET name = name WHERE name = $1`, name)
	return n == 1, err
}

// DeleteGroup removes a group, after LockGroup. No app may ask for it.
func (tx *Tx) DeleteGroup(name string) error {
	if _, err := tx.Exec(`DELETE FROM group_members WHERE group_name = $1`, name); err != nil {
		return err
	}
	_, err := tx.Exec(`DELETE FROM user_groups WHERE name = $1`, name)
	return err
}

// AddMember adds a user to a group; false if it was there.
func (tx *Tx) AddMember(group, userID string) (bool, error) {
	n, err := tx.Exec(`INSERT INTO group_members (group_name, user_id) VALUES ($1, $2) ON CONFLICT DO NOTHING`, group, userID)
	return n == 1, err
}

// RemoveMember takes a user out of a group; false if it wasn't there.
func (tx *Tx) RemoveMember(group, userID string) (bool, error) {
	n, err := tx.Exec(`DELETE FROM group_members WHERE group_name = $1 AND user_id = $2`, group, userID)
	return n == 1, err
}

// LeaveGroups takes a user out of all groups.
func (tx *Tx) LeaveGroups(userID string) error {
	_, err := tx.Exec(`DELETE FROM group_members WHERE user_id = $1`, userID)
	return err
}
