package web_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
)

// loadDescription reads openapi.yaml as it is served at a public URL.
func loadDescription(tb testing.TB, public string) *openapi3.T {
	tb.Helper()
	s := bare(tb, func(s *setup) {
		u, err := url.Parse(public)
		if err != nil {
			tb.Fatal(err)
		}
		s.web.PublicURL = u
	})
	doc, err := openapi3.NewLoader().LoadFromData(s.get("/openapi.yaml", "").Body)
	s.ok(err)
	return doc
}

// What Swagger UI and generated clients do with the description must reach this
// server, wherever they got it from: its token URL gets passwords.
func TestTheDescriptionNamesThePublicURL(t *testing.T) {
	t.Parallel()
	for _, public := range []string{publicURL, "https://example.org/accounts", "http://[::1]:8443", "https://example.org/o'brien,{x}:#"} {
		doc := loadDescription(t, public)
		u, err := url.Parse(public)
		if err != nil {
			t.Fatal(err)
		}
		want := u.String()
		same(t, "how many servers there are", len(doc.Servers), 1)
		same(t, "the server", doc.Servers[0].URL, want)
		flow := doc.Components.SecuritySchemes["password"].Value.Flows.Password
		same(t, "the token URL", flow.TokenURL, want+"/api/v1/auth/login")
		same(t, "the refresh URL", flow.RefreshURL, want+"/api/v1/auth/login")
		if text, err := json.Marshal(doc); err != nil || strings.Contains(string(text), "127.0.0.1") {
			t.Errorf("%s: the address in the source is left in it (%v)", public, err)
		}
	}
}

// What generators and linters need: names that differ by more than case, a tag
// and an example for everything, forms first.
func TestTheDescriptionIsFitForGenerators(t *testing.T) {
	t.Parallel()
	doc := loadDescription(t, publicURL)
	names := make(map[string]string)
	unique := func(name, what string) {
		t.Helper()
		if other := names[strings.ToLower(name)]; other != "" {
			t.Errorf("%s and %s are both called %s", what, other, name)
		}
		names[strings.ToLower(name)] = what
	}
	for name := range doc.Components.Schemas {
		unique(name, "the schema "+name)
	}
	for path, item := range doc.Paths.Map() {
		for method, o := range item.Operations() {
			what := method + " " + path
			unique(o.OperationID, what)
			if len(o.Tags) != 1 || doc.Tags.Get(o.Tags[0]) == nil {
				t.Errorf("%s: its tags are %q", what, o.Tags)
			}
			answer := o.Responses.Value("200") // / has none: it leads people on
			if page := !strings.HasPrefix(path, "/api/") && (method != http.MethodGet || answer == nil || answer.Value.Content.Get("text/html") != nil); page != (o.Tags[0] == "pages") && o.Tags[0] != "provider" && path != "/style.css" && path != "/passkey.js" && path != "/logo" {
				t.Errorf("%s: its tag is %q", what, o.Tags[0])
			}
			for status, response := range o.Responses.Map() {
				for kind, content := range response.Value.Content {
					checkExample(t, fmt.Sprintf("%s %s %s", what, status, kind), content)
				}
			}
		}
	}
}

func checkExample(tb testing.TB, what string, content *openapi3.MediaType) {
	tb.Helper()
	all := []any{content.Example}
	if content.Example == nil {
		all = nil
		for _, e := range content.Examples {
			all = append(all, e.Value.Value)
		}
	}
	if len(all) == 0 || content.Schema == nil {
		tb.Errorf("%s has no example or no schema", what)
		return
	}
	for _, example := range all {
		if err := content.Schema.Value.VisitJSON(example); err != nil {
			tb.Errorf("%s: its example: %v", what, err)
		}
	}
}
