package load

import (
	"context"
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"slices"

	"golang.org/x/crypto/argon2"

	"kwai/internal/password"
)

// Password is that of all accounts.
const Password = "correct horse battery"

// QuickCost makes hashes that cost next to nothing, QuickHashes are the flags of
// a server that makes such. Another server makes hashes of its own cost of them
// when their owners log in.
var (
	QuickCost   = password.Params{MemoryKiB: 64, Time: 1, Threads: 1}
	QuickHashes = []string{"--hash-memory=64", "--hash-time=1"}
)

// Hash is a hash of [Password] of that cost, as kwai stores it. All accounts may
// have the same: verifying it costs no less.
func Hash(p password.Params) string {
	salt := make([]byte, 16)
	key := argon2.IDKey([]byte(Password), salt, p.Time, p.MemoryKiB, p.Threads, 32)
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, p.MemoryKiB, p.Time, p.Threads,
		base64.RawStdEncoding.EncodeToString(salt), base64.RawStdEncoding.EncodeToString(key))
}

// Emails are n addresses: ann0@example.org and so on if name is ann.
func Emails(name string, n int) []string {
	emails := make([]string, n)
	for i := range emails {
		emails[i] = fmt.Sprintf("%s%d@example.org", name, i)
	}
	return emails
}

// AddAccounts adds accounts with these addresses and one hash of a password to a
// database which a server has made and none serves now. It writes past kwai:
// many at once, which kwai's own command doesn't do.
func AddAccounts(ctx context.Context, database string, emails []string, hash string) error {
	accounts := make([]Account, len(emails))
	for i, email := range emails {
		accounts[i] = Account{Email: email, Hash: hash}
	}
	return AddKinds(ctx, database, accounts)
}

// OpenSessions logs in n times, to each of the accounts in turn, and returns the
// sessions in random order.
func OpenSessions(ctx context.Context, address string, emails []string, n int) ([]Session, error) {
	const connections = 64
	opened := make([][]Session, connections)
	err := InParallel(ctx, connections, func(i int) error {
		c := NewConn(address)
		defer c.Close()
		for k := i; k < n && ctx.Err() == nil; k += connections {
			s, err := c.LogIn(emails[k%len(emails)], Password)
			if err != nil {
				return err
			}
			opened[i] = append(opened[i], s)
		}
		return ctx.Err()
	})
	sessions := slices.Concat(opened...)
	rand.Shuffle(len(sessions), func(i, j int) { sessions[i], sessions[j] = sessions[j], sessions[i] }) //nolint:gosec // no secret
	return sessions, err
}
