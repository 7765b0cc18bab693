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
	// TwoSteps has it log in by two steps, with an authenticator app whose codes nobody knows.
	TwoSteps bool
}

// AddKinds adds accounts as [AddAccounts] does.
func AddKinds(ctx context.Context, database string, accounts []Account) error {
	now := time.Now().UnixMicro()
	columns := []string{"id", "email", "email_key", "first_name", "last_name", "password_hash", "password_cost", "password_set_at", "revoked_at", "created_at", "two_steps_at"}
	var stepped []any // their ids
	err := insert(ctx, database, "users", columns, len(accounts), func(i int) ([]any, error) {
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
		id := uuid.NewString()
		var steps any
		if a.TwoSteps {
			steps, stepped = now, append(stepped, id)
		}
		return []any{id, a.Email, key, "Ann", "Other", hash, cost, set, revoked, now, steps}, nil
	})
	if err != nil || len(stepped) == 0 {
		return err
	}
	columns = []string{"user_id", "secret", "last_step", "created_at"}
	return insert(ctx, database, "authenticators", columns, len(stepped), func(i int) ([]any, error) {
		return []any{stepped[i], "sealed by nobody", 0, now}, nil
	})
}
