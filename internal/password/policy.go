package password

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/cases"
	"golang.org/x/text/unicode/norm"
)

// PolicyError means that a password can't be chosen. Message is for the user: it names
// the rule and what to do, never the password.
type PolicyError struct {
	Code    string // names the rule: too_short, too_long, untyped, common or personal
	Message string
}

func (e *PolicyError) Error() string { return e.Message }

var (
	errTooShort = &PolicyError{"too_short", fmt.Sprintf("The password is too short: use at least %d characters.", MinLength)}
	errTooLong  = &PolicyError{"too_long", fmt.Sprintf("The password is too long: use at most %d bytes (letters other than a to z take several).", MaxBytes)}
	errUntyped  = &PolicyError{"untyped", "The password contains characters that can't be typed, such as a line break: leave them out."}
	errCommon   = &PolicyError{"common", "The password is one of the most used ones and would soon be guessed: choose another one."}
	errPersonal = &PolicyError{"personal", "The password is made only of your name or e-mail address, digits and punctuation: add something others don't know, or choose another one."}
)

// CheckPolicy checks whether a password may be chosen: nil, or a [*PolicyError].
// There are no rules about kinds of characters (NIST SP 800-63B). A password must
//
//   - have [MinLength] code points after NFC, and at most [MaxBytes] bytes;
//   - be text without control characters, which no form could send again;
//   - not be on the blocklist, whatever its case;
//   - be more than the user's own words. personal is the user's address, first
//     name and last name, in any order, and other words that should not make up a
//     password, such as the site's name. Their words are removed, ignoring case and
//     punctuation; if there were any, a letter has to be left. So for Jigoro Kano
//     neither "KanoJigoro1860!" nor "jigoro@example.com" will do, but a longer
//     sentence with the name in it will.
func CheckPolicy(password string, personal ...string) error {
	t := normalise(password)
	switch {
	case t.tooLong:
		return errTooLong
	case !utf8.ValidString(t.nfc) || strings.ContainsFunc(t.nfc, unicode.IsControl):
		return errUntyped
	case utf8.RuneCountInString(t.nfc) < MinLength:
		return errTooShort
	}
	folded := fold(t.nfc)
	if blocked(folded) {
		return errCommon
	}
	if onlyPersonal(folded, personal) {
		return errPersonal
	}
	return nil
}

// fold makes texts equal that differ only in case or composition.
func fold(s string) string {
	return norm.NFC.String(cases.Fold().String(norm.NFC.String(s)))
}

func onlyPersonal(folded string, personal []string) bool {
	plain := squeeze(folded)
	left := plain
	for _, w := range words(personal) {
		// The space keeps the rest from forming new words.
		left = strings.ReplaceAll(left, w, " ")
	}
	return left != plain && !strings.ContainsFunc(left, isLetter)
}

// words are, of each text, the whole and the part before an @, both without
// punctuation, and the runs of letters. The longest come first: "kanoko" has to go
// before "kano" leaves its "ko" behind. Fewer than two letters or four digits mean
// nothing.
func words(texts []string) []string {
	var all []string
	for _, s := range texts {
		s = fold(s)
		local, _, _ := strings.Cut(s, "@")
		all = append(all, squeeze(s), squeeze(local))
		all = append(all, strings.FieldsFunc(s, func(r rune) bool { return !isLetter(r) })...)
	}
	all = slices.DeleteFunc(all, func(w string) bool {
		n := utf8.RuneCountInString(w)
		return n < 2 || n < 4 && !strings.ContainsFunc(w, isLetter)
	})
	slices.SortFunc(all, func(a, b string) int {
		return cmp.Or(cmp.Compare(len(b), len(a)), strings.Compare(a, b))
	})
	return slices.Compact(all)
}

// squeeze keeps only letters and digits.
func squeeze(s string) string {
	return strings.Map(func(r rune) rune {
		if isLetter(r) || unicode.IsNumber(r) {
			return r
		}
		return -1
	}, s)
}

// isLetter includes marks: without its vowel signs, a name in Devanagari falls to
// pieces.
func isLetter(r rune) bool { return unicode.IsLetter(r) || unicode.IsMark(r) }
