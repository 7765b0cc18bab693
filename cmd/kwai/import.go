package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"kwai/internal/auth"
)

type userImportCmd struct {
	File   string `arg:"" help:"The file, in JSON Lines; - is standard input."`
	DryRun bool   `help:"Change nothing, and print what would become of each line."`
	Invite bool   `help:"Mail a link to choose a password to those who come without a hash."`
}

func (cmd *userImportCmd) Help() string {
	return `Each line is a JSON object with "email", and as far as there is one "first_name", "last_name", "hash" (bcrypt or argon2id), ` +
		`"id" (a UUID of version 4), "created_at" and "revoked_at" (such as 2026-11-23T15:04:05Z). ` +
		"What is wrong with a line is printed, and the others are imported. " +
		"Run it again after an interruption: accounts that are there already stay as they are. " +
		"Exit codes: 2 if lines are wrong; else 3 if another account has an address or an id; 1 if anything else failed."
}

func (cmd *userImportCmd) Run(ctx context.Context, s *Settings, c console) error {
	in := c.in
	if cmd.File != "-" {
		file, err := os.Open(cmd.File)
		if err != nil {
			return &usageError{"", err}
		}
		defer file.Close()
		in = file
	}
	return withRules(ctx, s, c, func(rules *auth.Service) error {
		i := importer{rules: rules, options: auth.ImportOptions{Invite: cmd.Invite, DryRun: cmd.DryRun}, out: c.out,
			addresses: make(map[string]importedLine), ids: make(map[string]int), hashes: make(map[string]int), seed: maphash.MakeSeed()}
		err := i.read(ctx, in)
		if err == nil && i.made+i.there+i.taken+i.wrong == 0 {
			return &usageError{"", fmt.Errorf("%s has no lines", cmd.File)}
		}
		if printed := i.print(); err == nil {
			err = printed
		}
		switch {
		case err != nil:
			return err
		case i.wrong > 0:
			return &auth.Error{Code: auth.Invalid, Detail: fmt.Sprintf("%s: lines that are wrong: %d", cmd.File, i.wrong)}
		case i.taken > 0:
			return fmt.Errorf("%s: lines with the address or the id of another account: %d: %w", cmd.File, i.taken, auth.ErrUserExists)
		}
		return nil
	})
}

const (
	// importBatch is how many lines share a transaction: some milliseconds on
	// SQLite, where nobody else writes meanwhile, and far from PostgreSQL's time-out.
	importBatch   = 250
	maxImportLine = 64 << 10
)

// importer imports a file, a batch at a time.
type importer struct {
	rules   *auth.Service
	options auth.ImportOptions
	out     io.Writer

	batch     []auth.Importable
	lines     []int // of the batch
	remarks   []remark
	addresses map[string]importedLine
	ids       map[string]int // lines
	seed      maphash.Seed

	made, there, taken, wrong int
	revoked                   int // lines
	hashes                    map[string]int
}

// remark is what is printed about a line.
type remark struct {
	line int
	text string
}

// importedLine is what is kept of a line, of which a file may have millions.
type importedLine struct {
	line int
	sum  uint64
}

func (i *importer) read(ctx context.Context, in io.Reader) error {
	lines := bufio.NewReaderSize(in, maxImportLine)
	for n := 1; ; n++ {
		line, err := lines.ReadSlice('\n')
		tooLong := errors.Is(err, bufio.ErrBufferFull)
		for errors.Is(err, bufio.ErrBufferFull) {
			_, err = lines.ReadSlice('\n')
		}
		ended := errors.Is(err, io.EOF)
		if err != nil && !ended {
			return fmt.Errorf("line %d: %w", n, err)
		}
		if n == 1 {
			line = bytes.TrimPrefix(line, []byte("\ufeff")) // as Windows writes it
		}
		switch {
		case tooLong:
			i.refuse(n, errors.New("it is longer than 64 KiB"))
		case len(bytes.TrimSpace(line)) > 0:
			if wrong := i.add(n, line); wrong != nil {
				i.refuse(n, wrong)
			}
		}
		if n%importBatch == 0 || ended {
			if err := i.flush(ctx); err != nil {
				return err
			}
		}
		if ended {
			return nil
		}
	}
}

// add puts a line into the batch. Its errors are the line's.
func (i *importer) add(n int, line []byte) error {
	parsed, err := parseImport(line)
	var account auth.Importable
	if err == nil {
		account, err = i.rules.CheckImport(parsed)
	}
	if err != nil {
		if parsed.Email != "" { // which is easier to find than a line number
			err = fmt.Errorf("%s: %w", truncate(parsed.Email), err)
		}
		return err
	}
	i.hashes[account.Cost()]++
	if !parsed.RevokedAt.IsZero() {
		i.revoked++
	}
	this := importedLine{n, maphash.Comparable(i.seed, parsed)}
	switch first, twice := i.addresses[account.EmailKey]; {
	case twice && first.sum == this.sum:
		i.there++
		return nil
	case twice:
		i.drop(n, fmt.Sprintf("%s has the address of line %d", printable(account.Email), first.line))
		return nil
	}
	i.addresses[account.EmailKey] = this
	if id := account.OwnID(); id != "" {
		if first, twice := i.ids[id]; twice {
			i.drop(n, fmt.Sprintf("%s has the id of line %d", printable(account.Email), first))
			return nil
		}
		i.ids[id] = n
	}
	i.batch, i.lines = append(i.batch, account), append(i.lines, n)
	return nil
}

func (i *importer) flush(ctx context.Context) error {
	became, differs, err := i.rules.ImportUsers(ctx, i.batch, i.options)
	if err != nil {
		return err
	}
	for n, account := range i.batch {
		fields := strings.Join(differs[n], ", ")
		switch became[n] {
		case auth.Made:
			i.made++
		case auth.Taken:
			i.drop(i.lines[n], fmt.Sprintf("%s: another account has its address or id; they differ in %s", printable(account.Email), fields))
		case auth.ThereAlready:
			i.there++
			if fields != "" {
				i.note(i.lines[n], fmt.Sprintf("%s is there already and stays as it is; what differs is not taken: %s", printable(account.Email), fields))
			}
		}
	}
	slices.SortStableFunc(i.remarks, func(a, b remark) int { return a.line - b.line })
	for _, r := range i.remarks {
		if _, err := fmt.Fprintf(i.out, "line %d: %s\n", r.line, r.text); err != nil {
			return err
		}
	}
	i.batch, i.lines, i.remarks = i.batch[:0], i.lines[:0], i.remarks[:0]
	return nil
}

func (i *importer) note(line int, text string) { i.remarks = append(i.remarks, remark{line, text}) }

// refuse is for a line that is wrong, drop for one that another account is in
// the way of.
func (i *importer) refuse(line int, err error) {
	i.wrong++
	i.note(line, printable(err.Error()))
}

func (i *importer) drop(line int, why string) {
	i.taken++
	i.note(line, why)
}

// print prints how many lines became what.
func (i *importer) print() error {
	made := "made"
	if i.options.DryRun {
		made = "would be made"
	}
	t := newTable(i.out, 0)
	t.row(made, i.made)
	t.row("there already", i.there)
	t.row("dropped, another account is in the way", i.taken)
	t.row("dropped, wrong", i.wrong)
	for _, cost := range slices.Sorted(maps.Keys(i.hashes)) {
		t.row("lines with "+cmp.Or(cost, "no hash"), i.hashes[cost])
	}
	t.row("lines that are revoked", i.revoked)
	return t.Flush()
}

// parseImport reads a line. Names that are written in another way, or twice, are
// errors: encoding/json would take them.
func parseImport(line []byte) (i auth.Import, err error) {
	if !utf8.Valid(line) {
		return i, errors.New("it is not UTF-8")
	}
	d := json.NewDecoder(bytes.NewReader(line))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return i, errors.New("it is not a JSON object, one a line (a JSON array becomes that by jq -c '.[]')")
	}
	texts := map[string]*string{"email": &i.Email, "first_name": &i.FirstName, "last_name": &i.LastName, "hash": &i.Hash, "id": &i.ID}
	times := map[string]*time.Time{"created_at": &i.CreatedAt, "revoked_at": &i.RevokedAt}
	seen := make(map[string]bool)
	for d.More() {
		name, value, err := member(d)
		if err != nil {
			return i, err
		}
		if seen[name] {
			return i, fmt.Errorf("%q stands there twice", name)
		}
		seen[name] = true
		text, isText := texts[name]
		at, isTime := times[name]
		switch {
		case !isText && !isTime:
			return i, fmt.Errorf("%q is none of its fields: email, first_name, last_name, hash, id, created_at, revoked_at", name)
		case value == "": // not given
		case isText:
			*text = value
		default:
			if *at, err = time.Parse(time.RFC3339, value); err != nil {
				return i, fmt.Errorf("%s: it must be a time such as 2026-11-23T15:04:05Z", name)
			}
			if at.IsZero() {
				*at = time.Unix(0, 0) // it was given, and is refused
			}
			*at = at.UTC()
		}
	}
	if _, err := d.Token(); err != nil {
		return i, errors.New("the JSON object has no end: was the line cut off?")
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return i, errors.New("there is something behind the JSON object")
	}
	return i, nil
}

// member reads a name and its value; null is "".
func member(d *json.Decoder) (name, value string, err error) {
	t, err := d.Token()
	if err != nil {
		return "", "", fmt.Errorf("it is no JSON: %w", err)
	}
	name, _ = t.(string)
	t, err = d.Token()
	if err != nil {
		return "", "", fmt.Errorf("%s: it is no JSON: %w", name, err)
	}
	value, isText := t.(string)
	if !isText && t != nil {
		return "", "", fmt.Errorf("%s: it must be text, in quotes", name)
	}
	if strings.ContainsRune(value, utf8.RuneError) {
		return "", "", fmt.Errorf("%s: a character of it was lost", name)
	}
	return name, value, nil
}
