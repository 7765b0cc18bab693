package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestRenewalIsTheStores(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("../internal/store/*.go")
	if err != nil {
		t.Fatal(err)
	}
	texts := map[string]bool{} // that stand in the source
	for _, name := range files {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if l, ok := n.(*ast.BasicLit); ok && l.Kind == token.STRING {
				text, err := strconv.Unquote(l.Value)
				if err != nil {
					t.Error(err)
				}
				texts[text] = true
			}
			return true
		})
	}
	for _, text := range []string{renewalSets, renewalWhere, renewalReturns} {
		if !texts[text] {
			t.Errorf("the store no longer has the text:\n%s", text)
		}
	}
}

func TestScriptSetsWhatItUses(t *testing.T) {
	t.Parallel()
	script := pgbenchScript(time.Unix(1_800_000_000, 0))
	set := map[string]bool{"client_id": true} // pgbench's own
	used := regexp.MustCompile(`:([a-z_]+)`)
	for line := range strings.Lines(script) {
		for _, m := range used.FindAllStringSubmatch(line, -1) {
			if !set[m[1]] {
				t.Errorf("%s isn't set before %q", m[1], line)
			}
		}
		if fields := strings.Fields(line); fields[0] == `\set` {
			set[fields[1]] = true
		}
	}
	for _, want := range []string{
		"\\set this 30000000\n", "\\set last 29999999\n", "\\set now 1800000000000000\n", "\\set opened 1792224000000000\n",
		"\\set n 100000000001 + :client_id + 64 * random(0, 63)\n",
		"counter = :next,", "renewed_at / :window = :before THEN", "WHERE id = '00000000-0000-7000-8000-' || :n AND kind = 'api' AND counter <= :counter AND",
		"created_at > :opened AND renewed_at > :renewed\n",
	} {
		if !strings.Contains(script, want) {
			t.Errorf("it lacks %q:\n%s", want, script)
		}
	}
	if strings.Contains(script, "$") {
		t.Errorf("a parameter was left:\n%s", script)
	}
}

func TestPgbenchsOutputIsRead(t *testing.T) {
	t.Parallel()
	const good = `pgbench (15.13 (Debian 15.13-0+deb12u1))
transaction type: renew.sql
number of clients: 64
duration: 2 s
number of transactions actually processed: 12228
number of failed transactions: 0 (0.000%)
latency average = 10.512 ms
initial connection time = 86.911 ms
tps = 6114.123456 (without initial connection time)
`
	if f, err := parsePgbench(good); err != nil || f.Operations != 12228 || f.PerSecond != 6114.123456 {
		t.Errorf("got %+v, %v", f, err)
	}
	const none = "number of transactions actually processed: 0\nnumber of failed transactions: 0 (NaN%)\n"
	if f, err := parsePgbench(none); err != nil || f.Operations != 0 || f.PerSecond != 0 {
		t.Errorf("got %+v, %v of a run that did nothing", f, err)
	}
	for _, bad := range []string{"", strings.Replace(good, "tps", "rate", 1), strings.Replace(good, "actually processed", "seen", 1)} {
		if f, err := parsePgbench(bad); err == nil {
			t.Errorf("got %+v of %q", f, bad)
		}
	}
}
