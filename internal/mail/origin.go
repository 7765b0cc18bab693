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

// from is a sentence about where it came from, or empty.
func (m *draft) from(o Origin) string {
	a, err := netip.ParseAddr(o.Address)
	if err != nil || a.Zone() != "" {
		return ""
	}
	if name := m.device(o.UserAgent); name != "" {
		return m.lang.Text("mail.from_device", "address", a.String(), "device", name)
	}
	return m.lang.Text("mail.from", "address", a.String())
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
		{"iPhone", "mail.iphone"}, {"iPad", "mail.ipad"}, {"Android", "Android"}, {"CrOS", "ChromeOS"}, {"Windows", "Windows"},
		{"Macintosh", "mail.mac"}, {"Linux", "Linux"},
	}
	agentWord = regexp.MustCompile(`[A-Za-z]+`)
)

type known struct{ word, name string }

// device names the program and the system in a User-Agent header, as "Firefox on
// Windows"; "" if it knows neither. The client chose the header's text, and in a
// notice about a thief the client is the thief. So only these names are shown.
func (m *draft) device(userAgent string) string {
	there := make(map[string]bool)
	for _, word := range agentWord.FindAllString(userAgent, -1) {
		there[word] = true
	}
	var names []string
	for _, list := range [][]known{programs, systems} {
		for _, k := range list {
			if there[k.word] {
				name := k.name
				if m.lang.Has(name) {
					name = m.lang.Text(name)
				}
				names = append(names, name)
				break
			}
		}
	}
	if len(names) == 2 {
		return m.lang.Text("mail.device", "program", names[0], "system", names[1])
	}
	return strings.Join(names, "")
}
