package main

import (
	"net/url"
	"regexp"
	"strings"
)

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
