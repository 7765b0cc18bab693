//go:build ignore

// This program makes blocklist.txt: see the package comment.
package main

import (
	"bufio"
	"encoding/json"
	"log"
	"os"
	"slices"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/cases"
	"golang.org/x/text/unicode/norm"
)

func main() {
	const minLength = 8 // password.MinLength; shorter ones can't be chosen anyway
	var all, kept []string
	if err := json.NewDecoder(os.Stdin).Decode(&all); err != nil {
		log.Fatal(err)
	}
	for _, s := range all {
		// As fold in policy.go.
		s = norm.NFC.String(cases.Fold().String(norm.NFC.String(s)))
		if utf8.RuneCountInString(s) >= minLength && !strings.Contains(s, "\n") {
			kept = append(kept, s)
		}
	}
	slices.Sort(kept)
	out := bufio.NewWriter(os.Stdout)
	for _, s := range slices.Compact(kept) {
		out.WriteString(s + "\n")
	}
	if err := out.Flush(); err != nil {
		log.Fatal(err)
	}
}
