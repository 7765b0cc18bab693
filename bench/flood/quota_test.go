package main

import (
	"os"
	"path/filepath"
	"testing"
)

func TestQuote(t *testing.T) {
	t.Parallel()
	if got, want := quote("/a b/c'd"), `'/a b/c'\''d'`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// No kernel makes files in a group that is an ordinary folder: it is refused,
// and nothing stays.
func TestNoControlGroupsNoQuota(t *testing.T) {
	t.Parallel()
	for _, version := range []string{"cpu/x", "cgroup.controllers"} {
		root := t.TempDir()
		path := filepath.Join(root, version)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := newCgroup(root, "flood", 1); err == nil {
			t.Errorf("%s: a quota without a kernel", version)
		}
		for _, folder := range []string{"flood", "cpu/flood"} {
			if _, err := os.Stat(filepath.Join(root, folder)); err == nil {
				t.Errorf("%s: %s stays", version, folder)
			}
		}
	}
}
