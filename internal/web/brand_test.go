package web

import (
	"bytes"
	"fmt"
	"image"
	"image/png"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/net/html"

	"kwai/internal/i18n"
)

const svg = `<?xml version="1.0" encoding="UTF-8"?><!-- a line --><svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 10 10"><style>path{fill:red}</style><path d="M0 0h10v10z"/></svg>`

// picture is a PNG of that size.
func picture(t *testing.T, width, height int) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := png.Encode(&b, image.NewGray(image.Rect(0, 0, width, height))); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestOnlyPicturesAreLogos(t *testing.T) {
	t.Parallel()
	whole := picture(t, 100, 20)
	for what, tt := range map[string]struct {
		data, refusal string // "": it is a logo
	}{
		"an SVG":                       {svg, ""},
		"an SVG with a prefix":         {`<s:svg xmlns:s="http://www.w3.org/2000/svg"/>`, ""},
		"a PNG":                        {string(whole), ""},
		"a PNG as large as may be":     {string(picture(t, maxLogoSide, maxLogoSide)), ""},
		"a PNG that is too wide":       {string(picture(t, maxLogoSide+1, 1)), "it is 2049 × 1 pixels: more than 2048 wide or high"},
		"a PNG that is cut":            {string(whole[:len(whole)-20]), "it is no whole PNG: png: invalid format: unexpected EOF"},
		"a PNG that is broken":         {string(whole[:40]) + "x" + string(whole[41:]), "it is no whole PNG"},
		"the beginning of a PNG":       {"\x89PNG", "it is no whole PNG"},
		"nothing":                      {"", "it is neither an SVG nor a PNG"},
		"a text":                       {"logo", "it is neither an SVG nor a PNG"},
		"a JPEG":                       {"\xff\xd8\xff\xe0", "it is neither an SVG nor a PNG"},
		"a page":                       {"<!DOCTYPE html><html><svg></svg></html>", "it is neither an SVG nor a PNG"},
		"an SVG without its namespace": {"<svg></svg>", "it is neither an SVG nor a PNG"},
		"an SVG that is cut":           {svg[:len(svg)-10], "it is an SVG that browsers can't read: XML syntax error"},
		"an SVG that is large":         {svg + strings.Repeat(" ", MaxLogo-len(svg)), ""},
		"an SVG that is too large":     {svg + strings.Repeat(" ", MaxLogo-len(svg)+1), "it is larger than 256 KiB"},
	} {
		_, err := NewLogo([]byte(tt.data), "")
		if refusal := fmt.Sprint(err); tt.refusal == "" && err != nil || !strings.HasPrefix(refusal, tt.refusal) && tt.refusal != "" || strings.Contains(refusal, "\n") {
			t.Errorf("%s: %v, want %q", what, err, tt.refusal)
		}
	}
}

// branded is a brand with all that there is.
func branded(t *testing.T) Brand {
	t.Helper()
	logo, err := NewLogo([]byte(svg), "")
	if err != nil {
		t.Fatal(err)
	}
	accent, err := NewAccent("#7A1F3d")
	if err != nil {
		t.Fatal(err)
	}
	return Brand{Name: "Judo & <Co>", Logo: logo, Accent: accent, SupportURL: "mailto:help@example.org", TermsURL: "https://example.org/terms?a=b&c=d", PrivacyURL: "https://example.org/privacy"}
}

// answerOf is the answer of a server without rules.
func answerOf(t *testing.T, s *Server, address string) *httptest.ResponseRecorder {
	t.Helper()
	s.PublicURL = &url.URL{Scheme: "https", Host: "auth.example.org"}
	s.Log = slog.New(slog.DiscardHandler)
	handler, err := s.Handler()
	if err != nil {
		t.Fatal(err)
	}
	rec := httptest.NewRecorder()
	handler.ServeHTTP(rec, httptest.NewRequest(http.MethodGet, address, http.NoBody))
	return rec
}

// The logo runs nothing, whatever is in it.
func TestTheLogoIsServedInASandbox(t *testing.T) {
	t.Parallel()
	drawing, err := NewLogo([]byte(svg), "")
	if err != nil {
		t.Fatal(err)
	}
	pixels, err := NewLogo(picture(t, 3, 2), "")
	if err != nil {
		t.Fatal(err)
	}
	for mediaType, logo := range map[string]*Logo{"image/svg+xml": drawing, "image/png": pixels} {
		for query, caching := range map[string]string{"?v=" + logo.picture.version: "public, max-age=31536000, immutable", "?v=older": "no-cache", "": "no-cache"} {
			rec := answerOf(t, &Server{Brand: Brand{Logo: logo}}, "/logo"+query)
			if rec.Code != http.StatusOK || !bytes.Equal(rec.Body.Bytes(), logo.picture.content) {
				t.Errorf("%s: %d %q", mediaType, rec.Code, rec.Body)
			}
			for name, want := range map[string]string{
				"Content-Type": mediaType, "Cache-Control": caching, "X-Content-Type-Options": "nosniff", "Content-Length": strconv.Itoa(len(logo.picture.content)),
				"Content-Security-Policy": "sandbox; default-src 'none'; style-src 'unsafe-inline'",
			} {
				if got := rec.Header().Get(name); got != want {
					t.Errorf("%s%s: %s is %q, want %q", mediaType, query, name, got, want)
				}
			}
		}
	}
	if rec := answerOf(t, new(Server), "/logo"); rec.Code != http.StatusNotFound {
		t.Errorf("without a logo: %d", rec.Code)
	}
}

// Every page says whose it is, in every language, and still holds what pages hold.
func TestEveryPageIsBranded(t *testing.T) {
	t.Parallel()
	s := &Server{Brand: branded(t)}
	texts := map[string][]string{
		"en": {"Help", "Terms of use", "Privacy"}, "nl": {"Hulp", "Gebruiksvoorwaarden", "Privacy"},
		"fr": {"Aide", "Conditions d’utilisation", "Confidentialité"}, "de": {"Hilfe", "Nutzungsbedingungen", "Datenschutz"},
	}
	for _, tt := range pageTests {
		for _, l := range i18n.Languages() {
			s.Language = l
			rec := httptest.NewRecorder()
			if err := s.write(rec, httptest.NewRequest(http.MethodGet, "/account/x", http.NoBody), http.StatusOK, tt.name, view{Data: tt.data, Visitor: "ann@example.org"}); err != nil {
				t.Fatal(err)
			}
			body := rec.Body.String()
			checkBalanced(t, []byte(body))
			doc, err := html.Parse(strings.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			p := readPage(t, doc)
			checkAccessible(t, p)
			if !strings.HasSuffix(p.title, " – Judo & <Co>") || l == i18n.English && !strings.HasPrefix(p.title, tt.title) {
				t.Errorf("%s: the title is %q", tt.label, p.title)
			}
			if images := p.all["img"]; len(images) != 1 || images[0]["src"] != "../logo?v="+s.Brand.Logo.picture.version || images[0]["alt"] != "" {
				t.Errorf("%s: the pictures are %q", tt.label, images)
			}
			if len(p.all["header"]) != 1 || strings.Index(body, "<bdi>Judo &amp; &lt;Co&gt;</bdi>") > strings.Index(body, "<main>") {
				t.Errorf("%s lacks the name above:\n%s", tt.label, body)
			}
			footer := body[max(strings.Index(body, "<footer>"), 0):]
			for i, link := range []string{"mailto:help@example.org", "https://example.org/terms?a=b&amp;c=d", "https://example.org/privacy"} {
				if want := `<a href="` + link + `">` + texts[l.Code][i] + "</a>"; !strings.Contains(footer, want) {
					t.Errorf("%s, %s: the footer lacks %s:\n%s", tt.label, l.Code, want, footer)
				}
			}
		}
	}
}

// A logo without a name beside it has a text. Each setting of a brand stands alone.
func TestPartsOfABrand(t *testing.T) {
	t.Parallel()
	logo, err := NewLogo([]byte(svg), "auth.example.org")
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		brand         Brand
		with, without []string
	}{
		{Brand{}, []string{"<title>Forgotten password</title>"}, []string{"<header>", "<footer>", "<img", "brand"}},
		{Brand{Name: "Us"}, []string{"<title>Forgotten password – Us</title>", "<bdi>Us</bdi>"}, []string{"<img", "<footer>", "<nav"}},
		{Brand{Logo: logo}, []string{"<title>Forgotten password</title>", `alt="auth.example.org"`}, []string{"<bdi>", "<footer>"}},
		{Brand{PrivacyURL: "https://example.org"}, []string{`<footer>` + "\n" + `<a href="https://example.org">Privacy</a>` + "\n</footer>"}, []string{"<header>"}},
	} {
		body := answerOf(t, &Server{Brand: tt.brand}, "/recover").Body.String()
		for _, part := range tt.with {
			if !strings.Contains(body, part) {
				t.Errorf("%+v lacks %s:\n%s", tt.brand, part, body)
			}
		}
		for _, part := range tt.without {
			if strings.Contains(body, part) {
				t.Errorf("%+v has %s:\n%s", tt.brand, part, body)
			}
		}
	}
}

func TestAnAccentThatCannotBeReadIsRefused(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"":          `"" is not a colour such as #1d5bb8`,
		"blue":      `"blue" is not a colour such as #1d5bb8`,
		"1d5bb8":    `"1d5bb8" is not a colour such as #1d5bb8`,
		"#1d5bb":    `"#1d5bb" is not a colour such as #1d5bb8`,
		"#1d5bb8ff": `"#1d5bb8ff" is not a colour such as #1d5bb8`,
		"#1d5bbg":   `"#1d5bbg" is not a colour such as #1d5bb8`,
		"#fc0":      `"#fc0" is not a colour such as #1d5bb8`,
		"#1d5bb8\n": `"#1d5bb8\n" is not a colour such as #1d5bb8`,
		"#ffcc00":   "#ffcc00 has a contrast of 1.51 : 1 to #ffffff (white, as in the text on a button), and needs 4.5 : 1 (WCAG): choose a darker colour",
		"#777777":   "#777777 has a contrast of 4.47 : 1 to #ffffff (white, as in the text on a button), and needs 4.5 : 1 (WCAG): choose a darker colour",
		"#767676":   "#767676 has a contrast of 4.15 : 1 to #f3f5f8 (the ground of pages), and needs 4.5 : 1 (WCAG): choose a darker colour",
		"#000000":   "<nil>", "#1d5bb8": "<nil>", "#A00000": "<nil>", "#006633": "<nil>",
	} {
		if _, err := NewAccent(text); fmt.Sprint(err) != want {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
}

var variable = regexp.MustCompile(`--([a-z-]+): (#[0-9a-f]{6})`)

// schemes are the colours of a style sheet, light and dark, as a browser takes them: a
// later one replaces an earlier one.
func schemes(t *testing.T, sheet []byte) (light, dark map[string]colour) {
	t.Helper()
	light, dark = map[string]colour{}, map[string]colour{}
	for i, part := range strings.Split(string(sheet), ":root {") {
		block, _, _ := strings.Cut(part, "}")
		for _, m := range variable.FindAllStringSubmatch(block, -1) {
			n, err := strconv.ParseUint(m[2][1:], 16, 32)
			if err != nil {
				t.Fatal(err)
			}
			c := colour{uint8(n >> 16), uint8(n >> 8), uint8(n)}
			if i%2 == 0 {
				dark[m[1]] = c
			} else {
				light[m[1]] = c
			}
		}
	}
	return light, dark
}

// Whatever accent is taken can be read in both schemes: on the page, on a card, as a
// button's ground, and under the mouse.
func TestAccentsCanBeRead(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	taken := 0
	texts := []string{"#000000", "#ff0000", "#0000ff", "#000080", "#1d5bb8", "#d00000", "#6e6e6e"}
	for range 3000 {
		texts = append(texts, fmt.Sprintf("#%06x", random.IntN(1<<24)))
	}
	for _, text := range texts {
		accent, err := NewAccent(text)
		if err != nil {
			continue
		}
		taken++
		light, dark := schemes(t, accent.sheet.content)
		if light["accent"].String() != text {
			t.Errorf("%s became %s", text, light["accent"])
		}
		for name, scheme := range map[string]map[string]colour{"light": light, "dark": dark} {
			for _, c := range []string{"accent", "accent-strong"} {
				for _, ground := range []string{"ground", "card", "on-accent"} {
					if got := contrast(scheme[c], scheme[ground]); got < 4.5 {
						t.Errorf("%s, %s: %s (%s) has a contrast of %.2f to %s", text, name, c, scheme[c], got, ground)
					}
				}
			}
			if scheme["accent"] == scheme["accent-strong"] && text != "#000000" {
				t.Errorf("%s, %s: nothing changes under the mouse", text, name)
			}
		}
	}
	if taken < 500 {
		t.Errorf("only %d colours were taken", taken)
	}
	// The colours that are checked are those of the sheet.
	light, dark := schemes(t, styleSheet)
	if got, want := []colour{light["on-accent"], light["card"], light["ground"], dark["ground"], dark["card"], dark["on-accent"]}, []colour{white, white, lightPage, darkPage, darkCard, darkButton}; !slices.Equal(got, want) {
		t.Errorf("style.css has %v, brand.go %v", got, want)
	}
}

func TestContrast(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		a, b colour
		want string
	}{{colour{}, white, "21.00"}, {white, white, "1.00"}, {colour{0xff, 0, 0}, white, "4.00"}, {colour{0x77, 0x77, 0x77}, white, "4.48"}} {
		if got := fmt.Sprintf("%.2f", contrast(tt.a, tt.b)); got != tt.want {
			t.Errorf("contrast(%s, %s) = %s, want %s", tt.a, tt.b, got, tt.want)
		}
	}
}

// The style sheet has the accent, and its address changes with it.
func TestStyleSheetCaching(t *testing.T) {
	t.Parallel()
	versions := map[string]bool{}
	for _, brand := range []Brand{{}, branded(t)} {
		sheet := brand.style()
		versions[sheet.version] = true
		for query, want := range map[string]string{"?v=" + sheet.version: "public, max-age=31536000, immutable", "?v=older": "no-cache", "": "no-cache"} {
			rec := answerOf(t, &Server{Brand: brand}, "/style.css"+query)
			if got := rec.Header().Get("Cache-Control"); got != want {
				t.Errorf("/style.css%s: Cache-Control = %q, want %q", query, got, want)
			}
			if got := rec.Header().Get("Content-Type"); got != "text/css; charset=utf-8" {
				t.Errorf("/style.css%s: Content-Type = %q", query, got)
			}
			if !bytes.Equal(rec.Body.Bytes(), sheet.content) || !bytes.HasPrefix(rec.Body.Bytes(), styleSheet) {
				t.Errorf("/style.css%s: not the style sheet", query)
			}
		}
		if page := answerOf(t, &Server{Brand: brand}, "/recover").Body.String(); !strings.Contains(page, `href="style.css?v=`+sheet.version+`"`) {
			t.Errorf("the page has another style sheet:\n%s", page)
		}
	}
	if len(versions) != 2 || bytes.Contains(styleSheet, []byte("#7a1f3d")) {
		t.Errorf("the versions are %v", versions)
	}
}
