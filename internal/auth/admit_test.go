package auth_test

import (
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"slices"
	"strings"
	"testing"

	"kwai/internal/auth"
	"kwai/internal/store"
)

// There is one way in: of all the code, admit alone stamps a login and opens a session.
func TestNothingElseOpensASession(t *testing.T) {
	t.Parallel()
	callers := make(map[string][]string)
	for _, dir := range []string{".", "../web", "../mail", "../bus", "../offline", "../../cmd/kwai"} {
		files, err := os.ReadDir(dir)
		ok(t, err)
		for _, f := range files {
			if !strings.HasSuffix(f.Name(), ".go") || strings.HasSuffix(f.Name(), "_test.go") {
				continue
			}
			parsed, err := parser.ParseFile(token.NewFileSet(), dir+"/"+f.Name(), nil, 0)
			ok(t, err)
			for _, d := range parsed.Decls {
				fn, isFunc := d.(*ast.FuncDecl)
				if !isFunc {
					continue
				}
				ast.Inspect(fn, func(n ast.Node) bool {
					if s, is := n.(*ast.SelectorExpr); is && slices.Contains([]string{"LogIn", "OpenSession", "openSession", "prove", "RaiseNumber"}, s.Sel.Name) {
						callers[s.Sel.Name] = append(callers[s.Sel.Name], dir+"/"+fn.Name.Name)
					}
					if call, is := n.(*ast.CallExpr); is && calls(call, "RaiseNumber") {
						if amr, none := call.Args[3].(*ast.BasicLit); none && amr.Value == `""` {
							callers["RaiseNumber without a proof"] = append(callers["RaiseNumber without a proof"], dir+"/"+fn.Name.Name)
						}
					}
					return true
				})
			}
		}
	}
	same(t, "who calls them", callers, map[string][]string{
		"LogIn": {"./admit"}, "RaiseNumber": {"./prove", "./ChoosePassword", "./changeFactors"}, "RaiseNumber without a proof": {"./ChoosePassword", "./changeFactors"}, "OpenSession": {"./openSession"}, "prove": {"./admit"}, "openSession": {"./admit"},
	})
}

func calls(call *ast.CallExpr, method string) bool {
	s, is := call.Fun.(*ast.SelectorExpr)
	return is && s.Sel.Name == method
}

// A proof is worth nothing once the account has changed: whatever raises the version
// between a login's proof and its session, no session is opened.
func TestAProofFromBeforeAChangeOpensNothing(t *testing.T) {
	each(t, func(t *testing.T, s *server, _ *clock) {
		for name, change := range map[string]func(email string) error{
			"a new password":             func(email string) error { return s.SetPassword(t.Context(), email, newPassword) },
			"the same password set anew": func(email string) error { return s.SetPassword(t.Context(), email, oldPassword) },
			"a revocation": func(email string) error {
				return errors.Join(s.Revoke(t.Context(), email), s.Reinstate(t.Context(), email))
			},
			"a change by the user": func(email string) error {
				caller := s.caller(t, s.login(t, email, oldPassword))
				return s.ChangePassword(t.Context(), auth.Client{}, caller, oldPassword, newPassword, "")
			},
		} {
			before := s.user(t, strings.ReplaceAll(name, " ", ".")+"@example.org")
			ok(t, change(before.Email))
			if after := must(s.User(t.Context(), before.Email))(t); after.AuthVersion <= before.AuthVersion {
				t.Errorf("%s: the version was %d and is %d", name, before.AuthVersion, after.AuthVersion)
			}
			ok(t, s.Store.InTx(t.Context(), func(tx *store.Tx) error {
				if _, err := tx.LogIn(before.ID, before.AuthVersion, store.Password{}, ""); !errors.Is(err, store.ErrNotFound) {
					t.Errorf("%s: a login by the proof of before: %v", name, err)
				}
				return nil
			}))
		}
	})
}

// A login leaves the version as it is, also where it makes the hash anew: else logins
// at the same time would refuse each other.
func TestALoginLeavesTheVersion(t *testing.T) {
	each(t, func(t *testing.T, s *server, _ *clock) {
		before := s.user(t, "ann@example.org")
		s.login(t, before.Email, oldPassword)
		same(t, "the version", must(s.User(t.Context(), before.Email))(t).AuthVersion, before.AuthVersion)
	})
}

// The doors of the API take sessions of their own kind alone.
func TestASessionOfAnotherKindIsNone(t *testing.T) {
	each(t, func(t *testing.T, s *server, _ *clock) {
		user := s.user(t, "ann@example.org")
		in := s.login(t, user.Email, oldPassword)
		session := s.session(t, in)
		same(t, "the session's kind", session.Kind, store.KindAPI)
		same(t, "what was shown", session.AMR, "pwd")
		same(t, "when", session.AuthTime, session.CreatedAt)
		s.exec(t, `UPDATE sessions SET kind = 'browser'`)
		_, err := s.Check(t.Context(), in.Access)
		wantErr(t, "the access token of another kind of session", err, auth.ErrNotLoggedIn)
		_, err = s.Renew(t.Context(), auth.Client{}, in.Refresh, s.Store.Now())
		wantErr(t, "the refresh token of another kind of session", err, auth.ErrRefresh)
		s.exec(t, `UPDATE sessions SET kind = 'api'`)
		s.alive(t, in)
	})
}
