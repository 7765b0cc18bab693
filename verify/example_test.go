package verify_test

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/go-jose/go-jose/v4"

	"kwai/verify"
)

func Example() {
	// What GET /.well-known/jwks.json answered.
	const answer = `{"keys": []}`
	var keys jose.JSONWebKeySet
	if err := json.Unmarshal([]byte(answer), &keys); err != nil {
		fmt.Println(err)
		return
	}
	v := verify.Verifier{Issuer: "https://auth.example.org", Audience: "kwai", Keys: keys}
	claims, err := v.Verify("a token that a client sent")
	switch {
	case errors.Is(err, verify.ErrExpired):
		fmt.Println("log in again")
	case err != nil:
		fmt.Println("refused:", errors.Is(err, verify.ErrInvalid))
	default:
		fmt.Println("user", claims.Subject, "in session", claims.SessionID)
	}
	// Output: refused: true
}
