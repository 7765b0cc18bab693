package password

import (
	_ "embed"
	"strings"
)

// blocklist is sorted by bytes, one folded password a line. It stays in the
// binary's read-only pages: no table is built, nothing is unpacked.
//
//go:embed blocklist.txt
var blocklist string

// blocked reports whether the folded password is on the list. It bisects bytes and
// widens to the line around the byte it hits.
func blocked(folded string) bool {
	lo, hi := 0, len(blocklist) // both always at the start of a line
	for lo < hi {
		mid := int(uint(lo+hi) / 2)
		start := lo + strings.LastIndexByte(blocklist[lo:mid], '\n') + 1
		end := mid + strings.IndexByte(blocklist[mid:], '\n')
		switch c := strings.Compare(folded, blocklist[start:end]); {
		case c == 0:
			return true
		case c < 0:
			hi = start
		default:
			lo = end + 1
		}
	}
	return false
}
