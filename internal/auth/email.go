package auth

import (
	"errors"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/net/idna"
	"golang.org/x/text/cases"
	"golang.org/x/text/unicode/norm"
)

// Lengths in bytes: RFC 5321, 4.5.3.1.1 (local part) and 4.5.3.1.3 (a path of
// 256, brackets included).
const (
	maxLocal = 64
	maxEmail = 254
)

var errEmail = errors.New("it is not an e-mail address")

// FoldEmail is the form by which an address is found: two addresses are the
// same account if their forms are equal. The local part is NFC and case-folded,
// the domain is what DNS would be asked for (IDNA). There is no NFKC and no
// rule about dots or plus signs: what differs for the eye differs here, and
// servers disagree about the rest.
func FoldEmail(email string) (string, error) {
	email = strings.TrimSpace(email)
	at := strings.LastIndexByte(email, '@')
	if at < 1 || at > maxLocal || len(email) > maxEmail || !utf8.ValidString(email) || strings.ContainsFunc(email, isInvisible) {
		return "", errEmail
	}
	// Folded first: NFC makes a semicolon of the Greek question mark.
	local := fold(email[:at])
	if !isLocal(local) {
		return "", errEmail
	}
	domain, err := domains.ToASCII(email[at+1:])
	if err != nil || strings.HasSuffix(domain, ".") {
		return "", errEmail
	}
	key := local + "@" + domain
	if len(key) > 4*maxEmail { // folding lengthens, at most so much
		return "", errEmail
	}
	return key, nil
}

// domains is idna.Lookup that also refuses what DNS can't hold: empty labels,
// labels and names that are too long.
var domains = idna.New(idna.MapForLookup(), idna.BidiRule(), idna.VerifyDNSLength(true))

// fold is idempotent: folding can undo NFC and composing can make a letter that
// folds again, so both are done until nothing changes.
func fold(s string) string {
	for range 4 {
		next := norm.NFC.String(cases.Fold().String(norm.NFC.String(s)))
		if next == s {
			break
		}
		s = next
	}
	return s
}

// isLocal accepts what RFC 6531 lets a local part be without quotes: its atoms,
// and beyond ASCII whatever can be seen. Controls, spaces, marks that change
// the direction of writing and invisible letters are refused, in the domain too:
// they serve to deceive.
func isLocal(s string) bool {
	if strings.HasPrefix(s, ".") || strings.HasSuffix(s, ".") || strings.Contains(s, "..") {
		return false
	}
	for _, r := range s {
		if strings.ContainsRune(`()<>[]:;@\,"`, r) || unicode.IsSpace(r) {
			return false
		}
	}
	return true
}

func isInvisible(r rune) bool {
	return !unicode.IsPrint(r) || unicode.Is(unicode.Variation_Selector, r) || showsNothing(r)
}

// showsNothing are those that Unicode counts as letters, marks or symbols though they
// show nothing (the last is Braille's blank).
func showsNothing(r rune) bool {
	return unicode.Is(unicode.Other_Default_Ignorable_Code_Point, r) || r == '\u2800'
}
