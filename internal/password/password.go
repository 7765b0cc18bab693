// Package password hashes passwords within bounds, verifies them, and decides which
// ones may be chosen.
//
// What it promises:
//
//   - A flood of logins takes neither all memory nor all cores. All hashing goes
//     through a [Pool]: a fixed number of workers, and a queue that is bounded in
//     length and in waiting time. A password that can't be hashed in time gets
//     [ErrBusy].
//   - Networks take turns at the queue ([InTurn]).
//   - In a server each worker has a process of its own, which gives way to
//     everything else on the machine.
//   - Known and unknown accounts cost the same work ([Pool.VerifyDummy]).
//   - A stored hash with costs out of bounds is an error, never endless work.
//
// The program begins with [RunWorker], and makes one Pool:
//
//	password.RunWorker() // the first thing in main
//	pool := password.NewPool(password.Options{Processes: true})
//	defer pool.Close()
//	hash, cost, err := pool.Hash(ctx, chosen)       // after CheckPolicy(chosen, …)
//	ok, stale, err := pool.Verify(ctx, hash, typed) // known account
//	if stale { … }                                  // hash again, with typed
//	err = pool.VerifyDummy(ctx, pool.Cost(), typed) // unknown account: the same work
//
// New hashes are argon2id in the PHC string format. Imported ones may be argon2id of
// other costs or bcrypt; check them with [Cost] when they come in.
//
// Files: pool.go the pool; queue.go the turns; work.go and process.go the workers;
// limits.go how many, and their share of a CPU quota; phc.go the hashes; policy.go and
// blocklist.go what may be chosen; metrics.go the metrics.
//
// See docs/architecture.md#package-password for why it is so.
//
// # Normalisation and length
//
// A password is brought to NFC before it is hashed, so that "é" typed as one code
// point or as two is the same password. An imported hash was made from the bytes as
// they were typed elsewhere, and no hash shows whether it was imported. So the raw
// bytes are tried first, then NFC if it differs, which is two hashes.
//
// bcrypt reads only 72 bytes, so its hash accepts every password that begins with the
// right 72 bytes. A login with at most 72 bytes replaces it. A login with more must
// not, since nobody knows what should follow (see [Pool.Verify]). argon2id hashes the
// whole password.
//
// Nothing else is truncated: a password of more than [MaxBytes] can't be chosen, and
// verifying one does the usual work and never matches.
//
// # The blocklist
//
// blocklist.txt holds the passwords of at least [MinLength] code points from the
// npm package @zxcvbn-ts/language-common, folded, sorted and without repetitions;
// blocklist.LICENSE is that package's licence. To make it again, in this folder:
//
//	npm pack @zxcvbn-ts/language-common@4.1.3
//	tar -xzOf zxcvbn-ts-language-common-4.1.3.tgz package/src/passwords.json |
//		go run blocklist_gen.go >blocklist.txt
package password

import (
	"errors"

	"golang.org/x/text/unicode/norm"
)

// MinLength is the least length of a password that is chosen, in code points
// after NFC (NIST SP 800-63B).
const MinLength = 8

// MaxBytes is the greatest length of a password, in bytes of UTF-8 after NFC.
const MaxBytes = 1024

// ErrBusy means that a password can't be hashed now: the queue is full, the wait was
// too long, or the pool is closed. It says nothing about the account.
var ErrBusy = errors.New("password: too busy to hash; try again later")

// typed is a password in the two forms that a hash may have been made from.
type typed struct {
	raw, nfc string
	tooLong  bool // both are cut, so that the work takes as long; never a match
}

func normalise(password string) typed {
	// No text shrinks to less than a quarter in NFC (the extreme is U+1FBE
	// U+0308 U+0301, 7 bytes to 2): anything longer needs no look.
	tooLong := len(password) > 4*MaxBytes
	if tooLong {
		password = password[:MaxBytes]
	}
	t := typed{raw: password, nfc: norm.NFC.String(password)}
	t.tooLong = tooLong || len(t.nfc) > MaxBytes
	if t.tooLong {
		t.nfc = t.nfc[:min(len(t.nfc), MaxBytes)]
	}
	return t
}
