package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/alecthomas/kong"

	"kwai/internal/auth"
	"kwai/internal/i18n"
	"kwai/internal/password"
	"kwai/internal/web"
)

// Settings are all settings. Each is a flag, an environment variable and a key
// of the TOML file, of the same name; a flag beats the environment, which beats
// the file, which beats the default.
type Settings struct {
	Config configFile `group:"database" env:"KWAI_CONFIG" placeholder:"FILE" help:"A TOML file with settings."`

	Listen        string        `group:"address" env:"KWAI_LISTEN" default:"127.0.0.1:8080" placeholder:"ADDRESS" help:"Address to serve on (${default})."`
	PublicURL     string        `group:"address" env:"KWAI_PUBLIC_URL" placeholder:"URL" help:"Where users reach the server: links in mails and the tokens' issuer are made of it. Default on a loopback address: http://LISTEN, or https://LISTEN with --tls-cert."`
	SiteURL       string        `group:"address" env:"KWAI_SITE_URL" name:"site-url" placeholder:"URL" help:"The site that people come back to: mails and pages link to it, and / leads there. Default: none."`
	TLSCert       string        `group:"address" env:"KWAI_TLS_CERT" name:"tls-cert" placeholder:"FILE" help:"Certificate, with its chain, in PEM: HTTPS is served. Read again when it changes."`
	TLSKey        string        `group:"address" env:"KWAI_TLS_KEY" name:"tls-key" placeholder:"FILE" help:"Key of that certificate, in PEM."`
	Data          string        `group:"database" env:"KWAI_DATA" default:"${data}" placeholder:"FOLDER" help:"Folder of the database, the keys and undelivered mail (${default})."`
	Database      string        `group:"database" env:"KWAI_DATABASE" secret:"" placeholder:"URL" help:"sqlite://PATH or postgres://…; @FILE reads it from a file. Default: sqlite://DATA/kwai.db."`
	MasterKeyFile string        `group:"database" env:"KWAI_MASTER_KEY_FILE" placeholder:"FILE" help:"The keys that seal the server's keys, one a line. Default: DATA/master.key, made at first start."`
	Bus           string        `group:"events" env:"KWAI_BUS" secret:"" default:"local" placeholder:"URL" help:"Where events are published: local (${default}: nowhere outside of kwai), or NATS JetStream: nats://[USER:PASSWORD@]HOST:PORT[?PARAMETERS] or tls://…; @FILE reads it from a file."`
	LogoutKeep    time.Duration `group:"events" env:"KWAI_LOGOUT_KEEP" default:"24h" bounds:"1m..30 days" placeholder:"DURATION" help:"How long an app is tried to be told of a logout (${default})."`
	BusKeep       time.Duration `group:"events" env:"KWAI_BUS_KEEP" default:"168h" bounds:"1m..100 years" placeholder:"DURATION" help:"How long an event waits to be published outside before it is dropped (${default})."`

	SMTP            string `group:"mail" env:"KWAI_SMTP" name:"smtp" secret:"" placeholder:"URL" help:"Mail server: smtp://[USER:PASSWORD@]HOST:PORT, smtps://… or smtp+insecure://…; @FILE reads it from a file. Default: mail is written to DATA/mail."`
	SMTPConnections int    `group:"mail" env:"KWAI_SMTP_CONNECTIONS" name:"smtp-connections" default:"2" bounds:"1..100" placeholder:"N" help:"How many mails are sent at the same time (${default})."`
	MailFrom        string `group:"mail" env:"KWAI_MAIL_FROM" placeholder:"ADDRESS" help:"Sender of mails. Default: noreply@ and the public URL's host."`
	Language        string `group:"mail" env:"KWAI_LANGUAGE" default:"en" placeholder:"CODE" help:"Language of mails and pages where neither the user nor the page asks for one: ${languages} (${default})."`
	ServiceName     string `group:"mail" env:"KWAI_SERVICE_NAME" placeholder:"NAME" help:"What mails call the service, and what pages show if it is set. Default: the public URL's host."`

	Logo        string `group:"pages" env:"KWAI_LOGO" placeholder:"FILE" help:"Picture above each page: an SVG or a PNG, up to 256 KiB. Default: none."`
	AccentColor string `group:"pages" env:"KWAI_ACCENT_COLOR" placeholder:"#RRGGBB" help:"Colour of buttons and links. Its contrast must be enough; the dark scheme gets a lighter one. Default: blue."`
	SupportURL  string `group:"pages" env:"KWAI_SUPPORT_URL" name:"support-url" placeholder:"URL" help:"Where users get help: https://… or mailto:…; pages and mails end with it. Default: none."`
	TermsURL    string `group:"pages" env:"KWAI_TERMS_URL" name:"terms-url" placeholder:"URL" help:"The terms of use; pages end with it. Default: none."`
	PrivacyURL  string `group:"pages" env:"KWAI_PRIVACY_URL" name:"privacy-url" placeholder:"URL" help:"The privacy statement; pages end with it. Default: none."`

	CORSOrigins []string `group:"address" env:"KWAI_CORS_ORIGINS" name:"cors-origins" sep:"," placeholder:"ORIGIN" help:"Origins whose pages may call the API, such as https://club.example.org, separated by commas."`

	Audience       string        `group:"tokens" env:"KWAI_AUDIENCE" default:"kwai" placeholder:"NAME" help:"aud and client_id of access tokens (${default})."`
	AccessLife     time.Duration `group:"tokens" env:"KWAI_ACCESS_LIFE" default:"1h" bounds:"1s..100 years" placeholder:"DURATION" help:"Life of an access token (${default})."`
	RefreshIdle    time.Duration `group:"tokens" env:"KWAI_REFRESH_IDLE" default:"720h" bounds:"1s..100 years" placeholder:"DURATION" help:"How long a session lives without a renewal (${default})."`
	SessionLife    time.Duration `group:"tokens" env:"KWAI_SESSION_LIFE" default:"2160h" bounds:"1s..100 years" placeholder:"DURATION" help:"How long a session lives at most (${default})."`
	ReuseWindow    time.Duration `group:"tokens" env:"KWAI_REUSE_WINDOW" default:"1m" bounds:"1s..100 years" placeholder:"DURATION" help:"How long a replaced refresh token still works (${default})."`
	RecoveryLife   time.Duration `group:"tokens" env:"KWAI_RECOVERY_LIFE" default:"2h" bounds:"1s..100 years" placeholder:"DURATION" help:"Life of a recovery (${default})."`
	InvitationLife time.Duration `group:"tokens" env:"KWAI_INVITATION_LIFE" default:"72h" bounds:"1s..100 years" placeholder:"DURATION" help:"Life of the link for a new account without a password (${default})."`

	TrustedProxies []string `group:"address" env:"KWAI_TRUSTED_PROXIES" sep:"," placeholder:"CIDR" help:"Proxies whose word is taken on where a request comes from: addresses or prefixes, separated by commas."`

	KeyRotation time.Duration `group:"tokens" env:"KWAI_KEY_ROTATION" default:"2160h" placeholder:"DURATION" help:"How long a server key is used before the next one is (${default}); 0: until kwai key rotate."`
	JWKSMaxAge  time.Duration `group:"tokens" env:"KWAI_JWKS_MAX_AGE" name:"jwks-max-age" default:"5m" bounds:"1s..100 years" placeholder:"DURATION" help:"How long the public keys may be cached (${default})."`

	IdleTimeout time.Duration `group:"address" env:"KWAI_IDLE_TIMEOUT" default:"11m" bounds:"1s..100 years" placeholder:"DURATION" help:"How long a connection without a request is kept (${default}): longer than a proxy keeps its own."`
	DrainDelay  time.Duration `group:"address" env:"KWAI_DRAIN_DELAY" default:"0s" bounds:"0s..100 years" placeholder:"DURATION" help:"How long the server goes on after SIGTERM while /readyz says that it ends (${default}), so that a balancer learns it first."`

	MaxConnections      int `group:"address" env:"KWAI_MAX_CONNECTIONS" default:"4096" placeholder:"N" help:"How many clients may be connected at the same time (${default})."`
	DatabaseConnections int `group:"database" env:"KWAI_DATABASE_CONNECTIONS" default:"32" bounds:"2..1000" placeholder:"N" help:"How many connections to PostgreSQL may be open at the same time (${default})."`

	HashMemory  uint32        `group:"passwords" env:"KWAI_HASH_MEMORY" default:"19456" placeholder:"KIB" help:"argon2id's memory in KiB (${default})."`
	HashTime    uint32        `group:"passwords" env:"KWAI_HASH_TIME" default:"2" placeholder:"N" help:"argon2id's passes (${default})."`
	HashThreads uint8         `group:"passwords" env:"KWAI_HASH_THREADS" default:"1" placeholder:"N" help:"argon2id's lanes (${default})."`
	HashWorkers int           `group:"passwords" env:"KWAI_HASH_WORKERS" default:"0" bounds:"0..1024" placeholder:"N" help:"How many passwords are hashed at the same time. Default: as many as there are cores, fewer where memory is short."`
	HashWait    time.Duration `group:"passwords" env:"KWAI_HASH_WAIT" default:"5s" bounds:"1ms..100 years" placeholder:"DURATION" help:"How long a login waits for its turn before it is refused (${default})."`

	MetricsListen string `group:"address" env:"KWAI_METRICS_LISTEN" placeholder:"ADDRESS" help:"Address to serve Prometheus' metrics and Go's profiles on. Default: none."`

	Limits string `group:"throttling" env:"KWAI_LIMITS" default:"on" enum:"on,off" help:"off switches every throttle off, for load tests (${default})."`

	LimitFree        int           `group:"throttling" env:"KWAI_LIMIT_FREE" default:"5" bounds:"1..100" placeholder:"N" help:"Failed logins in a row at an account before there are waits (${default})."`
	LimitFirstWait   time.Duration `group:"throttling" env:"KWAI_LIMIT_FIRST_WAIT" default:"1s" bounds:"1ms..24h" placeholder:"DURATION" help:"The first wait; each further failure doubles it (${default})."`
	LimitLongestWait time.Duration `group:"throttling" env:"KWAI_LIMIT_LONGEST_WAIT" default:"1h" bounds:"1ms..24h" placeholder:"DURATION" help:"The longest wait (${default})."`
	LimitMost        int           `group:"throttling" env:"KWAI_LIMIT_MOST" default:"100" bounds:"1..1000" placeholder:"N" help:"Failed logins in a row at an account after which only a network that it knows, a reset or kwai user unlock lets in (${default})."`
	LimitRemember    time.Duration `group:"throttling" env:"KWAI_LIMIT_REMEMBER" default:"2160h" bounds:"1h..100 years" placeholder:"DURATION" help:"How long an account knows a network since its latest login from there, and how long failures are counted since the latest (${default})."`
	LimitNetwork     int           `group:"throttling" env:"KWAI_LIMIT_NETWORK" default:"300" bounds:"1..1000000" placeholder:"N" help:"Failed logins of a network (/24, /56) at once, at accounts that don't know it (${default})."`
	LimitNetworkHour int           `group:"throttling" env:"KWAI_LIMIT_NETWORK_HOUR" default:"200" bounds:"1..1000000" placeholder:"N" help:"How many more of them in each hour (${default})."`
	LimitMailPause   time.Duration `group:"throttling" env:"KWAI_LIMIT_MAIL_PAUSE" default:"1m" bounds:"0s..1h" placeholder:"DURATION" help:"Time between two recovery mails to an account (${default})."`
	LimitMailHour    int           `group:"throttling" env:"KWAI_LIMIT_MAIL_HOUR" default:"5" bounds:"1..1000" placeholder:"N" help:"Recovery mails to an account within an hour (${default})."`
	LoginNotices     string        `group:"mail" env:"KWAI_LOGIN_NOTICES" default:"on" enum:"on,off" help:"Tell users by mail of logins from networks from which they hadn't logged in (${default})."`
	SelfDelete       string        `group:"accounts" env:"KWAI_SELF_DELETE" default:"on" enum:"on,off" help:"Let users delete their own accounts, at /account/delete (${default})."`
	TrailKeep        time.Duration `group:"log" env:"KWAI_TRAIL_KEEP" default:"9600h" bounds:"24h..100 years" placeholder:"DURATION" help:"How long the audit log is kept, and mail that could not be delivered (${default})."`
	LogFormat        string        `group:"log" env:"KWAI_LOG_FORMAT" default:"text" enum:"text,json" help:"text or json (${default})."`
	LogLevel         string        `group:"log" env:"KWAI_LOG_LEVEL" default:"info" enum:"debug,info,warn,error" help:"debug, info, warn or error (${default})."`

	proxies     web.Proxies       // as TrustedProxies has them
	accent      *web.Accent       // nil: kwai's own
	publicURL   *url.URL          // nil where it must be made of the address listened on
	secretFiles map[string]string // the @FILE that a secret was read from, by flag
}

const defaultData = "./kwai-data"

// helpVars are what tags name.
func helpVars() kong.Vars {
	return kong.Vars{"data": defaultData, "languages": strings.Join(i18n.Codes(), ", "), "kinds": strings.Join(auth.AuditKinds, ", ")}
}

// finish derives what depends on other settings and refuses what can't be.
func (s *Settings) finish() error {
	for _, step := range []func() error{
		s.readSecrets, s.finishPlaces, s.checkBounds, s.checkOthers, s.checkLanguage, s.finishURLs, s.finishBrand,
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// readSecrets reads the settings that are given as @FILE.
func (s *Settings) readSecrets() error {
	s.secretFiles = make(map[string]string)
	for _, secret := range []struct {
		flag  string
		value *string
	}{{"--database", &s.Database}, {"--smtp", &s.SMTP}, {"--bus", &s.Bus}} {
		if strings.HasPrefix(*secret.value, "@") {
			s.secretFiles[secret.flag] = *secret.value
		}
		if err := fromFile(secret.flag, secret.value); err != nil {
			return err
		}
	}
	return nil
}

// finishPlaces is about where data is kept, where events go, and the audience of
// tokens.
func (s *Settings) finishPlaces() error {
	if s.Data == "" {
		return &usageError{"--data", errors.New("it must not be empty")}
	}
	if s.Database == "" {
		s.Database = "sqlite://" + filepath.Join(s.Data, "kwai.db")
	}
	if s.Database == "sqlite://" || !s.onSQLite() && !strings.HasPrefix(s.Database, "postgres://") && !strings.HasPrefix(s.Database, "postgresql://") {
		return &usageError{"--database", errors.New("it must be sqlite://PATH or postgres://USER:PASSWORD@HOST:PORT/DATABASE")}
	}
	if s.Bus != "local" && !strings.HasPrefix(s.Bus, "nats://") && !strings.HasPrefix(s.Bus, "tls://") {
		return &usageError{"--bus", errors.New("it must be local, nats://HOST:PORT or tls://HOST:PORT")}
	}
	if s.Audience == "" {
		return &usageError{"--audience", errors.New("it must not be empty")}
	}
	return nil
}

// longest is as long as a duration may be where nothing else bounds it.
const longest = 100 * 365 * 24 * time.Hour

// checkBounds refuses the first setting that is out of the bounds in its tag.
func (s *Settings) checkBounds() error {
	for field, value := range reflect.ValueOf(s).Elem().Fields() {
		least, most, bounded := strings.Cut(field.Tag.Get("bounds"), "..")
		if bounded && (value.Int() < boundOf(least) || value.Int() > boundOf(most)) {
			return &usageError{flagOf(field.Tag.Get("env")), fmt.Errorf("%s is not between %s and %s", formatSetting(value.Interface()), least, most)}
		}
	}
	return nil
}

// boundOf reads a bound: a number, a duration or 100 years.
func boundOf(text string) int64 {
	if n, err := strconv.ParseInt(text, 10, 64); err == nil {
		return n
	}
	if d, err := time.ParseDuration(text); err == nil {
		return int64(d)
	}
	return int64(longest)
}

// checkOthers checks what depends on other settings.
func (s *Settings) checkOthers() error {
	if s.LimitMost < s.LimitFree {
		return &usageError{"--limit-most", fmt.Errorf("%d is less than --limit-free, %d", s.LimitMost, s.LimitFree)}
	}
	if s.LimitFirstWait > s.LimitLongestWait {
		return &usageError{"--limit-first-wait", fmt.Errorf("%s is more than --limit-longest-wait, %s", formatDuration(s.LimitFirstWait), formatDuration(s.LimitLongestWait))}
	}
	if least := s.keyRules().Lead(); s.KeyRotation != 0 && (s.KeyRotation < least || s.KeyRotation > longest) {
		return &usageError{"--key-rotation", fmt.Errorf("%s is neither 0 nor between %s (twice --jwks-max-age and %s) and 100 years", formatDuration(s.KeyRotation), formatDuration(least), formatDuration(auth.KeysFollow))}
	}
	if err := s.hashing().Validate(); err != nil {
		return &usageError{"--hash-memory, --hash-time, --hash-threads", err}
	}
	if s.MaxConnections < 1 {
		return &usageError{"--max-connections", fmt.Errorf("%d is not at least 1", s.MaxConnections)}
	}
	return nil
}

// checkLanguage allows "", which takes a user's choice back in kwai user update.
func (s *Settings) checkLanguage() error {
	if s.Language != "" && i18n.Lookup(s.Language) == nil {
		return &usageError{"--language", fmt.Errorf("%q is none of %s", s.Language, strings.Join(i18n.Codes(), ", "))}
	}
	return nil
}

// finishURLs writes URLs as browsers do, and reads the proxies' addresses.
func (s *Settings) finishURLs() (err error) {
	for _, text := range s.TrustedProxies {
		proxy, err := web.ParseProxy(strings.TrimSpace(text))
		if err != nil {
			return &usageError{"--trusted-proxies", err}
		}
		s.proxies = append(s.proxies, proxy)
	}
	if s.CORSOrigins, err = originsOf(s.CORSOrigins); err != nil {
		return err
	}
	if s.PublicURL != "" {
		if s.publicURL, err = publicURLOf(s.PublicURL); err != nil {
			return err
		}
	}
	if s.SiteURL != "" {
		u, err := webURL(s.SiteURL)
		if err != nil {
			return &usageError{"--site-url", fmt.Errorf("%q is not a URL such as https://club.example.org: %w", s.SiteURL, err)}
		}
		s.SiteURL = u.String()
	}
	return nil
}

// finishBrand reads the accent and the addresses that pages end with. The logo is read
// by the server alone.
func (s *Settings) finishBrand() (err error) {
	for _, link := range []struct {
		flag  string
		value *string
	}{{"--support-url", &s.SupportURL}, {"--terms-url", &s.TermsURL}, {"--privacy-url", &s.PrivacyURL}} {
		read, example := webURL, "a URL such as https://club.example.org"
		if link.flag == "--support-url" {
			read, example = supportURL, "https://club.example.org/help or mailto:help@example.org"
		}
		if *link.value == "" {
			continue
		}
		u, err := read(*link.value)
		if err != nil {
			return &usageError{link.flag, fmt.Errorf("%q is not %s: %w", *link.value, example, err)}
		}
		*link.value = u.String()
	}
	if s.AccentColor != "" {
		if s.accent, err = web.NewAccent(s.AccentColor); err != nil {
			return &usageError{"--accent-color", err}
		}
	}
	return nil
}

// brand is whose pages they are.
func (s *Settings) brand() (web.Brand, error) {
	b := web.Brand{Name: strings.Join(strings.Fields(s.ServiceName), " "), Accent: s.accent, SupportURL: s.SupportURL, TermsURL: s.TermsURL, PrivacyURL: s.PrivacyURL}
	if s.Logo == "" {
		return b, nil
	}
	data, err := readUpTo(s.Logo, web.MaxLogo)
	if err == nil {
		text := ""
		if b.Name == "" {
			text = s.publicURL.Hostname()
		}
		b.Logo, err = web.NewLogo(data, text)
	}
	if err != nil {
		return b, &usageError{"--logo", fmt.Errorf("%s: %w", s.Logo, err)}
	}
	return b, nil
}

// readUpTo reads a file, of a larger one a byte more than so many.
func readUpTo(path string, most int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, errors.Unwrap(err) // without the path
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, most+1))
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		err = e.Err
	}
	return data, err
}

func (s *Settings) hashing() password.Params {
	return password.Params{MemoryKiB: s.HashMemory, Time: s.HashTime, Threads: s.HashThreads}
}

func (s *Settings) rules() auth.Settings {
	return auth.Settings{
		Audience:       s.Audience,
		AccessTTL:      s.AccessLife,
		RefreshIdle:    s.RefreshIdle,
		SessionLife:    s.SessionLife,
		ReuseWindow:    s.ReuseWindow,
		RecoveryLife:   s.RecoveryLife,
		InvitationLife: s.InvitationLife,
		AuditKeep:      s.TrailKeep,
		LoginNotices:   s.LoginNotices == "on",
		Limits: auth.Limits{
			Off:          s.Limits == "off",
			Free:         s.LimitFree,
			FirstWait:    s.LimitFirstWait,
			LongestWait:  s.LimitLongestWait,
			Most:         s.LimitMost,
			Remember:     s.LimitRemember,
			NetworkBurst: s.LimitNetwork,
			NetworkHour:  s.LimitNetworkHour,
			MailPause:    s.LimitMailPause,
			MailHour:     s.LimitMailHour,
		},
	}
}

func (s *Settings) keyRules() auth.KeySettings {
	return auth.KeySettings{Rotation: s.KeyRotation, JWKSMaxAge: s.JWKSMaxAge, Lifetimes: s.rules().KeyLifetimes()}
}

func (s *Settings) onSQLite() bool { return strings.HasPrefix(s.Database, "sqlite://") }

// checkServing refuses settings that serving can't do with.
func (s *Settings) checkServing() error {
	_, _, err := net.SplitHostPort(s.Listen)
	if err == nil {
		_, err = net.ResolveTCPAddr("tcp", s.Listen)
	}
	if err != nil {
		return &usageError{"--listen", fmt.Errorf("%q is not an address such as 127.0.0.1:8080: %w", s.Listen, err)}
	}
	if s.publicURL == nil && !onLoopback(s.Listen) {
		return &usageError{"--public-url", fmt.Errorf("it is required when listening on %s: where do users reach the server?", s.Listen)}
	}
	if s.onSQLite() {
		return nil
	}
	if s.publicURL == nil {
		return &usageError{"--public-url", errors.New("it is required on PostgreSQL: where do users reach the servers?")}
	}
	if s.MasterKeyFile == "" {
		return &usageError{"--master-key-file", errors.New("it is required on PostgreSQL: make one with `kwai key new` and give it to every replica")}
	}
	return nil
}
