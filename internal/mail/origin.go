package mail

import (
	"net/netip"
	"regexp"
	"strings"
	"time"
)

// Origin is when something happened, and where it came from.
type Origin struct {
	When      time.Time
	Address   string // of the client; may be empty
	UserAgent string // as the client wrote it; may be empty
}

func (o Origin) content() content {
	c := content{When: utc(o.When)}
	a, err := netip.ParseAddr(o.Address)
	if err != nil || a.Zone() != "" {
		return c
	}
	c.From = "The request came from the address " + a.String()
	if name := device(o.UserAgent); name != "" {
		c.From += ", from what calls itself " + name
	}
	c.From += "."
	return c
}

// What is recognised in a User-Agent header; the first match counts. Browsers imitate
// one another, so the imitated ones come last.
var (
	programs = []known{
		{"Edg", "Edge"}, {"EdgA", "Edge"}, {"EdgiOS", "Edge"}, {"OPR", "Opera"}, {"SamsungBrowser", "Samsung Internet"},
		{"Vivaldi", "Vivaldi"}, {"Firefox", "Firefox"}, {"FxiOS", "Firefox"}, {"CriOS", "Chrome"}, {"Chrome", "Chrome"},
		{"Safari", "Safari"}, {"curl", "curl"},
	}
	systems = []known{
		{"iPhone", "an iPhone"}, {"iPad", "an iPad"}, {"Android", "Android"}, {"CrOS", "ChromeOS"}, {"Windows", "Windows"},
		{"Macintosh", "a Mac"}, {"Linux", "Linux"},
	}
	agentWord = regexp.MustCompile(`[A-Za-z]+`)
)

type known struct{ word, name string }

// device names the program and the system in a User-Agent header, as "Firefox on
// Windows"; "" if it knows neither. The client chose the header's text, and in a
// notice about a thief the client is the thief. So only these names are shown.
func device(userAgent string) string {
	there := make(map[string]bool)
	for _, word := range agentWord.FindAllString(userAgent, -1) {
		there[word] = true
	}
	var names []string
	for _, list := range [][]known{programs, systems} {
		for _, k := range list {
			if there[k.word] {
				names = append(names, k.name)
				break
			}
		}
	}
	return strings.Join(names, " on ")
}
