package test

import (
	"bytes"
	"image"
	"image/color"
	"image/png"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"

	"kwai/internal/testing/need"
)

// The pictures in README.md are small. This makes them anew:
//
//	KWAI_TEST=all KWAI_SCREENSHOTS=$PWD/docs go test ./test -run TestPicturesOfPages
func TestPicturesOfPages(t *testing.T) {
	t.Parallel()
	need.Time(t)
	browser := startBrowser(t)
	s, public := startBehind(t, "localhost", "", install(t, ""), "--service-name=Judo club Example", "--logo="+writeLogo(t), "--accent-color=#7a1f3d",
		"--support-url=mailto:help@example.org", "--terms-url=https://example.org/terms", "--privacy-url=https://example.org/privacy")
	s.user("ann@example.org", "the old password")
	b := openTab(t, browser, public)
	call(b, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{Width: 520, Height: 690, DeviceScaleFactor: 2})
	b.open(200, public+"/login")
	if eval[int](b, `document.querySelector(".brand img").naturalHeight`) == 0 {
		t.Error("the browser doesn't show the logo")
	}
	if got := eval[string](b, `getComputedStyle(document.querySelector("button")).backgroundColor`); got != "rgb(122, 31, 61)" {
		t.Errorf("a button is %s", got)
	}
	b.waitFor(`!document.querySelector("form[data-passkeys]").hidden`) // not at an IP
	b.typeInto("username", "ann@example.org")
	pictures := map[string][]byte{"login.png": small(t, b)}
	b.typeInto("password", "the old password")
	b.click(200, "button")
	pictures["account.png"] = small(t, b)
	for name, picture := range pictures {
		if dir := os.Getenv("KWAI_SCREENSHOTS"); dir != "" {
			if err := os.WriteFile(filepath.Join(dir, name), picture, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		inDocs := readFile(t, filepath.Join("../docs", name))
		size, err := png.DecodeConfig(bytes.NewReader(inDocs))
		if err != nil || len(inDocs) > 40<<10 || size.Width > 1280 {
			t.Errorf("docs/%s has %d bytes and is %d pixels wide; %v", name, len(inDocs), size.Width, err)
		}
		if !strings.Contains(string(readFile(t, "../README.md")), "docs/"+name) {
			t.Errorf("README.md doesn't show docs/%s", name)
		}
	}
}

// writeLogo writes a logo to a file.
func writeLogo(t *testing.T) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "logo.svg")
	const belt = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 48 48"><circle cx="24" cy="24" r="23" fill="#7a1f3d"/>` +
		`<path d="M6 21h36v6H6zM21 26l-9 13 7 1 5-8 5 8 7-1-9-13z" fill="#fff"/></svg>`
	if err := os.WriteFile(path, []byte(belt), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// small is a picture of the page in its 256 most frequent colours.
func small(t *testing.T, b *tab) []byte {
	t.Helper()
	shot, err := chromedp.Run(b.ctx, chromedp.CaptureScreenshot())
	if err != nil {
		t.Fatal(err)
	}
	whole, err := png.Decode(bytes.NewReader(shot))
	if err != nil {
		t.Fatal(err)
	}
	bounds, counts := whole.Bounds(), make(map[color.Color]int)
	for y := range bounds.Dy() {
		for x := range bounds.Dx() {
			counts[whole.At(x, y)]++
		}
	}
	var colours color.Palette
	for c := range counts {
		colours = append(colours, c)
	}
	slices.SortFunc(colours, func(a, b color.Color) int { return counts[b] - counts[a] })
	colours = colours[:min(len(colours), 256)]
	reduced := image.NewPaletted(bounds, colours)
	for y := range bounds.Dy() {
		for x := range bounds.Dx() {
			reduced.Set(x, y, whole.At(x, y))
		}
	}
	var out bytes.Buffer
	if err := (&png.Encoder{CompressionLevel: png.BestCompression}).Encode(&out, reduced); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}
