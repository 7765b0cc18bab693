package token

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/google/uuid"
)

// RecoveryKey returns the id of the key under which new recovery ids are
// derived. Store it with the request: RecoveryID then returns the same id again, even
// if another key became active in between.
func (k *Keyring) RecoveryKey() string { return hex.EncodeToString(k.active.id[:]) }

// RecoveryID returns the unique id that is mailed for a request: a UUID of
// version 4 (RFC 9562) in its lower-case form, always the same for the same
// key and request, with 122 bits that nobody without the key can guess. It
// fails only if the keyring lacks the key.
func (k *Keyring) RecoveryID(keyID, requestID string) (string, error) {
	id, ok := parseMACID(keyID)
	key := k.macs[id]
	if !ok || key == nil {
		return "", fmt.Errorf("the server key %q of this recovery is not in the keyring: ask for a new recovery", keyID)
	}
	sum := sumString(key.recovery, requestID)
	u := uuid.UUID(sum[:16])
	u[6] = u[6]&0x0f | 0x40 // version 4
	u[8] = u[8]&0x3f | 0x80 // variant of RFC 9562
	return u.String(), nil
}

// ValidRecoveryID reports whether id has the one form of RecoveryID: a UUID of version
// 4, 36 characters, lower case. Nothing else is looked up.
func ValidRecoveryID(id string) bool {
	if len(id) != 36 {
		return false
	}
	for i := range len(id) {
		c := id[i]
		switch i {
		case 8, 13, 18, 23:
			if c != '-' {
				return false
			}
		default:
			if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
				return false
			}
		}
	}
	return id[14] == '4' && strings.IndexByte("89ab", id[19]) >= 0
}

// HashRecoveryID returns what is stored in place of a recovery id. A fast hash
// is enough: nobody can try 2^122 ids.
func HashRecoveryID(id string) []byte {
	sum := sha256.Sum256([]byte(id))
	return sum[:]
}

// DecoyFraction maps an address to a number in [0, 1), evenly over addresses. It is
// always the same for one address, and can't be known without the decoy key. It chooses
// the cost of the hash for an unknown address. The key does not rotate: a change would
// give unknown addresses away.
func (k *Keyring) DecoyFraction(address string) float64 {
	sum := sumString(k.decoy, address)
	return float64(binary.BigEndian.Uint64(sum[:])>>11) / (1 << 53)
}
