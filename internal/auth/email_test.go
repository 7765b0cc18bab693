package auth_test

import (
	"errors"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"kwai/internal/auth"
)

// What looks alike, or is written in several ways: the same account or not.
func TestAddressesOfOneAccount(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, one, other string
		same             bool
	}{
		{"case", "Ann.Other@Example.ORG", "ann.other@example.org", true},
		{"spaces around", " \t" + ann + "\u00a0\r\n", ann, true},
		{"composed and decomposed", "ren\u00e9@example.org", "rene\u0301@example.org", true},
		{"marks in another order", "a\u0323\u0307@example.org", "a\u0307\u0323@example.org", true},
		{"sharp s", "stra\u00dfe@example.org", "STRASSE@example.org", true},
		{"capital sharp s", "stra\u1e9ee@example.org", "stra\u00dfe@example.org", true},
		{"final sigma", "\u03bf\u03c2@example.org", "\u039f\u03a3@example.org", true},
		{"Kelvin sign", "\u212aelvin@example.org", "kelvin@example.org", true}, // canonically a K
		{"dotless i", "ann\u0131@example.org", "anni@example.org", false},
		{"dotted capital I", "ann\u0130@example.org", "anni@example.org", false},
		{"full-width local part", "\uff41nn@example.org", ann, false},
		{"ligature", "\ufb01nn@example.org", "finn@example.org", true}, // full case folding
		{"Cyrillic a", "\u0430nn@example.org", ann, false},
		{"accent", "\u00e1nn@example.org", ann, false},
		{"plus sign", "ann+club@example.org", ann, false},
		{"dot", "a.nn@example.org", ann, false},

		{"IDN and punycode", "ann@b\u00fccher.example", "ann@XN--BCHER-KVA.example", true},
		{"IDN decomposed", "ann@bu\u0308cher.example", "ann@B\u00dcCHER.example", true},
		{"full-width domain", "ann@\uff25\uff38\uff21\uff2d\uff30\uff2c\uff25.org", ann, true},
		{"ideographic full stop", "ann@example\u3002org", ann, true},
		{"sharp s in the domain", "ann@stra\u00dfe.example", "ann@strasse.example", false},
		{"Cyrillic a in the domain", "ann@ex\u0430mple.org", ann, false},
		{"another domain", "ann@example.com", ann, false},
	} {
		one, err1 := auth.FoldEmail(c.one)
		other, err2 := auth.FoldEmail(c.other)
		if err := errors.Join(err1, err2); err != nil {
			t.Errorf("%s: %v", c.name, err)
		} else if (one == other) != c.same {
			t.Errorf("%s: %q and %q are the same account: %v", c.name, one, other, !c.same)
		}
	}
}

func TestAddressesThatAreNone(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("a", 64)
	domain := strings.Repeat("b23456789.", 18) + "example.or" // 190 bytes
	for name, c := range map[string]struct {
		email string
		good  bool
	}{
		"ASCII's atoms":              {"!#$%&'*+-/=?^_`{|}~@example.org", true},
		"one label":                  {"ann@localhost", true},
		"64 bytes before the @":      {long + "@example.org", true},
		"65 bytes before the @":      {long + "a@example.org", false},
		"65 bytes, 33 letters":       {strings.Repeat("é", 32) + "a@example.org", false},
		"254 bytes":                  {long[:63] + "@" + domain, true},
		"255 bytes":                  {long + "@" + domain, false},
		"a domain too long in DNS":   {"a@" + strings.Repeat("ü.", 60) + "org", false},
		"63 bytes in a label":        {"a@" + long[:63] + ".org", true},
		"64 bytes in a label":        {"a@" + long + ".org", false},
		"nothing":                    {"", false},
		"no @":                       {"ann", false},
		"nothing before the @":       {"@example.org", false},
		"nothing behind the @":       {"ann@", false},
		"two":                        {"ann@example.org,bob@example.org", false},
		"two @":                      {"ann@bob@example.org", false},
		"a name":                     {"Ann <ann@example.org>", false},
		"quoted":                     {`"ann"@example.org`, false},
		"quoted space":               {`"ann other"@example.org`, false},
		"comment":                    {"ann(me)@example.org", false},
		"comment in the domain":      {"ann@(here)example.org", false},
		"backslash":                  {`an\n@example.org`, false},
		"dot first":                  {".ann@example.org", false},
		"dot last":                   {"ann.@example.org", false},
		"two dots":                   {"an..n@example.org", false},
		"space":                      {"an n@example.org", false},
		"space before the @":         {"ann @example.org", false},
		"no-break space":             {"an\u00a0n@example.org", false},
		"NUL":                        {"ann\x00@example.org", false},
		"NUL last":                   {"ann@example.org\x00", false},
		"newline":                    {"ann@example.org\nBcc: bob@example.org", false},
		"newline before the @":       {"ann\r\n@example.org", false},
		"line separator":             {"ann\u2028@example.org", false},
		"right-to-left override":     {"a\u202enn@example.org", false},
		"isolate":                    {"a\u2066nn@example.org", false},
		"zero width joiner":          {"an\u200dn@example.org", false},
		"zero width space":           {"an\u200bn@example.org", false},
		"Hangul filler":              {"ann\u3164@example.org", false},
		"variation selector":         {"ann\ufe0f@example.org", false},
		"Braille blank":              {"ann\u2800@example.org", false},
		"domain: soft hyphen":        {"ann@exam\u00adple.org", false},
		"domain: zero width space":   {"ann@exam\u200bple.org", false},
		"byte order mark":            {"\ufeffann@example.org", false},
		"soft hyphen":                {"an\u00adn@example.org", false},
		"private use":                {"an\ue000n@example.org", false},
		"Greek question mark":        {"ann\u037e@example.org", false}, // canonically a semicolon
		"no UTF-8":                   {"ann\xff@example.org", false},
		"domain: dot last":           {"ann@example.org.", false},
		"domain: full-width dot":     {"ann@example.org\u3002", false},
		"domain: dot first":          {"ann@.example.org", false},
		"domain: two dots":           {"ann@example..org", false},
		"domain: only a soft hyphen": {"ann@\u00ad", false},
		"domain: underscore":         {"ann@exam_ple.org", false},
		"domain: hyphen first":       {"ann@-example.org", false},
		"domain: space":              {"ann@exam ple.org", false},
		"domain: port":               {"ann@example.org:25", false},
		"domain: path":               {"ann@example.org/a", false},
		"domain: literal":            {"ann@[127.0.0.1]", false},
		"domain: full-width slash":   {"ann@example.org\uff0fa", false},
		"domain: full-width @":       {"ann@bob\uff20example.org", false},
		"domain: override":           {"ann@exam\u202eple.org", false},
		"domain: joiner":             {"ann@exam\u200dple.org", false},
		"domain: broken punycode":    {"ann@xn--a.example", false},
		"domain: empty punycode":     {"ann@xn--.example", false},
	} {
		if key, err := auth.FoldEmail(c.email); (err == nil) != c.good {
			t.Errorf("%s: %q became %q, %v", name, c.email, key, err)
		}
	}
}

func FuzzFoldEmail(f *testing.F) {
	for _, email := range []string{
		ann, " Ren\u00e9@B\u00dcCHER.example\n", "\u0345\u0300@example.org", "\u1fef\u037e@example.org", "\u0130\u01c5\ufb03@stra\u00dfe.example",
		`"a b"@[127.0.0.1]`, "a@b@c", "a\u202e@b\u200d.c", "a@xn--bcher-kva.example.", strings.Repeat("\u0390", 32) + "@example.org",
	} {
		f.Add(email)
	}
	f.Fuzz(func(t *testing.T, email string) {
		key, err := auth.FoldEmail(email)
		if err != nil {
			if key != "" {
				t.Errorf("%q is refused, but becomes %q", email, key)
			}
			return
		}
		if len(key) > 4*254 || !utf8.ValidString(key) {
			t.Errorf("%q becomes %d bytes: %q", email, len(key), key)
		}
		at := strings.LastIndexByte(key, '@')
		for i, r := range key {
			if unicode.IsControl(r) || unicode.IsSpace(r) || !unicode.IsGraphic(r) || 'A' <= r && r <= 'Z' || i > at && r > unicode.MaxASCII {
				t.Errorf("%q becomes %q, with %U in it", email, key, r)
			}
		}
		again, err := auth.FoldEmail(key)
		switch tooLong := at > 64 || len(key) > 254; {
		case tooLong: // folded it is no address any more; nobody types it
		case err != nil:
			t.Errorf("%q becomes %q, which is refused", email, key)
		case again != key:
			t.Errorf("%q becomes %q, which becomes %q", email, key, again)
		}
	})
}
