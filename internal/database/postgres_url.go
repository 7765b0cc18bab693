package database

import (
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"golang.org/x/net/idna"
)

// These quote nothing: where a URL can't be read, a part of the password may
// stand anywhere in it.
var (
	errURL        = errors.New("it can't be read as postgres://USER:PASSWORD@HOST:PORT/DATABASE; percent-encode what is special in user, password and name: @ is %40, / is %2F, # is %23, ? is %3F")
	errPort       = errors.New("a port must be a number from 1 to 65535")
	errParameters = errors.New("its parameters must be NAME=VALUE, the first after ? and others after &; in a value, = is %3D and & is %26")
)

// parsePostgres reads the URL of a database. It is stricter than pgx, which finds
// a host in what is left of a password with a raw @ or /: that host would be in
// the log, asked for at the name server, and given the rest.
func parsePostgres(of string) (*pgx.ConnConfig, error) {
	scheme, rest, ok := strings.Cut(of, "://")
	if !ok {
		return nil, errURL
	}
	login, authority, tail := "", rest, ""
	if i := strings.IndexAny(rest, "@/"); i >= 0 && rest[i] == '@' {
		login, authority = rest[:i+1], rest[i+1:] // the login may have a ? of its own
	}
	if i := strings.IndexAny(authority, "/?#"); i >= 0 {
		authority, tail = authority[:i], authority[i:]
	}
	path, query, _ := strings.Cut(tail, "?")
	if strings.ContainsAny(authority, "@#") || strings.ContainsAny(path, "@#") || strings.Count(path, "/") > 1 || strings.ContainsAny(query, "@#") {
		return nil, errURL
	}
	for _, text := range []string{login, path} {
		if _, err := url.PathUnescape(text); err != nil {
			return nil, errURL
		}
	}
	hosts := strings.Split(authority, ",")
	for i := range hosts {
		var err error
		if hosts[i], err = host(hosts[i], login != ""); err != nil {
			return nil, err
		}
	}
	if query != "" {
		if err := checkParameters(strings.TrimSuffix(query, "&")); err != nil {
			return nil, err
		}
	}
	config, err := pgx.ParseConfig(scheme + "://" + login + strings.Join(hosts, ",") + tail)
	if err != nil {
		// The URL stands before the reason, and pgx hides only the password that it
		// finds.
		reason := err.Error()
		reason = reason[strings.LastIndex(reason, "`: ")+len("`: "):]
		if strings.HasPrefix(reason, "failed to parse as URL") {
			return nil, errURL
		}
		return nil, fmt.Errorf("it can't be used with these parameters and PG… variables: %s", reason)
	}
	return config, nil
}

var hostName = regexp.MustCompile(`^[\pL\pM\pN._-]*$`)

// host returns HOST[:PORT], either of which may be missing, in ASCII: a name, an
// address, or the folder of a socket. Without a login it may be one, of which a
// raw / has cut the rest off.
func host(text string, login bool) (string, error) {
	name, port := text, ""
	if i := strings.LastIndexByte(text, ':'); i >= 0 && !strings.HasSuffix(text, "]") {
		name, port = text[:i], text[i:]
	}
	plain, err := url.PathUnescape(name)
	if inner, ok := strings.CutPrefix(name, "["); ok {
		inner, ok = strings.CutSuffix(inner, "]")
		ip, err := netip.ParseAddr(inner)
		if !ok || err != nil || !ip.Is6() {
			return "", errURL
		}
	} else if err != nil || !strings.HasPrefix(plain, "/") && !hostName.MatchString(plain) {
		return "", errURL
	} else if !strings.HasPrefix(plain, "/") && strings.ContainsFunc(plain, func(r rune) bool { return r > '~' }) {
		if name, err = idna.Lookup.ToASCII(plain); err != nil {
			return "", errURL
		}
	}
	if _, err := strconv.Atoi(strings.TrimPrefix(port, ":")); len(port) > 1 && err != nil && !login {
		return "", errURL
	}
	return name + port, checkPort(strings.TrimPrefix(port, ":"))
}

func checkPort(text string) error {
	if n, err := strconv.ParseUint(text, 10, 16); text != "" && (err != nil || n == 0) {
		return errPort
	}
	return nil
}

// choices are the parameters that can have a few values.
var choices = map[string][]string{
	"ssl":                  {"true"},
	"sslmode":              {"disable", "allow", "prefer", "require", "verify-ca", "verify-full"},
	"sslnegotiation":       {"postgres", "direct"},
	"sslcertmode":          {"disable", "allow", "require"},
	"sslsni":               {"0", "1"},
	"channel_binding":      {"disable", "prefer", "require"},
	"client_encoding":      {"UTF8", "utf8", "UTF-8", "utf-8"},
	"target_session_attrs": {"any", "read-write", "read-only", "primary", "standby", "prefer-standby"},
	"min_protocol_version": {"3.0", "3.2", "latest"},
	"max_protocol_version": {"3.0", "3.2", "latest"},
}

// lacking are parameters of libpq, and so of psql and pg_dump, that pgx lacks. It
// would ask PostgreSQL for them, which says that it doesn't know them.
var lacking = map[string]string{
	"hostaddr":                  "write the address as the host",
	"requiressl":                "write sslmode=require",
	"load_balance_hosts":        "hosts are tried in their order",
	"fallback_application_name": "its sessions are named kwai",
	"replication":               "leave it out",
	"requirepeer":               "leave it out",
	"keepalives":                sees, "keepalives_idle": sees, "keepalives_interval": sees, "keepalives_count": sees, "tcp_user_timeout": sees,
	"sslcompression": "there is none", "sslcrl": noLists, "sslcrldir": noLists, "sslkeylogfile": "leave it out",
	"ssl_min_protocol_version": tlsVersion, "ssl_max_protocol_version": tlsVersion,
	"gssencmode": noGSS, "gsslib": noGSS, "gssdelegation": noGSS,
	"scram_client_key": noLogin, "scram_server_key": noLogin,
	"oauth_issuer": noLogin, "oauth_client_id": noLogin, "oauth_client_secret": noLogin, "oauth_scope": noLogin, "oauth_ca_file": noLogin,
}

const (
	sees       = "leave it out, it sees by itself that a connection is dead"
	noLists    = "leave it out, it reads no revocation lists"
	tlsVersion = "leave it out, it speaks TLS 1.2 or newer"
	noGSS      = "leave it out, it doesn't speak GSSAPI"
	noLogin    = "log in with a password or a certificate"
)

// checkParameters says what is wrong with one of them, quoting no value.
func checkParameters(query string) error {
	values := make(map[string]string)
	for pair := range strings.SplitSeq(query, "&") {
		name, raw, ok := strings.Cut(pair, "=")
		value, err := url.PathUnescape(raw)
		if !ok || err != nil || strings.Contains(raw, "=") {
			return errParameters
		}
		values[name] = value
	}
	for _, name := range slices.Sorted(maps.Keys(values)) {
		value := values[name]
		if advice := lacking[name]; advice != "" {
			return fmt.Errorf("kwai doesn't take the parameter %s: %s", name, advice)
		}
		if known := choices[name]; known != nil && value != "" && !slices.Contains(known, value) {
			return fmt.Errorf("%s must be %s", name, strings.Join(known, " or "))
		}
	}
	if n, err := strconv.Atoi(values["connect_timeout"]); values["connect_timeout"] != "" && (err != nil || n < 0) {
		return errors.New("connect_timeout must be a number of seconds, without a unit")
	}
	for port := range strings.SplitSeq(values["port"], ",") {
		if err := checkPort(port); err != nil {
			return err
		}
	}
	for _, name := range []string{"sslrootcert", "sslcert", "sslkey"} {
		path := values[name]
		if path == "" || name == "sslrootcert" && path == "system" {
			continue
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if name != "sslkey" && !x509.NewCertPool().AppendCertsFromPEM(text) {
			return fmt.Errorf("%s: %s has no certificate in PEM", name, path)
		}
	}
	return nil
}

// EngineOf is sqlite or postgres, by a database's URL.
func EngineOf(of string) string {
	if strings.HasPrefix(of, "sqlite://") {
		return "sqlite"
	}
	return "postgres"
}

// RedactURL is a database's URL without what could be secret; "" if no database
// can be opened by it.
func RedactURL(of string) string {
	if EngineOf(of) == "sqlite" {
		return of
	}
	config, err := parsePostgres(of)
	if err != nil {
		return ""
	}
	u := url.URL{Scheme: "postgres", User: url.User(config.User), Path: "/" + config.Database,
		Host: net.JoinHostPort(config.Host, strconv.Itoa(int(config.Port)))}
	if strings.HasPrefix(config.Host, "/") { // a socket's folder
		u.Host, u.RawQuery = "", url.Values{"host": {config.Host}}.Encode()
	}
	return u.String()
}
