package main

import "testing"

func TestWholeWay(t *testing.T) {
	each(t, func(t *testing.T, s *site) {
		s.user("ann@example.org", "a long enough one")
		in := s.post("login", "", "username", "ann@example.org", "password", "a long enough one")
		if in.Status != 200 {
			t.Fatal(in)
		}
		again := s.post("access_token", "", "refresh_token", in.field("refresh_token"))
		if again.Status != 200 || again.field("refresh_token") == in.field("refresh_token") {
			t.Fatal(again)
		}
		if a := s.get("/api/v1/auth/user", in.field("access_token")); a.Status != 200 || a.field("email") != "ann@example.org" {
			t.Fatal(a)
		}
		if a := s.post("logout", again.field("access_token"), "refresh_token", in.field("refresh_token")); a.Status != 200 {
			t.Fatal(a)
		}
		if a := s.get("/api/v1/auth/user", in.field("access_token")); a.Status != 401 {
			t.Fatal(a)
		}
	})
}
