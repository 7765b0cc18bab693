package main

import (
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"net/url"
	"regexp"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
	"unicode/utf8"
)

// console is what a command reads and writes.
type console struct {
	in       io.Reader
	out, err io.Writer
}

// table is for a person: rows of cells, in columns.
type table struct{ *tabwriter.Writer }

// newTable prints the titles of the columns, if there are any. Each column is at
// least so wide.
func newTable(out io.Writer, width int, titles ...any) *table {
	t := &table{tabwriter.NewWriter(out, width, 0, 2, ' ', 0)}
	if len(titles) > 0 {
		t.row(titles...)
	}
	return t
}

// row adds a row. Errors come from Flush, which ends the table.
func (t *table) row(cells ...any) {
	texts := make([]string, len(cells))
	for i, cell := range cells {
		texts[i] = fmt.Sprint(cell)
	}
	fmt.Fprintln(t, strings.Join(texts, "\t"))
}

// blockRows is how many rows are kept, to make the columns wide enough for them.
// A list may be longer than what memory takes.
const blockRows = 1000

// writeRows has row print each, and ends the table.
func writeRows[T any](t *table, all iter.Seq2[T, error], row func(T)) error {
	rows := 0
	for v, err := range all {
		if err != nil {
			return err
		}
		row(v)
		if rows++; rows%blockRows == 0 {
			if err := t.Flush(); err != nil {
				return err
			}
		}
	}
	return t.Flush()
}

// views are the elements of a list as they are printed.
func views[T, V any](all iter.Seq2[T, error], view func(T) V) iter.Seq2[V, error] {
	return func(yield func(V, error) bool) {
		for v, err := range all {
			if !yield(view(v), err) {
				return
			}
		}
	}
}

// writeArray prints a JSON array, one element a line, without keeping it.
func writeArray[T any](w io.Writer, all iter.Seq2[T, error]) error {
	before := "[\n"
	for v, err := range all {
		if err != nil {
			return err
		}
		line, err := json.Marshal(v)
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintf(w, "%s  %s", before, line); err != nil {
			return err
		}
		before = ",\n"
	}
	if before == "[\n" {
		_, err := fmt.Fprintln(w, "[]")
		return err
	}
	_, err := fmt.Fprintln(w, "\n]")
	return err
}

// writeLines prints JSON, an object a line.
func writeLines[T any](w io.Writer, all iter.Seq2[T, error]) error {
	e := json.NewEncoder(w)
	for v, err := range all {
		if err != nil {
			return err
		}
		if err := e.Encode(v); err != nil {
			return err
		}
	}
	return nil
}

// writeJSON prints v for a program.
func writeJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

func orNull(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

// formatTime is a time for a person.
func formatTime(t *time.Time) string {
	if t == nil {
		return "never"
	}
	return t.Format(time.DateTime) + " UTC"
}

// formatDuration is a duration without the zeroes at its end: 1h instead of 1h0m0s.
func formatDuration(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

// formatSetting is a setting as it would be given.
func formatSetting(value any) string {
	switch v := value.(type) {
	case time.Duration:
		return formatDuration(v)
	case []string:
		return strings.Join(v, ",")
	}
	return fmt.Sprint(value)
}

func formatDays(d time.Duration) string {
	if n := int(d / (24 * time.Hour)); n != 1 {
		return fmt.Sprintf("%d days", n)
	}
	return "1 day"
}

// oneLine is an error's text without line breaks.
func oneLine(err error) string { return strings.Join(strings.Fields(err.Error()), " ") }

// printable is text that others wrote, without what a terminal would obey or what
// hides some of it. It is clean when it is stored, as package web does it with
// user agents: this is for what wrote past that.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, text)
}

// truncate leaves of a text what fits at a line's end.
func truncate(text string) string {
	const most = 60
	if utf8.RuneCountInString(text) <= most {
		return text
	}
	return string([]rune(text)[:most-1]) + "…"
}

// printCount prints how many there were; none after an error is not printed.
func printCount(c console, what string, n int64, err error) {
	if err == nil || n > 0 {
		fmt.Fprintf(c.err, "%s: %d\n", what, n)
	}
}

const hidden = "***"

// shown are the schemes and query parameters that hold no secret. A file's name
// is none.
var (
	shownSchemes = map[string]bool{"postgres": true, "postgresql": true, "nats": true, "tls": true, "smtp": true, "smtps": true, "smtp+insecure": true}
	shownParams  = map[string]bool{
		"sslmode": true, "sslrootcert": true, "sslcert": true, "sslkey": true, "sslnegotiation": true, "channel_binding": true,
		"connect_timeout": true, "application_name": true, "search_path": true, "target_session_attrs": true,
		"host": true, "port": true, "user": true, "dbname": true,
		"credentials": true, "ca": true, "cert": true, "key": true, "handshake_first": true, "stream": true, "replicas": true, "max_bytes": true,
	}
	oneValue = regexp.MustCompile(`^[A-Za-z0-9._~/:,%+-]*$`)
	hostList = regexp.MustCompile(`^` + aHost + `(,` + aHost + `)*$`)
	plain    = regexp.MustCompile(`^[!-~]*$`) // printable ASCII: what a URL may consist of
)

const aHost = `([A-Za-z0-9._-]*|\[[0-9A-Fa-f:.]+(%25[A-Za-z0-9._-]+)?\])(:[0-9]{1,5})?`

// redact is a setting that may hold a secret, without it. What is shown must be
// known to be none: where a URL isn't written as it should be, a part of its
// password may stand anywhere, and all but the scheme is hidden.
func redact(value string) string {
	scheme, rest, ok := strings.Cut(value, "://")
	switch {
	case value == "" || value == "local" || ok && scheme == "sqlite":
		return value
	case !ok || !shownSchemes[scheme]:
		return hidden
	}
	all := scheme + "://" + hidden
	at := strings.IndexAny(rest, "/?#")
	if at < 0 {
		at = len(rest)
	}
	authority, tail := rest[:at], rest[at:]
	login, hosts, both := strings.Cut(authority, "@")
	if !both {
		login, hosts = "", authority
	}
	if strings.ContainsAny(tail, "@#") || !hostList.MatchString(hosts) || !plain.MatchString(rest) {
		return all
	}
	if _, err := url.PathUnescape(tail); err != nil {
		return all
	}
	text := scheme + "://"
	if both {
		text += redactLogin(scheme, login) + "@"
	}
	path, query, asked := strings.Cut(tail, "?")
	text += hosts + path
	if asked {
		text += "?" + redactQuery(query)
	}
	return text
}

// redactLogin keeps the user where there is a password, too; a name alone may
// be a token.
func redactLogin(scheme, login string) string {
	user, password, both := strings.Cut(login, ":")
	switch {
	case both && !strings.Contains(password, ":"):
		return user + ":" + hidden
	case !both && strings.HasPrefix(scheme, "postgres"):
		return user
	}
	return hidden
}

// redactQuery hides all where one parameter isn't known: the next may be a part
// of it.
func redactQuery(query string) string {
	for pair := range strings.SplitSeq(query, "&") {
		if name, value, ok := strings.Cut(pair, "="); !ok || !shownParams[name] || !oneValue.MatchString(value) {
			return hidden
		}
	}
	return query
}
