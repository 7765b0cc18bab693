package test

import (
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"

	"kwai/internal/testing/need"
)

// TestSwaggerUI has Swagger UI, on an origin of its own, log in by its button
// Authorize and ask who is logged in. The password must reach kwai alone.
func TestSwaggerUI(t *testing.T) {
	t.Parallel()
	need.Time(t)
	swagger := filepath.Join(newNode(t).Folder, "node_modules/swagger-ui-dist")
	files := http.FileServer(http.Dir(swagger))
	const example = "https://petstore.swagger.io/v2/swagger.json"
	initializer := string(readFile(t, filepath.Join(swagger, "swagger-initializer.js")))
	if !strings.Contains(initializer, example) {
		t.Fatalf("Swagger UI doesn't name %s", example)
	}
	browser := startBrowser(t)
	for _, prefix := range []string{"", "/auth"} {
		t.Run("at "+prefix+"/", func(t *testing.T) {
			t.Parallel()
			var description string
			page := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				switch {
				case r.Method != http.MethodGet || r.URL.RawQuery != "":
					t.Errorf("Swagger UI's own origin got %s %s", r.Method, r.URL)
				case r.URL.Path == "/swagger-initializer.js":
					w.Header().Set("Content-Type", "text/javascript")
					_, _ = w.Write([]byte(strings.Replace(initializer, example, description, 1)))
				default:
					files.ServeHTTP(w, r)
				}
			}))
			t.Cleanup(page.Close)
			s, public := startBehind(t, loopbackName, prefix, install(t, ""), "--cors-origins="+page.URL)
			description = public + "/openapi.yaml"
			s.user("ann@example.org", good)

			b := openTab(t, browser, strings.TrimSuffix(public, prefix))
			b.origins = append(b.origins, "data:image") // its icons
			b.open(200, page.URL+"/")
			b.wait(`document.querySelector(".auth-wrapper .authorize") != null`)
			b.clickHere(".auth-wrapper .authorize")
			b.wait(`document.getElementById("oauth_username") != null`)
			const form = `document.getElementById("oauth_username").closest(".auth-container")`
			const submit = form + `.querySelector("button.authorize").click()`
			b.typeInto("oauth_username", "ann@example.org")
			b.typeInto("oauth_password", "the wrong one")
			b.refused = append(b.refused, public+api+"login")
			eval[chromedp.Void](b, submit)
			b.wait(form + `.querySelector(".errors") != null`)
			if got := eval[string](b, form+`.textContent`); !strings.Contains(got, "The address or the password is wrong.") {
				t.Fatalf("Authorize with a wrong password shows %s\n%s", got, s.log)
			}
			b.typeInto("oauth_password", good)
			eval[chromedp.Void](b, submit)
			// It forgets the form's fields once it is logged in.
			b.wait(`[...document.querySelectorAll(".auth-container button")].some(b => b.textContent == "Logout")`)
			b.clickHere(".close-modal")

			const operation = `[...document.querySelectorAll(".opblock")].find(o => o.querySelector(".opblock-summary-path")?.dataset.path == "/api/v1/auth/user")`
			eval[chromedp.Void](b, operation+`.querySelector(".opblock-summary-control").click()`)
			b.wait(operation + `.querySelector(".try-out__btn") != null`)
			eval[chromedp.Void](b, operation+`.querySelector(".try-out__btn").click()`)
			b.wait(operation + `.querySelector(".execute") != null`)
			eval[chromedp.Void](b, operation+`.querySelector(".execute").click()`)
			const answer = operation + `.querySelector(".live-responses-table")`
			b.wait(answer + ` != null`)
			if got := eval[string](b, answer+`.textContent`); !strings.Contains(got, "ann@example.org") {
				t.Errorf("Try it out on the current user shows %s\n%s", got, s.log)
			}
			if !slices.Contains(b.requests, public+userPath) {
				t.Errorf("it asked for %q", b.requests)
			}
		})
	}
}
