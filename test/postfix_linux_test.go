package test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"kwai/internal/testing/cluster"
	"kwai/internal/testing/mailtest"
	"kwai/internal/testing/need"
)

// postfix is a mail server that passes mail to example.org on to another one. Its
// ports take mail each in its own way.
type postfix struct {
	t          *testing.T
	folder     string
	next       *mailtest.Server // where mail arrives
	submission string           // wants TLS and a login
	wrapped    string           // the same, TLS first
	greylists  string           // refuses a mail that it doesn't know, for a second
	strict     string           // takes senders of example.org only
	single     string           // takes one connection at a time
}

const mainCF = `
compatibility_level = 3.6
queue_directory = FOLDER/queue
data_directory = FOLDER/data
maillog_file = /dev/stdout
myhostname = mail.example.org
mydestination =
mynetworks = 192.0.2.1
relay_domains = example.org
relay_recipient_maps = inline:{ ann@example.org=x, bob@example.org=x }
relay_transport = smtp:[127.0.0.1]:NEXT
disable_dns_lookups = yes
smtpd_peername_lookup = no
inet_protocols = ipv4
smtpd_relay_restrictions = reject_unauth_destination
smtpd_tls_cert_file = FOLDER/cert.pem
smtpd_tls_key_file = FOLDER/key.pem
smtpd_tls_auth_only = yes
smtpd_sasl_path = smtpd
cyrus_sasl_config_path = FOLDER/sasl
`

const masterCF = `
SUBMISSION inet n - n - - smtpd
  -o smtpd_tls_security_level=encrypt
  -o smtpd_sasl_auth_enable=yes
  -o smtpd_relay_restrictions=permit_sasl_authenticated,reject
WRAPPED inet n - n - - smtpd
  -o smtpd_tls_wrappermode=yes
  -o smtpd_sasl_auth_enable=yes
  -o smtpd_relay_restrictions=permit_sasl_authenticated,reject
GREYLISTS inet n - n - - smtpd
  -o { smtpd_recipient_restrictions = check_policy_service inet:GREY }
STRICT inet n - n - - smtpd
  -o { smtpd_sender_restrictions = check_sender_access inline:{ example.org=OK }, reject }
SINGLE inet n - n - - smtpd
  -o smtpd_client_connection_count_limit=1
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
retry unix - - n - - error
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
`

// startPostfix starts one with settings, queue and ports of its own. On the
// submission port users come over the machine's own address: on loopback kwai
// asks for no TLS.
func startPostfix(t *testing.T) *postfix {
	t.Helper()
	need.Root(t, "Postfix drops root's rights")
	for _, program := range []string{"postfix", "postgrey", "saslpasswd2"} {
		need.Program(t, program)
	}
	own := ownAddress(t)
	p := &postfix{t: t, next: mailtest.Serve(t)}
	var err error
	if p.folder, err = os.MkdirTemp("", "kwai-postfix-"); err != nil { // a path that sockets can have
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(p.folder) })
	if err := os.Chmod(p.folder, 0o755); err != nil {
		t.Fatal(err)
	}
	free := func(host string) string {
		address, err := cluster.FreeAddress(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return strings.Replace(address, "127.0.0.1", host, 1)
	}
	const loopback = "127.0.0.1"
	p.submission, p.wrapped = free(own), free(own)
	p.greylists, p.strict, p.single = free(loopback), free(loopback), free(loopback)
	grey := free(loopback)
	_, next, err := net.SplitHostPort(p.next.Addr())
	if err != nil {
		t.Fatal(err)
	}
	fill := strings.NewReplacer("FOLDER", p.folder, "NEXT", next, "SUBMISSION", p.submission, "WRAPPED", p.wrapped,
		"GREYLISTS", p.greylists, "STRICT", p.strict, "SINGLE", p.single, "GREY", grey).Replace
	selfMade(t, p.folder, own)
	for _, name := range []string{"queue", "data", "grey", "sasl"} {
		if err := os.Mkdir(filepath.Join(p.folder, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range map[string]string{
		"main.cf": mainCF, "master.cf": masterCF,
		"sasl/smtpd.conf": "pwcheck_method: auxprop\nauxprop_plugin: sasldb\nmech_list: PLAIN LOGIN\nsasldb_path: FOLDER/users\n",
	} {
		if err := os.WriteFile(filepath.Join(p.folder, name), []byte(fill(text)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	p.run("a secret", "saslpasswd2", "-p", "-c", "-f", filepath.Join(p.folder, "users"), "-u", "mail.example.org", "kwai")
	for _, name := range []string{"users", "data"} {
		chownTo(t, filepath.Join(p.folder, name), "postfix")
	}
	p.run("", "postfix", "-c", p.folder, "check") // makes the queue's folders

	daemon(t, "postgrey", "--inet="+grey, "--delay=1", "--dbdir="+filepath.Join(p.folder, "grey"),
		"--user=root", "--group=root", "--auto-whitelist-clients=0")
	waitListening(t, grey)
	master := strings.TrimSpace(p.run("", "postconf", "-c", p.folder, "-h", "daemon_directory")) + "/master"
	daemon(t, master, "-s", "-c", p.folder)
	for _, address := range []string{p.submission, p.wrapped, p.greylists, p.strict, p.single} {
		waitListening(t, address)
	}
	return p
}

func (p *postfix) run(stdin, program string, args ...string) string {
	p.t.Helper()
	cmd := exec.CommandContext(p.t.Context(), program, args...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	if err != nil {
		p.t.Fatalf("%s %q: %v: %s", program, args, err, out)
	}
	return string(out)
}

func chownTo(t *testing.T, path, name string) {
	t.Helper()
	u, err := user.Lookup(name)
	if err != nil {
		t.Fatal(err)
	}
	uid, err := strconv.Atoi(u.Uid)
	if err == nil {
		err = os.Chown(path, uid, -1)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// ownAddress is one of this machine that isn't on loopback; what goes to it stays
// here.
func ownAddress(t *testing.T) string {
	t.Helper()
	all, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range all {
		if ip, ok := a.(*net.IPNet); ok && ip.IP.To4() != nil && !ip.IP.IsLoopback() {
			return ip.IP.String()
		}
	}
	need.Missing(t, errors.New("this machine has no address beside loopback"))
	return ""
}

// daemon runs a program until the end of the test, or of this process: of that a
// shell learns, since Postfix forgets the signal as it changes its user.
func daemon(t *testing.T, command ...string) {
	t.Helper()
	log := newTranscript()
	cmd := exec.Command("sh", append([]string{"-c", `"$@" & trap "kill $!" TERM; wait; wait`, "sh"}, command...)...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGTERM}
	started, done := make(chan error), make(chan struct{})
	go func() {
		runtime.LockOSThread() // Linux sends the signal when the thread ends
		defer runtime.UnlockOSThread()
		defer close(done)
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // it gets a signal to end
		}
	}()
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		<-done
		if t.Failed() {
			t.Logf("%s: %s", command[0], log)
		}
	})
}

func waitListening(t *testing.T, address string) {
	t.Helper()
	for {
		conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", address)
		if err == nil {
			conn.Close()
			return
		}
		if t.Context().Err() != nil {
			t.Fatal(err)
		}
		runtime.Gosched()
	}
}

// mailTest runs "kwai mail test" with an authority that it knows beside others.
func (s *site) mailTest(authority, address string, flags ...string) (out string, code int) {
	s.tb.Helper()
	cmd := s.kwai.Cmd(s.tb.Context(), append([]string{"mail", "test", address, "--public-url=" + publicURL}, flags...)...)
	if authority != "" {
		cmd.Env = append(cmd.Env, "SSL_CERT_FILE="+authority)
	}
	text, err := cmd.CombinedOutput()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		s.tb.Fatal(err)
	}
	return string(text), cmd.ProcessState.ExitCode()
}

// startMailing starts a server that mails as these flags say.
func startMailing(t *testing.T, authority string, flags ...string) *site {
	t.Helper()
	k := install(t, "")
	command, err := k.Serve(t.Context(), append(append([]string{"--log-level=info", "--limit-mail-pause=0s"}, quick...), flags...)...)
	if err != nil {
		t.Fatal(err)
	}
	if authority != "" {
		command.Env = append(command.Env, "SSL_CERT_FILE="+authority)
	}
	s := startCommand(t, k, command)
	s.user("ann@example.org", good)
	return s
}

// TestPostfix sends mail by a real mail server, in the ways in which people set
// them up.
func TestPostfix(t *testing.T) {
	t.Parallel()
	need.Time(t)
	p := startPostfix(t)
	authority := filepath.Join(p.folder, "cert.pem")
	const login = "smtp://kwai%40mail.example.org:a%20secret@"
	for name, test := range map[string]func(t *testing.T){
		"STARTTLS and a login": func(t *testing.T) {
			t.Parallel()
			s := startMailing(t, authority, "--smtp="+login+p.submission)
			n := len(p.next.Mails())
			out, code := s.mailTest(authority, "bob@example.org", "--smtp="+login+p.submission)
			wantsText(t, "kwai mail test", out, code, 0, "250 2.0.0 Ok: queued as ")
			s.post("recover", "", "email", "ann@example.org").wants(t, 200, "recovery")
			p.waitRecovery(t, s, n)

			for name, c := range map[string]struct{ authority, url, says string }{
				"an unknown authority": {"", login + p.submission, "certificate is not valid for " + ownAddress(t)},
				"a wrong password":     {authority, "smtp://kwai%40mail.example.org:wrong@" + p.submission, "the login: refused with 535 5.7.8"},
				"no login":             {authority, "smtp://" + p.submission, "refused with 554 5.7.1"},
				"TLS first":            {authority, "smtps://" + p.submission, "write smtp://"},
			} {
				out, code := s.mailTest(c.authority, "bob@example.org", "--smtp="+c.url)
				wantsText(t, name, out, code, 1, c.says)
				if strings.Contains(out, "secret") || strings.Contains(out, "wrong") && name == "a wrong password" {
					t.Errorf("%s: the password is shown: %s", name, out)
				}
			}
		},
		"greylisting": func(t *testing.T) {
			t.Parallel()
			metrics, err := cluster.FreeAddress(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			s := startMailing(t, "", "--smtp=smtp://"+p.greylists, "--mail-from=grey@auth.example.org", "--metrics-listen="+metrics)
			out, code := s.mailTest("", "bob@example.org", "--smtp=smtp://"+p.greylists, "--mail-from=grey@auth.example.org")
			wantsText(t, "kwai mail test", out, code, 1, "Greylisted")
			n := len(p.next.Mails())
			s.post("recover", "", "email", "ann@example.org").wants(t, 200, "recovery")
			s.waitLog(1, "an event could not be delivered; it is tried again")
			p.waitRecovery(t, s, n)
			s.waitLog(2, `msg="sent a mail"`) // the notice of the reset, too
			wantsText(t, "the log", s.log.String(), 0, 0, "RCPT TO: refused with 450 4.2.0")
			wantsMetric(t, s, metrics, `kwai_mails_total{outcome="sent"} 2`)
			wantsMetric(t, s, metrics, `kwai_mails_total{outcome="full"} 0`)
			wantsMetric(t, s, metrics, `kwai_mails_total{outcome="refused"} 0`)
		},
		"a policy refuses the sender": func(t *testing.T) {
			t.Parallel()
			metrics, err := cluster.FreeAddress(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			flags := []string{"--smtp=smtp://" + p.strict, "--mail-from=noreply@other.example"}
			s := startMailing(t, "", append(flags, "--metrics-listen="+metrics)...)
			out, code := s.mailTest("", "bob@example.org", flags...)
			wantsText(t, "kwai mail test", out, code, 1, "554 5.7.1", "Sender address rejected")
			n := len(p.next.Mails())
			s.post("recover", "", "email", "ann@example.org").wants(t, 200, "recovery")
			s.waitLog(2, "554 5.7.1")
			wantsText(t, "the log", s.log.String(), 0, 0, "Sender address rejected")
			wantsMetric(t, s, metrics, `kwai_mails_total{outcome="refused"} 0`) // not for good
			wantsText(t, "kwai mail list", s.mustCommand("", "mail", "list"), 0, 0, "Sender address rejected")

			// Put right, the mail goes out: with the same queue, from another sender.
			s.stop()
			again := startMailingAgain(t, s, "--smtp=smtp://"+p.strict, "--mail-from=noreply@example.org")
			p.waitRecovery(t, again, n)
		},
		"too many connections": func(t *testing.T) {
			t.Parallel()
			flags := []string{"--smtp=smtp://" + p.single, "--mail-from=noreply@example.org"}
			s := startMailing(t, "", flags...)
			other := takeConnection(t, p.single)
			defer other.Close()
			n := len(p.next.Mails())
			out, code := s.mailTest("", "bob@example.org", flags...)
			wantsText(t, "kwai mail test", out, code, 1, "the greeting: refused with 421 4.7.0", "too many connections")
			s.post("recover", "", "email", "ann@example.org").wants(t, 200, "recovery")
			s.waitLog(1, "deliveries pause")
			other.Close()
			p.waitRecovery(t, s, n)
		},
		"it relays for nobody else": func(t *testing.T) {
			t.Parallel()
			s := startMailing(t, "", "--smtp=smtp://"+p.strict, "--mail-from=noreply@example.org")
			out, code := s.mailTest("", "carl@elsewhere.example", "--smtp=smtp://"+p.strict, "--mail-from=noreply@example.org")
			wantsText(t, "kwai mail test", out, code, 1, "RCPT TO: refused with 554 5.7.1", "Relay access denied")
			out, code = s.mailTest("", "nobody@example.org", "--smtp=smtp://"+p.strict, "--mail-from=noreply@example.org")
			wantsText(t, "kwai mail test", out, code, 1, "RCPT TO: refused with 550 5.1.1")
			s.user("carl@elsewhere.example", good)
			s.post("recover", "", "email", "carl@elsewhere.example").wants(t, 200, "recovery")
			s.waitLog(2, "Relay access denied") // after seconds: a setting can be put right
		},
		"TLS first and a login": func(t *testing.T) {
			t.Parallel()
			s := startMailing(t, authority, "--smtp="+strings.Replace(login, "smtp:", "smtps:", 1)+p.wrapped)
			n := len(p.next.Mails())
			s.post("recover", "", "email", "ann@example.org").wants(t, 200, "recovery")
			p.waitRecovery(t, s, n)
			out, code := s.mailTest(authority, "bob@example.org", "--smtp="+login+p.wrapped)
			wantsText(t, "kwai mail test without TLS first", out, code, 1, "write smtps://")
		},
	} {
		t.Run(name, test)
	}
}

// takeConnection connects to a mail server until it is greeted, and so counted.
func takeConnection(t *testing.T, address string) net.Conn {
	t.Helper()
	for {
		conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		greeting := make([]byte, 4)
		if _, err := io.ReadFull(conn, greeting); err != nil {
			t.Fatal(err)
		}
		if string(greeting) == "220 " {
			return conn
		}
		conn.Close()
	}
}

// startMailingAgain starts a server on the data of one that has ended.
func startMailingAgain(t *testing.T, s *site, flags ...string) *site {
	t.Helper()
	command, err := s.kwai.Serve(t.Context(), append(append([]string{"--log-level=info"}, quick...), flags...)...)
	if err != nil {
		t.Fatal(err)
	}
	return startCommand(t, s.kwai, command)
}

// waitRecovery waits for a mail to ann beyond the first n that resets her
// password at this site: others come from tests beside.
func (p *postfix) waitRecovery(t *testing.T, s *site, n int) {
	t.Helper()
	for ; ; n++ {
		m := waitMails(t, p.next, n+1)[n]
		if m.To != "ann@example.org" || m.RecoveryID() == "" {
			continue
		}
		if a := s.post("reset", "", "uuid", m.RecoveryID(), "password", "a tatami by the sea"); a.Status == 200 {
			return
		}
	}
}

func wantsText(t *testing.T, what, got string, code, wantCode int, parts ...string) {
	t.Helper()
	if code != wantCode {
		t.Errorf("%s: exit code %d, want %d: %s", what, code, wantCode, got)
	}
	for _, part := range parts {
		if !strings.Contains(got, part) {
			t.Errorf("%s says no %q: %s", what, part, got)
		}
	}
}

// wantsMetric says whether a metric is as wanted.
func wantsMetric(t *testing.T, s *site, address, line string) {
	t.Helper()
	a, err := request(t.Context(), s.via, fmt.Sprintf("http://%s/metrics", address), "", "")
	if err != nil || !strings.Contains(string(a.Body), line+"\n") {
		var mails []string
		for l := range strings.Lines(string(a.Body)) {
			if strings.HasPrefix(l, "kwai_mails") {
				mails = append(mails, l)
			}
		}
		t.Errorf("want %s: %v %q", line, err, mails)
	}
}
