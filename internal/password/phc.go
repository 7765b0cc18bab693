package password

import (
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Bounds of every hash that is made, stored or imported. They admit the defaults of
// common libraries, and keep the most expensive hash near a second of one core.
const (
	maxMemoryKiB = 256 * 1024
	maxTime      = 64
	maxThreads   = 16
	maxWork      = 1024 * 1024 // memory in KiB times passes: 1 GiB gone over once
	minSalt      = 8           // RFC 9106, section 3.1
	minKey       = 16
	maxSaltOrKey = 64
	minBcrypt    = 4 // the algorithm's own least
	maxBcrypt    = 14
	bcryptBytes  = 72 // what bcrypt reads of a password

	maxHashBytes = 512 // far above the longest hash within these bounds
)

// Params are the cost parameters of argon2id (RFC 9106, section 3.1).
type Params struct {
	MemoryKiB uint32 // memory, in KiB
	Time      uint32 // passes over the memory
	Threads   uint8  // lanes, computed in parallel
}

// Default is the first choice of the OWASP Password Storage Cheat Sheet for
// argon2id with a parallelism of 1.
var Default = Params{MemoryKiB: 19 * 1024, Time: 2, Threads: 1}

// Validate reports the parameter that is out of bounds, if any. The lower bounds are
// those of RFC 9106. They are far too weak for real passwords, but let tests be fast.
func (p Params) Validate() error {
	switch {
	case p.Threads < 1 || p.Threads > maxThreads:
		return fmt.Errorf("argon2id threads (p) must be from 1 to %d", maxThreads)
	case p.Time < 1 || p.Time > maxTime:
		return fmt.Errorf("argon2id time (t) must be from 1 to %d passes, not %d", maxTime, p.Time)
	case p.MemoryKiB < 8*uint32(p.Threads):
		return fmt.Errorf("argon2id memory (m) must be at least 8 KiB for each thread, %d KiB in all, not %d", 8*uint32(p.Threads), p.MemoryKiB)
	case p.MemoryKiB > maxMemoryKiB:
		return fmt.Errorf("argon2id memory (m) must be at most %d KiB, not %d", maxMemoryKiB, p.MemoryKiB)
	case uint64(p.MemoryKiB)*uint64(p.Time) > maxWork:
		return fmt.Errorf("argon2id memory (m) times time (t) must be at most %d KiB, not %d times %d", maxWork, p.MemoryKiB, p.Time)
	}
	return nil
}

// encode writes the parameters as in a PHC string.
func (p Params) encode() string {
	return fmt.Sprintf("m=%d,t=%d,p=%d", p.MemoryKiB, p.Time, p.Threads)
}

func parseParams(s string) (Params, error) {
	malformed := errors.New("argon2id parameters must read m=MEMORY,t=TIME,p=THREADS, in this order, each a number below 2^32")
	var n [3]uint64
	fields := strings.Split(s, ",")
	if len(fields) != len(n) {
		return Params{}, malformed
	}
	for i, name := range []string{"m=", "t=", "p="} {
		digits, ok := strings.CutPrefix(fields[i], name)
		var err error
		n[i], err = strconv.ParseUint(digits, 10, 32)
		if !ok || err != nil || len(digits) > 1 && digits[0] == '0' {
			return Params{}, malformed
		}
	}
	// A value that doesn't fit into a byte must not wrap into one that does.
	p := Params{MemoryKiB: uint32(n[0]), Time: uint32(n[1]), Threads: uint8(min(n[2], 255))}
	return p, p.Validate()
}

// cost is a parameter set of either algorithm.
type cost struct {
	argon2id Params
	bcrypt   int // 0: argon2id
}

func (c cost) String() string {
	if c.bcrypt != 0 {
		return fmt.Sprintf("bcrypt %d", c.bcrypt)
	}
	return "argon2id " + c.argon2id.encode()
}

func parseCost(s string) (c cost, err error) {
	switch name, rest, _ := strings.Cut(s, " "); name {
	case "argon2id":
		c.argon2id, err = parseParams(rest)
	case "bcrypt":
		c.bcrypt, err = parseBcryptCost(rest)
	default:
		err = errors.New("the cost must begin with argon2id or bcrypt")
	}
	return c, err
}

func parseBcryptCost(s string) (int, error) {
	n, err := strconv.ParseUint(s, 10, 8)
	if err != nil || n < minBcrypt || n > maxBcrypt {
		return 0, fmt.Errorf("bcrypt's cost must be from %d to %d", minBcrypt, maxBcrypt)
	}
	return int(n), nil
}

// stored is a hash that was parsed and is within bounds.
type stored struct {
	cost
	salt, key []byte // argon2id
	text      string // bcrypt
}

// dummy is a hash of the given cost that no password matches.
func (c cost) dummy() stored {
	if c.bcrypt != 0 {
		return stored{cost: c, text: fmt.Sprintf("$2b$%02d$%s", c.bcrypt, strings.Repeat(".", 53))}
	}
	return stored{cost: c, salt: make([]byte, saltBytes), key: make([]byte, keyBytes)}
}

// task is the work of one verification. It depends on the cost and on the typed
// password, never on why there is no match.
func (s stored) task(t typed) task {
	work := task{Bcrypt: s.text, Password: []byte(t.raw)}
	if s.bcrypt == 0 {
		work.Params, work.Salt, work.Size = s.argon2id, s.salt, uint32(len(s.key))
	}
	if t.raw != t.nfc {
		work.Or = []byte(t.nfc)
	}
	return work
}

// matches reports, by the task's result, whether the password was the right one.
func (s stored) matches(t typed, r result) bool {
	same := r.Matches
	if s.bcrypt == 0 {
		same = subtle.ConstantTimeCompare(r.Key, s.key)|subtle.ConstantTimeCompare(r.Or, s.key) == 1
	}
	return same && !t.tooLong
}

// Cost gives the canonical parameter set of a hash, such as "argon2id m=19456,t=2,p=1"
// or "bcrypt 10". Hashes that take the same work have the same cost.
//
// It is the check of a hash made elsewhere, too: argon2id in the PHC string format
// (v=19, no keyid, no data) or bcrypt ($2a$, $2b$, $2y$), well-formed, with its costs
// within bounds (argon2id: 256 MiB of memory, 64 passes, 16 threads, 1 GiB as the
// product of memory and passes, a salt of 8 to 64 bytes, a key of 16 to 64; bcrypt:
// costs of 4 to 14). The error says what is wrong and doesn't quote salt or key.
func Cost(hash string) (string, error) {
	s, err := parse(hash)
	if err != nil {
		return "", err
	}
	return s.cost.String(), nil
}

func parse(hash string) (s stored, err error) {
	switch {
	case hash == "":
		err = errors.New("it is empty")
	case len(hash) > maxHashBytes:
		err = fmt.Errorf("it has more than %d bytes", maxHashBytes)
	case strings.HasPrefix(hash, "$argon2id$"):
		s, err = parseArgon2id(hash)
	case strings.HasPrefix(hash, "$2a$"), strings.HasPrefix(hash, "$2b$"), strings.HasPrefix(hash, "$2y$"):
		s, err = parseBcrypt(hash)
	default:
		err = errors.New("it must begin with $argon2id$, $2a$, $2b$ or $2y$")
	}
	if err != nil {
		return stored{}, fmt.Errorf("password hash: %w", err)
	}
	return s, nil
}

func parseArgon2id(hash string) (s stored, err error) {
	fields := strings.Split(hash, "$") // "", argon2id, version, parameters, salt, key
	if len(fields) != 6 {
		return s, errors.New("argon2id must read $argon2id$v=19$m=…,t=…,p=…$SALT$KEY")
	}
	if fields[2] != "v=19" {
		return s, errors.New("argon2id must be of version 19 (v=19)")
	}
	if s.argon2id, err = parseParams(fields[3]); err != nil {
		return s, err
	}
	if s.salt, err = decode("salt", fields[4], minSalt); err != nil {
		return s, err
	}
	s.key, err = decode("key", fields[5], minKey)
	return s, err
}

// decode reads base64 as PHC strings have it: standard, no padding, no line
// breaks (which Go's decoder would skip).
func decode(what, s string, least int) ([]byte, error) {
	b, err := base64.RawStdEncoding.Strict().DecodeString(s)
	if err != nil || strings.ContainsAny(s, "\r\n") {
		return nil, fmt.Errorf("argon2id's %s must be base64 without padding", what)
	}
	if len(b) < least || len(b) > maxSaltOrKey {
		return nil, fmt.Errorf("argon2id's %s must have from %d to %d bytes, not %d", what, least, maxSaltOrKey, len(b))
	}
	return b, nil
}

// bcryptAlphabet is bcrypt's own base64.
var bcryptAlphabet = base64.NewEncoding("./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789").WithPadding(base64.NoPadding)

func parseBcrypt(hash string) (s stored, err error) {
	// $2b$ 10 $ 22 characters of salt, 31 of key
	if len(hash) != 60 || hash[6] != '$' {
		return s, errors.New("bcrypt must read $2b$COST$ and 53 characters, 60 in all")
	}
	if s.bcrypt, err = parseBcryptCost(hash[4:6]); err != nil {
		return s, err
	}
	// Some programs left stray bits in the salt's last character, which all
	// readers ignore. In the key's last character they could never match.
	salt, err := bcryptAlphabet.DecodeString(hash[7:29])
	key, err2 := bcryptAlphabet.Strict().DecodeString(hash[29:])
	if err != nil || err2 != nil || len(salt) != 16 || len(key) != 23 {
		return s, errors.New("bcrypt's salt or key is not bcrypt's base64: was a character lost or changed?")
	}
	s.text = hash
	return s, nil
}
