package test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/accessibility"
	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	browserlog "github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"
	"github.com/google/go-cmp/cmp"

	"kwai/internal/testing/need"
)

// startBrowser starts a Chromium without windows, until the end of the test.
// Each name below example.org leads it to loopback, as localhost does, and no other name
// anywhere.
// Where there is no Chromium the test is skipped, or fails if every test was
// asked for.
func startBrowser(t *testing.T) context.Context {
	t.Helper()
	path := need.Program(t, "chromium")
	ctx, stop := chromedp.NewExecAllocator(context.Background(), append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(path),
		chromedp.NoSandbox, // it can't have one as root
		chromedp.DisableGPU,
		chromedp.WSURLReadTimeout(time.Hour), // machines that run tests can be slow
		chromedp.Flag("disable-quic", true),
		chromedp.Flag("disable-component-update", true),
		chromedp.Flag("host-resolver-rules", "MAP *.example.org 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost"),
	)...)
	t.Cleanup(stop)
	ctx, closeBrowser := chromedp.NewContext(ctx)
	t.Cleanup(closeBrowser)
	if err := chromedp.Do(ctx); err != nil {
		t.Fatalf("starting %s: %v", path, err)
	}
	return ctx
}

// tab is a visit to a site, with no history, cookies or cache of another's.
type tab struct {
	t    *testing.T
	ctx  context.Context
	home string // the site's URL, without a path

	mu       sync.Mutex
	origins  []string // that pages were opened at
	refused  []string // URLs that answered with an error, as they were to
	requests []string // URLs that were asked for
	entries  []browserlog.Entry
}

// openTab opens a tab until the end of the test, which fails if a page broke its
// own policy, ran into an error or asked for anything from elsewhere.
func openTab(t *testing.T, browser context.Context, home string) *tab {
	t.Helper()
	b := &tab{t: t, home: home, origins: []string{home}}
	ctx, closeTab := chromedp.NewContext(browser, chromedp.WithNewBrowserContext())
	t.Cleanup(closeTab)
	b.ctx = ctx
	if err := chromedp.Listen(ctx, b.hear); err != nil {
		t.Fatal(err)
	}
	b.do(func(ctx context.Context, t *chromedp.Target) (chromedp.Void, error) {
		_, err := cdp.Call(ctx, t, emulation.SetFocusEmulationEnabled, emulation.SetFocusEmulationEnabledParams{Enabled: true})
		return chromedp.Void{}, err
	})
	t.Cleanup(b.check)
	return b
}

func (b *tab) hear(event any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch e := event.(type) {
	case *network.EventRequestWillBeSent:
		b.requests = append(b.requests, e.Request.URL)
	case *browserlog.EventEntryAdded:
		b.entries = append(b.entries, *e.Entry)
	}
}

func (b *tab) check() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, e := range b.entries {
		switch {
		case e.Level == browserlog.EntryLevelVerbose: // an opinion
		case e.Source == browserlog.EntrySourceNetwork && slices.Contains(b.refused, e.URL): // so it should
		case strings.HasPrefix(e.Text, "The Cross-Origin-Opener-Policy header has been ignored") && strings.HasPrefix(e.URL, "http://"+publicName):
			// Over plain HTTP it protects nobody.
		case strings.HasPrefix(e.Text, "Autofocus processing was blocked because a document already has a focused element"):
			// The test types before the browser comes to it.
		default:
			b.t.Errorf("the browser complains about %s: %s", e.URL, e.Text)
		}
	}
	for _, r := range b.requests {
		if !slices.ContainsFunc(b.origins, func(origin string) bool { return strings.HasPrefix(r, origin+"/") }) {
			b.t.Errorf("a page asked for %s", r)
		}
	}
}

func (b *tab) do(steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	if err := chromedp.Do(b.ctx, steps...); err != nil {
		b.t.Fatal(err)
	}
}

// load does what loads a page, and checks its status.
func (b *tab) load(status int, steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	res, err := chromedp.RunResponse(b.ctx, steps...)
	if err != nil {
		b.t.Fatal(err)
	}
	if int(res.Status) != status {
		b.t.Fatalf("%s answered %d, want %d", res.URL, res.Status, status)
	}
	if status >= 400 {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.refused = append(b.refused, res.URL)
	}
}

func (b *tab) open(status int, url string) {
	b.t.Helper()
	b.mu.Lock()
	origin, _, _ := strings.Cut(strings.TrimPrefix(url, "http://"), "/")
	b.origins = append(b.origins, "http://"+origin)
	b.mu.Unlock()
	b.load(status, chromedp.Navigate(url))
}

func (b *tab) click(status int, selector string) {
	b.t.Helper()
	b.load(status, chromedp.Click(chromedp.CSS(selector)))
}

// press types on the keyboard, wherever the focus is.
func (b *tab) press(keys string) {
	b.t.Helper()
	b.do(chromedp.KeyEvent(keys))
}

// submit is press where that loads a page.
func (b *tab) submit(status int, keys string) {
	b.t.Helper()
	b.load(status, chromedp.KeyEvent(keys))
}

// typeInto types into the field with that id instead of what it holds. (The
// library's own SendKeys has a data race.)
func (b *tab) typeInto(id, text string) {
	b.t.Helper()
	field := fmt.Sprintf("document.getElementById(%q)", id)
	eval[chromedp.Void](b, field+".focus(); "+field+".select()")
	b.press(text)
}

func eval[T any](b *tab, script string) T {
	b.t.Helper()
	v, err := chromedp.Run(b.ctx, chromedp.Evaluate[T](script))
	if err != nil {
		b.t.Fatal(err)
	}
	return v
}

func (b *tab) hasFocus(id string) {
	b.t.Helper()
	if got := eval[string](b, "document.activeElement.id"); got != id {
		b.t.Errorf("the focus is on %q, want %q", got, id)
	}
}

// sees compares what the page tells assistive technology: its headings, fields,
// buttons, links, alerts and status messages, in their order. It makes sure that nothing is to be
// scrolled sideways, even on a narrow screen, and takes pictures of the page if
// it has a name.
func (b *tab) sees(name string, want ...string) {
	b.t.Helper()
	res, err := chromedp.Call(b.ctx, accessibility.GetFullAXTree, accessibility.GetFullAXTreeParams{})
	if err != nil {
		b.t.Fatal(err)
	}
	if diff := cmp.Diff(want, spoken(res.Nodes)); diff != "" {
		b.t.Errorf("%s: the page is not as expected (-want +got):\n%s", name, diff)
	}
	if name == "" {
		return
	}
	for _, width := range []int64{320, 1280} {
		b.do(chromedp.EmulateViewport(width, 720))
		if over := eval[int](b, "document.documentElement.scrollWidth - innerWidth"); over > 0 {
			b.t.Errorf("%s: %d pixels too wide for a screen of %d", name, over, width)
		}
		b.picture(fmt.Sprintf("%s-%d.png", name, width))
	}
}

// picture puts a screenshot into the folder KWAI_SCREENSHOTS, or where go test's
// -artifacts has it.
func (b *tab) picture(name string) {
	b.t.Helper()
	dir := b.t.ArtifactDir()
	if all := os.Getenv("KWAI_SCREENSHOTS"); all != "" {
		dir = filepath.Join(all, b.t.Name())
	}
	image, err := chromedp.Run(b.ctx, chromedp.FullScreenshot(100))
	if err == nil {
		err = os.MkdirAll(dir, 0o755)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, name), image, 0o644)
	}
	if err != nil {
		b.t.Fatal(err)
	}
}

// spoken renders the nodes of an accessibility tree that matter to a visitor.
func spoken(nodes []*accessibility.Node) (lines []string) {
	byID := make(map[accessibility.NodeID]*accessibility.Node)
	for _, n := range nodes {
		byID[n.NodeID] = n
	}
	var walk func(n *accessibility.Node)
	walk = func(n *accessibility.Node) {
		switch role := axText(n.Role); role {
		case "heading", "textbox", "checkbox", "combobox", "button", "link":
			line := fmt.Sprintf("%s %q", role, axText(n.Name))
			if d := axText(n.Description); d != "" {
				line += " (" + d + ")"
			}
			for _, p := range n.Properties {
				if p.Name == "invalid" && axText(p.Value) == "true" {
					line += " invalid"
				}
			}
			lines = append(lines, line)
		case "alert", "status":
			lines = append(lines, fmt.Sprintf("%s %q", role, strings.Join(strings.Fields(textBelow(n, byID)), " ")))
		}
		for _, id := range n.ChildIDs {
			if child := byID[id]; child != nil {
				walk(child)
			}
		}
	}
	if len(nodes) > 0 {
		walk(nodes[0])
	}
	return lines
}

func textBelow(n *accessibility.Node, byID map[accessibility.NodeID]*accessibility.Node) (text string) {
	if axText(n.Role) == "StaticText" {
		return axText(n.Name) + " "
	}
	for _, id := range n.ChildIDs {
		if child := byID[id]; child != nil {
			text += textBelow(child, byID)
		}
	}
	return text
}

func axText(v *accessibility.Value) string {
	if v == nil {
		return ""
	}
	var text string
	if json.Unmarshal(v.Value, &text) != nil {
		return string(v.Value)
	}
	return text
}
