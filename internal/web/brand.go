package web

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/xml"
	"errors"
	"fmt"
	"image/png"
	"io"
	"math"
	"net/http"
	"regexp"
	"strconv"
)

// Brand is whose pages they are. The zero value is kwai's own look, without a name.
type Brand struct {
	Name   string // in titles, and above each page
	Logo   *Logo
	Accent *Accent // nil: kwai's own blue
	// Addresses that each page leads to at its end; "": nowhere.
	SupportURL, TermsURL, PrivacyURL string
}

// MaxLogo is how large a logo may be, in bytes.
const MaxLogo = 256 << 10

// maxLogoSide is how wide and how high a PNG may be, in pixels: it is decoded once.
const maxLogoSide = 2048

// Logo is a picture above each page.
type Logo struct {
	picture   file
	mediaType string
	text      string
}

// NewLogo makes a logo of a file's contents, an SVG or a PNG. The text stands for it
// where it isn't seen; "" if the name beside it says enough.
func NewLogo(data []byte, text string) (*Logo, error) {
	logo := &Logo{newFile(data), "image/png", text}
	var err error
	switch {
	case len(data) > MaxLogo:
		return nil, fmt.Errorf("it is larger than %d KiB", MaxLogo>>10)
	case bytes.HasPrefix(data, []byte("\x89PNG")):
		err = checkPNG(data)
	default:
		logo.mediaType = "image/svg+xml"
		err = checkSVG(data)
	}
	return logo, err
}

func checkPNG(data []byte) error {
	config, err := png.DecodeConfig(bytes.NewReader(data))
	if err == nil && max(config.Width, config.Height) > maxLogoSide {
		return fmt.Errorf("it is %d × %d pixels: more than %d wide or high", config.Width, config.Height, maxLogoSide)
	}
	if err == nil {
		_, err = png.Decode(bytes.NewReader(data))
	}
	if err != nil {
		return fmt.Errorf("it is no whole PNG: %w", err)
	}
	return nil
}

var errNoSVG = errors.New("it is neither an SVG nor a PNG")

// checkSVG reads all of it: a browser shows nothing of an SVG that is no XML. What is
// in it does no harm, since an <img> neither runs nor loads anything.
func checkSVG(data []byte) error {
	decoder := xml.NewDecoder(bytes.NewReader(data))
	root := false
	for {
		token, err := decoder.Token()
		switch start, isStart := token.(xml.StartElement); {
		case errors.Is(err, io.EOF) && root:
			return nil
		case err != nil && !root:
			return errNoSVG
		case err != nil:
			return fmt.Errorf("it is an SVG that browsers can't read: %w", err)
		case isStart && !root:
			if start.Name != (xml.Name{Space: "http://www.w3.org/2000/svg", Local: "svg"}) {
				return errNoSVG
			}
			root = true
		}
	}
}

// logo answers GET /logo. An SVG that is opened by itself runs nothing: its policy
// allows styles alone, as drawing programs write them.
func (s *Server) logo(w http.ResponseWriter, r *http.Request) error {
	if s.Brand.Logo == nil {
		return &httpError{http.StatusNotFound, "The pages have no logo."}
	}
	w.Header().Set("Content-Security-Policy", "sandbox; default-src 'none'; style-src 'unsafe-inline'")
	return s.Brand.Logo.picture.serve(w, r, s.Brand.Logo.mediaType)
}

// Accent is the colour of buttons and links.
type Accent struct{ sheet file }

// The grounds that accents stand on, as in style.css. A test compares them.
var (
	white      = colour{255, 255, 255} // a card, and the text on a button
	lightPage  = colour{0xf3, 0xf5, 0xf8}
	darkPage   = colour{0x12, 0x16, 0x1c}
	darkCard   = colour{0x1b, 0x21, 0x2a}
	darkButton = colour{0x0f, 0x17, 0x22} // the text on a button
)

// leastContrast is what text must have to its ground (WCAG 2.2, 1.4.3).
const leastContrast = 4.5

var hexColour = regexp.MustCompile(`^#[0-9A-Fa-f]{6}$`)

// NewAccent makes an accent of a colour such as #1d5bb8, which must be dark enough for
// the light scheme. The dark scheme gets the first lighter one that is light enough.
func NewAccent(text string) (*Accent, error) {
	if !hexColour.MatchString(text) {
		return nil, fmt.Errorf("%q is not a colour such as #1d5bb8", text)
	}
	n, err := strconv.ParseUint(text[1:], 16, 32)
	if err != nil {
		return nil, err
	}
	accent := colour{uint8(n >> 16), uint8(n >> 8), uint8(n)}
	for _, ground := range []struct {
		colour
		name string
	}{{white, "white, as in the text on a button"}, {lightPage, "the ground of pages"}} {
		if got := contrast(accent, ground.colour); got < leastContrast {
			// Cut, not rounded: 4.49 isn't enough.
			return nil, fmt.Errorf("%s has a contrast of %.2f : 1 to %s (%s), and needs 4.5 : 1 (WCAG): choose a darker colour", text, math.Floor(got*100)/100, ground.colour, ground.name)
		}
	}
	dark := accent
	for part := 0.0; !legible(dark, darkPage, darkCard, darkButton); part += 0.01 {
		dark = mix(accent, white, part)
	}
	return &Accent{newFile(fmt.Appendf(styleSheet[:len(styleSheet):len(styleSheet)], `
:root {
	--accent: %s;
	--accent-strong: %s;
}

@media (prefers-color-scheme: dark) {
	:root {
		--accent: %s;
		--accent-strong: %s;
	}
}

input {
	accent-color: var(--accent);
}
`, accent, mix(accent, colour{}, 0.25), dark, mix(dark, white, 0.35)))}, nil
}

// legible reports whether a colour has enough contrast to all of others.
func legible(c colour, others ...colour) bool {
	for _, other := range others {
		if contrast(c, other) < leastContrast {
			return false
		}
	}
	return true
}

// colour is red, green and blue, as in sRGB.
type colour [3]uint8

func (c colour) String() string { return fmt.Sprintf("#%02x%02x%02x", c[0], c[1], c[2]) }

// mix is a with a part of b in it, 0 to 1.
func mix(a, b colour, part float64) (mixed colour) {
	for i := range a {
		mixed[i] = uint8(math.Round(float64(a[i]) + min(part, 1)*(float64(b[i])-float64(a[i]))))
	}
	return mixed
}

// contrast is WCAG's contrast ratio, 1 to 21.
func contrast(a, b colour) float64 {
	darker, lighter := luminance(a), luminance(b)
	if darker > lighter {
		darker, lighter = lighter, darker
	}
	return (lighter + 0.05) / (darker + 0.05)
}

// luminance is WCAG's relative luminance, 0 to 1.
func luminance(c colour) float64 {
	var linear [3]float64
	for i, channel := range c {
		v := float64(channel) / 255
		if linear[i] = v / 12.92; v > 0.04045 {
			linear[i] = math.Pow((v+0.055)/1.055, 2.4)
		}
	}
	return 0.2126*linear[0] + 0.7152*linear[1] + 0.0722*linear[2]
}

//go:embed pages/style.css
var styleSheet []byte

// ownStyle is the style sheet of a Brand without an accent.
var ownStyle = newFile(styleSheet)

func (b *Brand) style() file {
	if b.Accent != nil {
		return b.Accent.sheet
	}
	return ownStyle
}

// style answers GET /style.css.
func (s *Server) style(w http.ResponseWriter, r *http.Request) error {
	return s.Brand.style().serve(w, r, "text/css; charset=utf-8")
}

// file is what pages are made of, beside their text.
type file struct {
	content []byte
	version string // of the content: it makes the file cacheable for good
}

func newFile(content []byte) file {
	return file{content, fmt.Sprintf("%.8x", sha256.Sum256(content))}
}

// serve answers with the file. The version in the query is for caches alone: an address
// with an older one gets today's file, uncached.
func (f file) serve(w http.ResponseWriter, r *http.Request, mediaType string) error {
	h := w.Header()
	h.Set("Content-Type", mediaType)
	h.Set("Content-Length", strconv.Itoa(len(f.content)))
	h.Set("Cache-Control", "no-cache")
	if r.URL.Query().Get("v") == f.version {
		h.Set("Cache-Control", "public, max-age=31536000, immutable")
	}
	h.Set("X-Content-Type-Options", "nosniff")
	_, _ = w.Write(f.content) // an error here is a client that went away
	return nil
}

// head is what a page shows of a brand.
type head struct {
	Brand
	Style       string // the address of the style sheet
	Script      string // that of the script
	Picture     string // the address of the logo; "": there is none
	PictureText string
}

func (b Brand) head() head {
	shown := head{Brand: b, Style: "style.css?v=" + b.style().version, Script: "passkey.js?v=" + script.version}
	if b.Logo != nil {
		shown.Picture, shown.PictureText = "logo?v="+b.Logo.picture.version, b.Logo.text
	}
	return shown
}
