package i18n_test

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"kwai/internal/i18n"
)

var placeholder = regexp.MustCompile(`\{\w*\}`)

func placeholders(text string) []string {
	found := placeholder.FindAllString(text, -1)
	slices.Sort(found)
	return slices.Compact(found)
}

// Each language has the texts that English has, and no more, with the same names
// in them.
func TestEveryLanguageHasEveryText(t *testing.T) {
	t.Parallel()
	if len(i18n.Languages()) < 4 {
		t.Fatal("languages are missing")
	}
	for _, l := range i18n.Languages() {
		if diff := cmp.Diff(i18n.English.Keys(), l.Keys()); diff != "" {
			t.Errorf("%s has other texts than English (-English +%s):\n%s", l.Code, l.Code, diff)
			continue
		}
		for _, key := range l.Keys() {
			text := l.Text(key)
			if want, got := placeholders(i18n.English.Text(key)), placeholders(text); !slices.Equal(want, got) {
				t.Errorf("%s %s has %v, English has %v", l.Code, key, got, want)
			}
			if strings.TrimSpace(text) == "" || text != strings.TrimSpace(text) {
				t.Errorf("%s %s is empty, or has spaces around it", l.Code, key)
			}
			if strings.Count(text, "{") != strings.Count(text, "}") || strings.ContainsAny(text, "<>\n\t") {
				t.Errorf("%s %s has half a name, markup or a line break: %q", l.Code, key, text)
			}
			if l != i18n.English && len(text) > 25 && text == i18n.English.Text(key) {
				t.Errorf("%s %s isn't translated", l.Code, key)
			}
		}
	}
}

func TestMatch(t *testing.T) {
	t.Parallel()
	dutch := i18n.Lookup("nl")
	for _, tt := range []struct {
		preferences []string
		want        string
	}{
		{nil, "nl"},
		{[]string{"fr"}, "fr"},
		{[]string{"de-CH, fr;q=0.5"}, "de"},
		{[]string{"", "en-GB,en;q=0.9"}, "en"},
		{[]string{"ja", "fr-CA"}, "fr"},
		{[]string{"ja"}, "nl"},
		{[]string{"*"}, "nl"},
		{[]string{"!!", "de"}, "de"},
		{[]string{"nl-BE"}, "nl"},
		{[]string{strings.Repeat("ja,", 70) + "fr"}, "nl"},
		{[]string{"de," + strings.Repeat("x", 8192)}, "de"},
		{[]string{strings.Repeat("-", 8192), "fr"}, "fr"},
	} {
		if got := i18n.Match(dutch, tt.preferences...).Code; got != tt.want {
			t.Errorf("%.60q: got %s, want %s", tt.preferences, got, tt.want)
		}
	}
	if i18n.Lookup("xx") != nil {
		t.Error("there is a language xx")
	}
}

// Whatever lists browsers make up, each is answered as the first time.
func TestMatchesAreForgotten(t *testing.T) {
	t.Parallel()
	for range 2 {
		for i := range 3000 {
			if got := i18n.Match(i18n.English, fmt.Sprintf("x%d, fr;q=0.5", i)); got.Code != "fr" {
				t.Fatalf("list %d: %s", i, got.Code)
			}
			if got := i18n.Match(i18n.English, fmt.Sprintf("x%d", i), "de"); got.Code != "de" {
				t.Fatalf("list %d of nothing: %s", i, got.Code)
			}
		}
	}
}

func TestText(t *testing.T) {
	t.Parallel()
	if got := i18n.English.Text("mail.greeting", "name", "{email}"); got != "Hello {email}," {
		t.Errorf("got %q", got)
	}
	if got := i18n.English.Text("mail.greeting", "email", "x"); got != "Hello {name}," {
		t.Errorf("without its value: %q", got)
	}
	defer func() {
		if recover() == nil {
			t.Error("a text that isn't there doesn't panic")
		}
	}()
	i18n.English.Text("nowhere")
}

func TestTimes(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 3, 1, 9, 5, 0, 0, time.UTC)
	for code, want := range map[string][2]string{
		"en": {"09:05 UTC on Sunday 1 March 2026", "2 days and 1 hour"},
		"nl": {"zondag 1 maart 2026 om 09:05 uur UTC", "2 dagen en 1 uur"},
		"fr": {"dimanche 1 mars 2026 à 09:05 UTC", "2 jours et 1 heure"},
		"de": {"Sonntag, 1. März 2026, 09:05 Uhr UTC", "2 Tage und 1 Stunde"},
	} {
		l := i18n.Lookup(code)
		if got := [2]string{l.Time(at), l.Duration(49 * time.Hour)}; got != want {
			t.Errorf("%s: got %q, want %q", code, got, want)
		}
	}
	for d, want := range map[time.Duration]string{
		time.Second: "less than a minute", time.Minute: "1 minute", 2 * time.Hour: "2 hours",
		time.Hour + time.Minute: "1 hour and 1 minute", 72 * time.Hour: "3 days", 47 * time.Hour: "47 hours",
	} {
		if got := i18n.English.Duration(d); got != want {
			t.Errorf("%v: got %q, want %q", d, got, want)
		}
	}
}
