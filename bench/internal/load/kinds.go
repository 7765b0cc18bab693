package load

import (
	"context"
	"time"

	"github.com/google/uuid"

	"kwai/internal/auth"
	"kwai/internal/password"
)

// Account is one of several that differ in more than their addresses.
type Account struct {
	Email   string
	Hash    string // as kwai stores it; "": no password has been chosen yet
	Revoked bool
}

// AddKinds adds accounts as [AddAccounts] does.
func AddKinds(ctx context.Context, database string, accounts []Account) error {
	now := time.Now().UnixMicro()
	columns := []string{"id", "email", "email_key", "first_name", "last_name", "password_hash", "password_cost", "password_set_at", "revoked_at", "created_at"}
	return insert(ctx, database, "users", columns, len(accounts), func(i int) ([]any, error) {
		a := accounts[i]
		key, err := auth.FoldEmail(a.Email)
		if err != nil {
			return nil, err
		}
		var hash, cost, set, revoked any // null
		if a.Hash != "" {
			if cost, err = password.Cost(a.Hash); err != nil {
				return nil, err
			}
			hash, set = a.Hash, now
		}
		if a.Revoked {
			revoked = now
		}
		return []any{uuid.NewString(), a.Email, key, "Ann", "Other", hash, cost, set, revoked, now}, nil
	})
}
