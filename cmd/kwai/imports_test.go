package main

import (
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// ourImports are the arrows of docs/architecture.md: what each package imports of the
// module's own. Tests may import more. A package that isn't here, such as verify,
// imports none of them.
var ourImports = map[string][]string{
	"cmd/kwai":          {"internal/auth", "internal/bus", "internal/database", "internal/folder", "internal/i18n", "internal/loopback", "internal/mail", "internal/offline", "internal/password", "internal/store", "internal/token", "internal/web"},
	"internal/web":      {"internal/auth", "internal/i18n", "internal/loopback", "internal/mail"}, // mail: the mails at /dev/mail
	"internal/mail":     {"internal/auth", "internal/bus", "internal/folder", "internal/i18n", "internal/loopback", "internal/store"},
	"internal/bus":      {"internal/database", "internal/loopback", "internal/store"}, // database: what fails while it is away
	"internal/auth":     {"internal/i18n", "internal/loopback", "internal/password", "internal/store", "internal/token", "verify"},
	"internal/offline":  {"internal/database", "internal/folder", "internal/store"},
	"internal/store":    {"internal/database"},
	"internal/database": {"internal/folder"},
	"internal/token":    {"verify"},

	"internal/testing/cluster":   {"internal/testing/pgcluster"},
	"internal/testing/keytest":   {"internal/store", "internal/token"},
	"internal/testing/mailtest":  {"internal/mail"},
	"internal/testing/pgtest":    {"internal/testing/memory", "internal/testing/need", "internal/testing/pgcluster"},
	"internal/testing/storetest": {"internal/database", "internal/store", "internal/testing/need", "internal/testing/pgtest"},

	"bench":               {"bench/internal/load", "internal/auth", "internal/password", "internal/testing/cluster", "internal/testing/pgcluster"},
	"bench/flood":         {"bench/internal/load", "internal/password", "internal/testing/cluster", "internal/testing/passkeytest"},
	"bench/internal/load": {"internal/auth", "internal/password", "internal/testing/cluster", "internal/testing/pgcluster"},
	"bench/oracle":        {"bench/internal/load", "internal/i18n", "internal/password", "internal/testing/cluster"},
	"examples/cluster":    {"internal/testing/cluster", "internal/testing/pgcluster"},
	"examples/verify":     {"verify"},
}

func TestPackagesImportOnlyWhatTheyMay(t *testing.T) {
	t.Parallel()
	const root, module = "../..", "kwai/"
	imports := make(map[string]map[string]bool)
	err := filepath.WalkDir(root, func(file string, d fs.DirEntry, err error) error {
		name := d.Name()
		switch {
		case err != nil:
			return err
		case d.IsDir() && (name == "testdata" || strings.HasPrefix(name, ".") && file != root):
			return fs.SkipDir
		case d.IsDir(), !strings.HasSuffix(name, ".go"), strings.HasSuffix(name, "_test.go"):
			return nil
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(root, filepath.Dir(file))
		if err != nil {
			return err
		}
		for _, i := range parsed.Imports {
			imported, err := strconv.Unquote(i.Path.Value)
			if err != nil {
				return err
			}
			if ours, ok := strings.CutPrefix(path.Clean(imported), module); ok {
				from := filepath.ToSlash(relative)
				if imports[from] == nil {
					imports[from] = make(map[string]bool)
				}
				imports[from][ours] = true
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[string][]string)
	for from, all := range imports {
		got[from] = slices.Sorted(maps.Keys(all))
	}
	if diff := cmp.Diff(ourImports, got); diff != "" {
		t.Errorf("the imports (+) are not those of the table (-):\n%s", diff)
	}
}
