package password_test

import (
	"errors"
	"strings"
	"testing"
	"unicode/utf8"

	"kwai/internal/password"
)

func TestCheckPolicy(t *testing.T) {
	t.Parallel()
	kano := []string{"jigoro.kano@kodokan.example", "Jigor\u014d", "Kan\u014d"}
	for _, tt := range []struct {
		name, password string
		personal       []string
		problem        string // what the refusal must name; "": it may be chosen
	}{
		{"a sentence", "a throw on every mat", nil, ""},
		{"7", "k2v-x9q", nil, "too short"},
		{"8", "k2v-x9qz", nil, ""},
		{"code points, not bytes", "\u67d4\u9053\u67d4\u9053\u67d4\u9053\u67d4", nil, "too short"},
		{"8 code points", "\u67d4\u9053\u67d4\u9053\u67d4\u9053\u67d4\u9053", nil, ""},
		{"decomposed letters count once", "e\u0301e\u0301e\u0301e\u0301e\u0301e\u0301e\u0301", nil, "too short"},
		{"1024 bytes", strings.Repeat("x", 1024), nil, ""},
		{"1025 bytes", strings.Repeat("x", 1025), nil, "too long"},
		{"1024 bytes in NFC", strings.Repeat("e\u0301", 512), nil, ""},
		{"1025 bytes in NFC", strings.Repeat("e\u0301", 512) + "x", nil, "too long"},
		{"1 MiB", strings.Repeat("x", 1<<20), nil, "too long"},
		{"empty", "", nil, "too short"},
		{"invalid UTF-8", "k2v-x9qz\xff", nil, "can't be typed"},
		{"NUL", "k2v-\x00-x9qz", nil, "can't be typed"},
		{"a line break", "k2v-x9qz\n", nil, "can't be typed"},

		{"common", "qwertyuiop", nil, "most used"},
		{"common in capitals", "QwertyUiop", nil, "most used"},
		{"common with another K", "\u212aingston", nil, "most used"}, // Kelvin sign
		{"common and more", "password for the dojo", nil, ""},

		{"address", "jigoro.kano@kodokan.example", kano, "name or e-mail"},
		{"address in capitals", "Jigoro.Kano@Kodokan.example", kano, "name or e-mail"},
		{"local part", "jigoro.kano", kano, "name or e-mail"},
		{"local part, other punctuation", "Jigoro_Kano", kano, "name or e-mail"},
		{"first name and digits", "Jigor\u014d1860!", kano, "name or e-mail"},
		{"decomposed name", "Jigoro\u03041860!", kano, "name or e-mail"},
		{"digits and last name", "1860-kan\u014d", kano, "name or e-mail"},
		{"both names", "jigor\u014dkan\u014d", kano, "name or e-mail"},
		{"both names, swapped", "Kan\u014d, Jigor\u014d", kano, "name or e-mail"},
		{"a name twice", "kanokano", kano, "name or e-mail"},
		{"the domain", "kodokan2024", kano, "name or e-mail"},
		{"a name among other words", "kano throws high", kano, ""},
		{"what is left forms no name", "maannabelry1860", []string{"", "Annabel", "Mary"}, ""},
		{"somebody else's name", "KyuzoMifune1883", kano, ""},

		{"short names alone", "Li-Wu-1860", []string{"l@wu.example", "Li", "Wu"}, "name or e-mail"},
		{"a short name within words", "little lions live", []string{"l@wu.example", "Li", "Wu"}, ""},
		{"initials ban nothing", "a4711b0815", []string{"", "A", "B"}, ""},
		{"a name with punctuation", "ONeil-1860", []string{"", "Sam", "O'Neil"}, "name or e-mail"},
		{"a name in vowel signs", "\u0939\u093f\u0928\u094d\u0926\u0940123", []string{"", "\u0939\u093f\u0928\u094d\u0926\u0940", ""}, "name or e-mail"},
		{"address of digits", "73458912", []string{"73458912@qq.example"}, "name or e-mail"},
		{"digits alone are nobody's", "82736451928", []string{"12@qq.example", "Li", "Wu"}, ""},
		{"address with digits", "judoka1860!", []string{"judoka1860@club.example"}, "name or e-mail"},
		{"address with other digits", "judoka1861!", []string{"judoka1860@club.example"}, "name or e-mail"},
		{"nobody", "jigoro.kano", []string{"", "", ""}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			err := password.CheckPolicy(tt.password, tt.personal...)
			var refused *password.PolicyError
			switch {
			case tt.problem == "":
				if err != nil {
					t.Errorf("refused: %v", err)
				}
			case !errors.As(err, &refused) || !strings.Contains(refused.Message, tt.problem):
				t.Errorf("CheckPolicy: %v, want a PolicyError about %q", err, tt.problem)
			case tt.password != "" && strings.Contains(err.Error(), tt.password):
				t.Errorf("the message repeats the password: %v", err)
			}
		})
	}
}

func TestBlocklist(t *testing.T) {
	t.Parallel()
	lines := strings.Split(strings.TrimSuffix(password.Blocklist, "\n"), "\n")
	if len(lines) < 10_000 {
		t.Fatalf("the list has only %d lines", len(lines))
	}
	for i, line := range lines {
		if utf8.RuneCountInString(line) < password.MinLength || i > 0 && line <= lines[i-1] {
			t.Fatalf("line %d, %q, is too short or out of order", i+1, line)
		}
		if password.CheckPolicy(line) == nil {
			t.Errorf("%q is listed and may be chosen", line)
		}
		if near := line + "~|"; password.CheckPolicy(near) != nil {
			t.Errorf("%q is not listed and may not be chosen", near)
		}
	}
}

func BenchmarkCheckPolicy(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if err := password.CheckPolicy("a throw on every mat", "jigoro.kano@kodokan.example", "Jigoro", "Kano"); err != nil {
			b.Fatal(err)
		}
	}
}
