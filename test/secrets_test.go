package test

import (
	"bytes"
	"crypto/sha256"
	"encoding/base32"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/uuid"

	"kwai/internal/token"
)

// The searcher of TestAStolenDatabase.

// encodings write a secret in all usual ways, by their names.
func encodings(secret []byte) map[string][]byte {
	reversed := slices.Clone(secret)
	slices.Reverse(reversed)
	quoted, _ := json.Marshal(string(secret))
	all := map[string][]byte{
		"raw": secret, "reversed": reversed, "in JSON": bytes.Trim(quoted, `"`), "quoted": []byte(strings.Trim(strconv.Quote(string(secret)), `"`)),
		"in a form": []byte(url.QueryEscape(string(secret))), "in a path": []byte(url.PathEscape(string(secret))),
		"hex": []byte(hex.EncodeToString(secret)), "HEX": []byte(strings.ToUpper(hex.EncodeToString(secret))),
		"hex, reversed": []byte(hex.EncodeToString(reversed)),
		"base32":        []byte(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(secret)),
	}
	// In base64 of a longer text a secret begins at one of three places; what
	// depends on its neighbours is left out.
	for at := range 3 {
		text := append(make([]byte, at), secret...)
		for name, e := range map[string]*base64.Encoding{"base64": base64.RawStdEncoding, "base64url": base64.RawURLEncoding} {
			inner := e.EncodeToString(text)
			from, to := (at*8+5)/6, len(text)*8/6
			all[fmt.Sprint(name, " at ", at)] = []byte(inner[from:to])
		}
	}
	return all
}

// secrets are what must be found nowhere, by what they are.
type secrets map[string][]byte

// written are the secrets in all encodings, by what they are and how.
func (s secrets) written() map[string][]byte {
	all := make(map[string][]byte)
	for what, secret := range s {
		for how, written := range encodings(secret) {
			all[what+", "+how] = written
		}
	}
	return all
}

// text adds a secret, and the hash of it that anybody could reverse by guessing.
func (s secrets) text(what, secret string) {
	s[what] = []byte(secret)
	sum := sha256.Sum256([]byte(secret))
	s[what+", its SHA-256"] = sum[:]
}

// key adds key material: any 16 bytes of it are too many.
func (s secrets) key(what string, key []byte) {
	for at := 0; at+16 <= len(key); at++ {
		s[fmt.Sprint(what, " from byte ", at)] = key[at : at+16]
	}
}

// tokens adds what a login or renewal answered.
func (s secrets) tokens(t *testing.T, what string, a answer) {
	t.Helper()
	access, refresh := a.field("access_token"), a.field("refresh_token")
	if access == "" || refresh == "" {
		t.Fatalf("%s: %v", what, a)
	}
	s[what+": the access token"], s[what+": the refresh token"] = []byte(access), []byte(refresh)
	s.key(what+": the access token's signature", decode(t, access[strings.LastIndexByte(access, '.')+1:]))
	plain := decode(t, refresh)
	s.key(what+": the refresh token's MAC", plain[len(plain)-16:])
}

// search looks for what is written and says what is there.
func search(text []byte, all map[string][]byte) (found []string) {
	for what, written := range all {
		if bytes.Contains(text, written) {
			found = append(found, what)
		}
	}
	slices.Sort(found)
	return found
}

// What the searcher doesn't find, TestAStolenDatabase wouldn't.
func TestSecretsAreFoundInEachEncoding(t *testing.T) {
	t.Parallel()
	key := []byte("\x00\x01key material \xff\xfe \"quoted\" / <&> ü 32 bytes")
	all := secrets{}
	all.text("a text", "pass \"word\" ü&x")
	all.key("a key", key)
	for what, planted := range map[string]string{
		"the text": all.plant("a text"), "its hash": string(all["a text, its SHA-256"]),
		"half of the key": string(key[9:25]), "the key in base64": "x" + base64.StdEncoding.EncodeToString(append([]byte("ab"), key...)),
		"the key in hex": hex.EncodeToString(key), "HEX": fmt.Sprintf("%X", key), "base64url": base64.URLEncoding.EncodeToString(key),
		"a URL": url.QueryEscape(all.plant("a text")), "a path": url.PathEscape(all.plant("a text")), "JSON": fmt.Sprintf("%q", all.plant("a text")),
		"base32": base32.StdEncoding.EncodeToString([]byte(all.plant("a text"))), "PHC, badly": "$sha256$" + base64.RawStdEncoding.EncodeToString(all["a text, its SHA-256"]),
	} {
		if len(search([]byte("some text\x00"+planted+"and more"), all.written())) == 0 {
			t.Errorf("%s isn't found", what)
		}
	}
	if found := search([]byte("nothing of it: pass word, key material"), all.written()); len(found) > 0 {
		t.Errorf("found in nothing: %q", found)
	}
}

func (s secrets) plant(what string) string { return string(s[what]) }

// id adds a recovery's unique id.
func (s secrets) id(what, id string) {
	plain := uuid.MustParse(id)
	s[what], s[what+", without hyphens"], s[what+", its bytes"] = []byte(id), []byte(strings.ReplaceAll(id, "-", "")), plain[:]
}

// keys adds the master key and the server's.
func (s secrets) keys(t *testing.T, of *site) {
	t.Helper()
	for line := range bytes.Lines(readFile(t, of.masterKey())) {
		if key, err := base64.StdEncoding.DecodeString(string(bytes.TrimSpace(line))); err == nil && len(key) > 0 {
			s.key("the master key", key)
		}
	}
	master, err := token.ParseMaster(readFile(t, of.masterKey()))
	if err != nil {
		t.Fatal(err)
	}
	n := len(s)
	for _, k := range of.keys() {
		plain, err := master.Open(k.Sealed, sealedFor(k.Purpose, k.ID))
		if err != nil {
			t.Fatal(err)
		}
		s.key("the "+k.Purpose+" key "+k.ID, plain)
	}
	if len(s) < n+2*16 {
		t.Fatal("there are no keys to look for")
	}
}
