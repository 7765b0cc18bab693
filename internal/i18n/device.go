package i18n

import (
	"regexp"
	"strings"
)

// What is recognised in a User-Agent header; the first match counts. Browsers imitate
// one another, so the imitated ones come last.
var (
	programs = []known{
		{"Edg", "Edge"}, {"EdgA", "Edge"}, {"EdgiOS", "Edge"}, {"OPR", "Opera"}, {"SamsungBrowser", "Samsung Internet"},
		{"Vivaldi", "Vivaldi"}, {"Firefox", "Firefox"}, {"FxiOS", "Firefox"}, {"CriOS", "Chrome"}, {"Chrome", "Chrome"}, {"HeadlessChrome", "Chrome"},
		{"Safari", "Safari"}, {"curl", "curl"},
	}
	systems = []known{
		{"iPhone", "device.iphone"}, {"iPad", "device.ipad"}, {"Android", "Android"}, {"CrOS", "ChromeOS"}, {"Windows", "Windows"},
		{"Macintosh", "device.mac"}, {"Linux", "Linux"},
	}
	agentWord = regexp.MustCompile(`[A-Za-z]+`)
)

type known struct{ word, name string }

// Device names the program and the system in a User-Agent header, as "Firefox on
// Windows"; "" if it knows neither. The client chose the header's text, and in a
// notice about a thief the client is the thief. So only these names are shown.
func (l *Language) Device(userAgent string) string {
	there := make(map[string]bool)
	for _, word := range agentWord.FindAllString(userAgent, -1) {
		there[word] = true
	}
	var names []string
	for _, list := range [][]known{programs, systems} {
		for _, k := range list {
			if there[k.word] {
				name := k.name
				if l.Has(name) {
					name = l.Text(name)
				}
				names = append(names, name)
				break
			}
		}
	}
	if len(names) == 2 {
		return l.Text("device.of", "program", names[0], "system", names[1])
	}
	return strings.Join(names, "")
}
