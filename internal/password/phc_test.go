package password_test

import (
	"encoding/base64"
	"strings"
	"testing"

	"golang.org/x/crypto/argon2"

	"kwai/internal/password"
)

// bcryptUU is a public test vector of crypt_blowfish: the hash of "U*U".
const bcryptUU = "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW"

// bcryptLong is another one: 72 bytes, and more that "are ignored".
const (
	bcryptLong   = "$2a$05$abcdefghijklmnopqrstuu5s2v8.iXieOjg/.AySBTTZIIVFJeBui"
	bcryptLongPw = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
)

// "café" in its two forms, hashed by x/crypto/bcrypt.
const (
	bcryptComposed   = "$2a$04$XXyzcFPea5s3o9rFvsrLFO6O.Mfp.gNspQvc2BcAWF.NFZD7XQkCe"
	bcryptDecomposed = "$2a$04$9haAkVjhJfD0.BlH/.okcuRVih2R5tupckDdG4siHEBZ3.7rJh7rm"
)

// argon2idOf hashes the bytes as they are, as other systems do.
func argon2idOf(password string) string {
	key := argon2.IDKey([]byte(password), []byte("somesalt"), 1, 64, 1, 32)
	return "$argon2id$v=19$m=64,t=1,p=1$c29tZXNhbHQ$" + base64.RawStdEncoding.EncodeToString(key)
}

// The argon2id vectors are the reference implementation's, the bcrypt ones
// crypt_blowfish's, but for those of "café".
func TestKnownAnswers(t *testing.T) {
	t.Parallel()
	p := newPool(t, password.Options{})
	for _, tt := range []struct {
		name, hash, password string
		want                 bool
	}{
		{"argon2id 64 MiB", "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc", "password", true},
		{"argon2id 256 KiB", "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4", "password", true},
		{"argon2id 2 threads", "$argon2id$v=19$m=256,t=2,p=2$c29tZXNhbHQ$bQk8UB/VmZZF4Oo79iDXuL5/0ttZwg2f/5U52iv1cDc", "password", true},
		{"argon2id another password", "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4", "Password", false},
		{"argon2id decomposed, typed alike", argon2idOf("cafe\u0301"), "cafe\u0301", true},
		{"argon2id decomposed, typed composed", argon2idOf("cafe\u0301"), "caf\u00e9", false},
		{"argon2id composed, typed decomposed", argon2idOf("caf\u00e9"), "cafe\u0301", true},
		{"argon2id Vietnamese keyboard", argon2idOf("m\u00e2\u0323t kh\u00e2\u0309u"), "m\u00e2\u0323t kh\u00e2\u0309u", true},
		{"argon2id Kelvin sign", argon2idOf("273 \u212a"), "273 \u212a", true},
		{"argon2id Kelvin sign, typed as a letter", argon2idOf("273 \u212a"), "273 K", false},
		{"argon2id letter, typed as the Kelvin sign", argon2idOf("273 K"), "273 \u212a", true},
		{"argon2id decomposed, another password", argon2idOf("cafe\u0301"), "cafe\u0300", false},
		{"bcrypt", bcryptUU, "U*U", true},
		{"bcrypt another password", bcryptUU, "U*V", false},
		{"bcrypt $2b$", "$2b$" + bcryptUU[4:], "U*U", true},
		{"bcrypt $2y$", "$2y$" + bcryptUU[4:], "U*U", true},
		{"bcrypt invalid UTF-8", "$2a$05$/OK.fbVrR/bpIqNJ5ianF.Sa7shbm4.OzKpvFnX1pQLmQW96oUlCq", "\xa3", true},
		{"bcrypt 72 bytes", bcryptLong, bcryptLongPw, true},
		{"bcrypt ignores what follows", bcryptLong, bcryptLongPw + "chars after 72 are ignored", true},
		{"bcrypt 71 bytes", bcryptLong, bcryptLongPw[:71], false},
		{"bcrypt too long a password", bcryptLong, bcryptLongPw + strings.Repeat("x", password.MaxBytes), false},
		{"bcrypt NUL", bcryptUU, "U*U\x00x", false},
		{"bcrypt composed, typed alike", bcryptComposed, "caf\u00e9", true},
		{"bcrypt composed, typed decomposed", bcryptComposed, "cafe\u0301", true},
		{"bcrypt decomposed, typed alike", bcryptDecomposed, "cafe\u0301", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := verify(t, p, tt.hash, tt.password); got != tt.want {
				t.Errorf("Verify = %v, want %v", got, tt.want)
			}
		})
	}
}

const (
	salt = "c29tZXNhbHQ"
	key  = "CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc"
	argo = "$argon2id$v=19$"
)

func TestCost(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, hash string
		cost       string // "": refused
		problem    string // what the refusal must name
	}{
		{"default", argo + "m=19456,t=2,p=1$" + salt + "$" + key, "argon2id m=19456,t=2,p=1", ""},
		{"dearest", argo + "m=262144,t=4,p=16$" + salt + "$" + key, "argon2id m=262144,t=4,p=16", ""},
		{"bcrypt", bcryptUU, "bcrypt 5", ""},
		{"bcrypt dearest", "$2y$14$" + bcryptUU[7:], "bcrypt 14", ""},
		{"bcrypt stray bits in the salt", strings.Replace(bcryptUU, "C.E", "C/E", 1), "bcrypt 5", ""},

		{"empty", "", "", "empty"},
		{"plain text", "password", "", "begin with"},
		{"argon2i", "$argon2i$v=19$m=256,t=2,p=1$" + salt + "$" + key, "", "begin with"},
		{"scrypt", "$scrypt$ln=16,r=8,p=1$" + salt + "$" + key, "", "begin with"},
		{"no version", "$argon2id$m=256,t=2,p=1$" + salt + "$" + key, "", "must read"},
		{"version 16", "$argon2id$v=16$m=256,t=2,p=1$" + salt + "$" + key, "", "version"},
		{"no key", argo + "m=256,t=2,p=1$" + salt, "", "must read"},
		{"a field too many", argo + "m=256,t=2,p=1$" + salt + "$" + key + "$", "", "must read"},
		{"another order", argo + "t=2,m=256,p=1$" + salt + "$" + key, "", "order"},
		{"keyid", argo + "m=256,t=2,p=1,keyid=AAAA$" + salt + "$" + key, "", "order"},
		{"a sign", argo + "m=+256,t=2,p=1$" + salt + "$" + key, "", "number"},
		{"a leading zero", argo + "m=0256,t=2,p=1$" + salt + "$" + key, "", "number"},
		{"no number", argo + "m=,t=2,p=1$" + salt + "$" + key, "", "number"},
		{"memory beyond 32 bits", argo + "m=4294967552,t=2,p=1$" + salt + "$" + key, "", "2^32"},
		{"4 GiB", argo + "m=4194304,t=1,p=1$" + salt + "$" + key, "", "memory (m)"},
		{"too little memory", argo + "m=15,t=1,p=2$" + salt + "$" + key, "", "memory (m)"},
		{"no pass", argo + "m=256,t=0,p=1$" + salt + "$" + key, "", "time (t)"},
		{"a million passes", argo + "m=8,t=1000000,p=1$" + salt + "$" + key, "", "time (t)"},
		{"memory times time", argo + "m=262144,t=5,p=1$" + salt + "$" + key, "", "times"},
		{"no thread", argo + "m=256,t=2,p=0$" + salt + "$" + key, "", "threads (p)"},
		{"257 threads", argo + "m=4096,t=2,p=257$" + salt + "$" + key, "", "threads (p)"},
		{"salt too short", argo + "m=256,t=2,p=1$c29tZQ$" + key, "", "salt"},
		{"salt too long", argo + "m=256,t=2,p=1$" + strings.Repeat("AAAA", 22) + "$" + key, "", "salt"},
		{"salt with padding", argo + "m=256,t=2,p=1$" + salt + "=$" + key, "", "salt"},
		{"salt with a line break", argo + "m=256,t=2,p=1$" + salt + "\n$" + key, "", "salt"},
		{"key too short", argo + "m=256,t=2,p=1$" + salt + "$AAAA", "", "key"},
		{"key too long", argo + "m=256,t=2,p=1$" + salt + "$" + strings.Repeat("AAAA", 22), "", "key"},
		{"key with stray bits", argo + "m=256,t=2,p=1$" + salt + "$" + key[:42] + "d", "", "key"},
		{"endless", argo + strings.Repeat("A", 1<<20), "", "bytes"},

		{"bcrypt too dear", "$2a$31$" + bcryptUU[7:], "", "cost"},
		{"bcrypt too cheap", "$2a$03$" + bcryptUU[7:], "", "cost"},
		{"bcrypt signed cost", "$2a$+5$" + bcryptUU[7:], "", "cost"},
		{"bcrypt too short", bcryptUU[:59], "", "60"},
		{"bcrypt too long", bcryptUU + "W", "", "60"},
		{"bcrypt line break", bcryptUU[:59] + "\n", "", "base64"},
		{"bcrypt foreign character", bcryptUU[:30] + "_" + bcryptUU[31:], "", "base64"},
		{"bcrypt that nothing matches", bcryptUU[:59] + "X", "", "base64"},
		{"bcrypt $2x$", "$2x$" + bcryptUU[4:], "", "begin with"},
		{"bcrypt $2$", "$2$" + bcryptUU[4:], "", "begin with"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			cost, err := password.Cost(tt.hash)
			if cost != tt.cost {
				t.Errorf("Cost = %q, want %q", cost, tt.cost)
			}
			switch {
			case tt.cost != "" && err != nil:
				t.Errorf("Cost: %v", err)
			case tt.cost == "" && (err == nil || !strings.Contains(err.Error(), tt.problem)):
				t.Errorf("Cost: %v, want an error about %q", err, tt.problem)
			case err != nil && (strings.Contains(err.Error(), key) || strings.Contains(err.Error(), bcryptUU[30:])):
				t.Errorf("Cost gives the key away: %v", err)
			}
		})
	}
}

func TestValidate(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		params  password.Params
		problem string
	}{
		{password.Default, ""},
		{tiny, ""},
		{password.Params{}, "threads"},
		{password.Params{MemoryKiB: 1024, Time: 1, Threads: 17}, "threads"},
		{password.Params{MemoryKiB: 1024, Threads: 1}, "time"},
		{password.Params{MemoryKiB: 1024, Time: 65, Threads: 1}, "time"},
		{password.Params{MemoryKiB: 31, Time: 1, Threads: 4}, "memory"},
		{password.Params{MemoryKiB: 256*1024 + 1, Time: 1, Threads: 1}, "memory"},
		{password.Params{MemoryKiB: 256 * 1024, Time: 5, Threads: 1}, "times"},
	} {
		err := tt.params.Validate()
		if (err == nil) != (tt.problem == "") || err != nil && !strings.Contains(err.Error(), tt.problem) {
			t.Errorf("Validate of %+v: %v, want one about %q", tt.params, err, tt.problem)
		}
	}
}

// FuzzPHC holds that no string makes the parser panic, and that what it accepts can be
// verified and its cost pretended.
func FuzzPHC(f *testing.F) {
	f.Add(argo + "m=8,t=1,p=1$" + salt + "$" + key)
	f.Add(argo + "m=64,t=3,p=4$" + strings.Repeat("AAAA", 21) + "$" + strings.Repeat("AAAA", 6))
	f.Add(argo + "m=00,t=-1,p=1e3$$")
	f.Add("$2b$04$" + bcryptUU[7:])
	f.Add("$2a$")
	f.Add(strings.Repeat("$", 60))
	cheap := map[string]bool{"bcrypt 4": true}
	for _, c := range []string{"m=8,t=1,p=1", "m=8,t=2,p=1", "m=64,t=3,p=4", "m=64,t=1,p=1"} {
		cheap["argon2id "+c] = true
	}
	p := newPool(f, password.Options{})
	f.Fuzz(func(t *testing.T, hash string) {
		cost, err := password.Cost(hash)
		if p.Stale(hash, "password") != (cost != p.Cost()) {
			t.Errorf("Stale = %v at cost %q", p.Stale(hash, "password"), cost)
		}
		if err != nil || !cheap[cost] {
			return
		}
		verify(t, p, hash, "password")
		if err := p.VerifyDummy(t.Context(), cost, "password"); err != nil {
			t.Errorf("VerifyDummy: %v", err)
		}
	})
}
