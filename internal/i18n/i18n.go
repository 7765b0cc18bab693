// Package i18n has the texts of pages and mails, in each language.
//
// A language is one file, LANGUAGE.json: what is said by its key, the key's first
// word being the page or mail it stands on. A text may have {names}, which the
// caller gives:
//
//	i18n.English.Text("mail.greeting", "name", "Jigoro") // Hello Jigoro,
//
// To add a language, copy en.json, name it after the language (BCP 47) and
// translate the texts. The tests say what is missing.
package i18n

import (
	"cmp"
	"embed"
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/text/language"
)

//go:embed *.json
var files embed.FS

// Language has all texts in one language.
type Language struct {
	Code string // BCP 47: en
	Name string // in the language itself: English

	texts            map[string]string
	weekdays, months []string
}

var languages, matcher = load()

// English is the language in which all others fall back.
var English = Lookup("en")

func load() ([]*Language, language.Matcher) {
	names, err := fs.Glob(files, "*.json")
	if err != nil || len(names) == 0 {
		panic("i18n: no languages are embedded")
	}
	var all []*Language
	for _, name := range names {
		l := &Language{Code: strings.TrimSuffix(name, ".json")}
		content, err := files.ReadFile(name)
		if err == nil {
			err = json.Unmarshal(content, &l.texts)
		}
		if err != nil {
			panic(fmt.Sprintf("i18n: %s: %v", name, err))
		}
		l.Name = l.texts["language"]
		l.weekdays, l.months = strings.Split(l.texts["time.weekdays"], ","), strings.Split(l.texts["time.months"], ",")
		all = append(all, l)
	}
	// The first is what the matcher falls back to.
	slices.SortFunc(all, func(a, b *Language) int {
		if (a.Code == "en") != (b.Code == "en") {
			return map[bool]int{true: -1, false: 1}[a.Code == "en"]
		}
		return strings.Compare(a.Name, b.Name)
	})
	tags := make([]language.Tag, len(all))
	for i, l := range all {
		tags[i] = language.MustParse(l.Code)
	}
	return all, language.NewMatcher(tags)
}

// Languages are all that there are, English first.
func Languages() []*Language { return slices.Clone(languages) }

// Codes are the codes of Languages.
func Codes() []string {
	var codes []string
	for _, l := range languages {
		codes = append(codes, l.Code)
	}
	return codes
}

// Lookup is the language of that code; nil if there is none.
func Lookup(code string) *Language {
	for _, l := range languages {
		if l.Code == code {
			return l
		}
	}
	return nil
}

type preference struct {
	tag    language.Tag
	weight float32
}

// maxPreferences bounds the header that is read, in bytes: parsing a longer one
// costs more than it can be worth.
const maxPreferences = 200

// Match is the first language that the preferences name: each is a list as of
// the header Accept-Language (RFC 9110, 12.5.4), or empty, or of no use.
func Match(fallback *Language, preferences ...string) *Language {
	for _, p := range preferences {
		if len(p) > maxPreferences {
			p = p[:maxPreferences]
			p = p[:max(strings.LastIndexByte(p, ','), 0)]
		}
		if p == "" {
			continue
		}
		if l := matched.of(p); l != nil {
			return l
		}
	}
	return fallback
}

// matched remembers what lists have come to: browsers send few different ones, and each
// costs more than the page that is in the language.
var matched matches

type matches struct {
	mu    sync.RWMutex
	found map[string]*Language
}

// maxMatches bounds what is remembered. Beyond it all is forgotten.
const maxMatches = 1000

func (m *matches) of(list string) *Language {
	m.mu.RLock()
	l, ok := m.found[list]
	m.mu.RUnlock()
	if ok {
		return l
	}
	l = match(list)
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.found) == 0 || len(m.found) >= maxMatches {
		m.found = make(map[string]*Language)
	}
	m.found[strings.Clone(list)] = l
	return l
}

// match is nil where none of the list is a language that there is.
func match(list string) *Language {
	// One by one: a language that nobody knows must not hide the others.
	var wanted []preference
	for item := range strings.SplitSeq(list, ",") {
		tags, weights, err := language.ParseAcceptLanguage(item)
		if err == nil && len(tags) == 1 {
			wanted = append(wanted, preference{tags[0], weights[0]})
		}
	}
	slices.SortStableFunc(wanted, func(a, b preference) int { return cmp.Compare(b.weight, a.weight) })
	for _, w := range wanted {
		if _, i, confidence := matcher.Match(w.tag); confidence >= language.Low {
			return languages[i]
		}
	}
	return nil
}

// Text is the text of a key, in which each {name} is replaced by the value that
// follows the name in pairs. A key that isn't there is a bug, and panics.
func (l *Language) Text(key string, pairs ...any) string {
	text, ok := l.texts[key]
	if !ok {
		panic("i18n: no text " + key + " in " + l.Code)
	}
	if len(pairs) == 0 {
		return text
	}
	var filled strings.Builder
	for {
		before, rest, ok := strings.Cut(text, "{")
		filled.WriteString(before)
		if !ok {
			return filled.String()
		}
		name, after, _ := strings.Cut(rest, "}")
		filled.WriteString(valueOf(name, pairs))
		text = after
	}
}

func valueOf(name string, pairs []any) string {
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i] == name {
			return fmt.Sprint(pairs[i+1])
		}
	}
	return "{" + name + "}"
}

// Has says whether there is a text of that key.
func (l *Language) Has(key string) bool {
	_, ok := l.texts[key]
	return ok
}

// Keys are those of all texts, sorted.
func (l *Language) Keys() []string { return slices.Sorted(maps.Keys(l.texts)) }

// Time is a moment, in UTC, to the minute.
func (l *Language) Time(t time.Time) string {
	t = t.UTC()
	return l.Text("time.moment", "time", t.Format("15:04"), "weekday", l.weekdays[t.Weekday()],
		"day", strconv.Itoa(t.Day()), "month", l.months[t.Month()-1], "year", strconv.Itoa(t.Year()))
}

// Duration says a duration to the minute below two days, and to the hour above.
func (l *Language) Duration(d time.Duration) string {
	d = d.Round(time.Minute)
	if d < time.Minute {
		return l.Text("time.moments")
	}
	large, small, units := int(d/time.Hour), int(d%time.Hour/time.Minute), [2]string{"hour", "minute"}
	if d >= 48*time.Hour {
		d = d.Round(time.Hour)
		large, small, units = int(d/(24*time.Hour)), int(d%(24*time.Hour)/time.Hour), [2]string{"day", "hour"}
	}
	var parts []string
	for i, n := range []int{large, small} {
		switch {
		case n == 1:
			parts = append(parts, l.Text("time."+units[i]))
		case n > 1:
			parts = append(parts, l.Text("time."+units[i]+"s", "n", n))
		}
	}
	if len(parts) == 2 {
		return l.Text("time.and", "first", parts[0], "second", parts[1])
	}
	return parts[0]
}
