package verify_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"

	"github.com/go-jose/go-jose/v4"

	"kwai/verify"
)

func Example() {
	// Here the server has keys, and nobody has logged in yet.
	kwai := httptest.NewServer(publish(newKey("a")))
	defer kwai.Close()

	tokens := &verify.Verifier{Issuer: kwai.URL, Audience: "kwai"}
	members := tokens.Protect(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fprintln(w, "Hello", verify.FromContext(r.Context()).Subject)
	}))

	answer := httptest.NewRecorder()
	members.ServeHTTP(answer, httptest.NewRequest(http.MethodGet, "/members/", http.NoBody))
	fmt.Println(answer.Code, answer.Header().Get("WWW-Authenticate"))
	fmt.Print(answer.Body)
	// Output:
	// 401 Bearer
	// {"type":"about:blank","title":"Unauthorized","status":401,"detail":"A valid access token is required."}
}

func ExampleVerifier_VerifyContext() {
	kwai := httptest.NewServer(publish(newKey("a")))
	defer kwai.Close()

	tokens := &verify.Verifier{Issuer: kwai.URL, Audience: "kwai"}
	claims, err := tokens.VerifyContext(context.Background(), "a token that a client sent")
	switch {
	case errors.Is(err, verify.ErrUnavailable):
		fmt.Println("try again soon")
	case errors.Is(err, verify.ErrInvalid):
		fmt.Println("renew your token or log in again")
	default:
		fmt.Println("user", claims.Subject, "in session", claims.SessionID)
	}
	// Output: renew your token or log in again
}

// Keys that the program has from elsewhere: nothing is fetched.
func ExampleVerifier_Verify() {
	// What GET /.well-known/jwks.json answered.
	const document = `{"keys": []}`
	var keys jose.JSONWebKeySet
	if err := json.Unmarshal([]byte(document), &keys); err != nil {
		fmt.Println(err)
		return
	}
	v := verify.Verifier{Issuer: "https://auth.example.org", Audience: "kwai", Keys: keys}
	_, err := v.Verify("a token that a client sent")
	fmt.Println("refused:", errors.Is(err, verify.ErrInvalid))
	// Output: refused: true
}

// A start that tells of mistakes, and a readiness endpoint.
func ExampleVerifier_Ready() {
	tokens := &verify.Verifier{Issuer: "http://auth.example.org", Audience: "kwai"}
	fmt.Println(tokens.Ready(context.Background()))
	// Output: the access token can't be checked now: the verifier's issuer is plain http and not on loopback: use https, or set PlainHTTP on a network that is your own
}
