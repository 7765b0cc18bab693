package store

import (
	"errors"
	"net/netip"
	"net/url"
	"regexp"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
)

// errURL quotes nothing: where a URL can't be read, a part of the password may
// stand anywhere in it.
var errURL = errors.New("it can't be read as postgres://USER:PASSWORD@HOST:PORT/DATABASE; percent-encode what is special in user, password and name: @ is %40, / is %2F, # is %23, ? is %3F")

// parsePostgres reads the URL of a database. It is stricter than pgx, which finds
// a host in what is left of a password with a raw @ or /: that host would be in
// the log, asked for at the name server, and given the rest.
func parsePostgres(of string) (*pgx.ConnConfig, error) {
	_, rest, ok := strings.Cut(of, "://")
	if !ok {
		return nil, errURL
	}
	authority, path := rest, ""
	if i := strings.IndexAny(rest, "@/"); i >= 0 && rest[i] == '@' {
		authority = rest[i+1:] // the login may have a ? of its own
	}
	if i := strings.IndexAny(authority, "/?#"); i >= 0 {
		path = authority[i:]
		authority = authority[:i]
	}
	path, query, _ := strings.Cut(path, "?")
	if strings.ContainsAny(authority, "@#") || strings.ContainsAny(path, "@#") || strings.Count(path, "/") > 1 || strings.ContainsAny(query, "@#") {
		return nil, errURL
	}
	for _, host := range strings.Split(authority, ",") {
		if !isHost(host) {
			return nil, errURL
		}
	}
	config, err := pgx.ParseConfig(of)
	if err != nil {
		return nil, errURL // pgx hides the password, but quotes the rest
	}
	return config, nil
}

var hostName = regexp.MustCompile(`^[\pL\pN._-]*$`)

// isHost tells whether a text is HOST[:PORT], either of which may be missing: a
// name, an address, or the folder of a socket.
func isHost(text string) bool {
	host := text
	if i := strings.LastIndexByte(text, ':'); i >= 0 && !strings.HasSuffix(text, "]") {
		port := text[i+1:]
		host = text[:i]
		if n, err := strconv.ParseUint(port, 10, 16); port != "" && (err != nil || n == 0) {
			return false
		}
	}
	if inner, ok := strings.CutPrefix(host, "["); ok {
		inner, ok = strings.CutSuffix(inner, "]")
		ip, err := netip.ParseAddr(inner)
		return ok && err == nil && ip.Is6()
	}
	plain, err := url.PathUnescape(host)
	return err == nil && (strings.HasPrefix(plain, "/") || hostName.MatchString(plain))
}
