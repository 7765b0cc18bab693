package web

import (
	"fmt"
	"strings"

	qr "github.com/piglig/go-qr"
)

// qrCode is a QR code as SVG that stands in a page: a picture's address would have what
// is in it.
type qrCode struct {
	Size int    // of a side, in modules
	Path string // of the dark ones
}

// quietZone is how many light modules there must be around it (ISO/IEC 18004).
const quietZone = 4

func newQRCode(text string) (qrCode, error) {
	code, err := qr.EncodeText(text, qr.Medium)
	if err != nil {
		return qrCode{}, err
	}
	var path strings.Builder
	for y := range code.Size() {
		for x := 0; x < code.Size(); x++ {
			begin := x
			for code.Module(x, y) { // false beyond its sides
				x++
			}
			if x > begin {
				fmt.Fprintf(&path, "M%d %dh%dv1H%dz", begin+quietZone, y+quietZone, x-begin, begin+quietZone)
			}
		}
	}
	return qrCode{code.Size() + 2*quietZone, path.String()}, nil
}
