package main

import (
	"fmt"
	"path/filepath"
	"strings"
)

// introduce prints where everything is, and lines to paste.
func (s *site) introduce() error {
	var b strings.Builder
	line := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "%-12s"+format+"\n", append([]any{name}, args...)...)
	}
	b.WriteString("\n")
	line("balancer", "%s", s.url)
	for i, r := range s.cluster.Replicas {
		line(fmt.Sprint("replica ", i+1), "http://%s  process %d  metrics http://%s/metrics  log %s", r.Address, r.PID(), r.Metrics, s.log(i))
	}
	line("PostgreSQL", "%s", s.cluster.Kwai.Database)
	if s.cluster.NATS != nil {
		line("NATS", "%s", s.cluster.NATS.URL())
	}
	line("mail", "%s", filepath.Join(s.cluster.Kwai.Folder, "mail"))

	paste := func(what, format string, args ...any) { fmt.Fprintf(&b, "\n# "+what+"\n"+format+"\n", args...) }
	api := s.url + "/api/v1/auth"
	login := fmt.Sprintf("-d username=%s -d password=%s %s/login", demoUser, s.password, api)
	fmt.Fprintf(&b, "\nThe demo account is %s with the password %s. Lines to paste into\nanother terminal, in this folder:\n", demoUser, s.password)
	paste("log in, through the balancer", "curl %s", login)
	if s.cluster.NATS != nil {
		paste("watch what happens: then log in, recover, kill", "go run ./examples/events -nats '%s'", s.cluster.NATS.URL())
	}
	paste("see who answers", "tail -f %s | grep --line-buffered -e == -e POST", filepath.Join(s.folder, "replica-*.log"))
	paste("forget the password; the mail is there within seconds", "curl -d email=%s %s/recover\ncat %s", demoUser, api, filepath.Join(s.cluster.Kwai.Folder, "mail", "*.eml"))
	paste("kill a replica, then log in ten times: all are answered by 200", "kill -9 %d\nfor i in $(seq 10); do curl -s -o /dev/null -w '%%{http_code}\\n' %s; done", s.cluster.Replicas[0].PID(), login)
	paste("other commands", "KWAI_DATABASE='%s' %s user list", s.cluster.Kwai.Database, s.cluster.Kwai.Program)
	b.WriteString("\nCtrl-C ends all of it and leaves nothing behind.\n")
	_, err := fmt.Fprintln(s.out, b.String())
	return err
}
