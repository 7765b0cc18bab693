package test

import (
	"encoding/json"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	nats "github.com/nats-io/nats-server/v2/server"

	"kwai/internal/testing/need"
)

// The files of deploy/ that no other test uses are held against the programs that
// read them; where that takes a container engine, against what is inside of it.

// runScript runs a script in a folder, where programs of the test come first.
func runScript(t *testing.T, dir string, env []string, script string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "bash", append([]string{"-euo", "pipefail", "-c", script}, args...)...)
	cmd.Dir = dir
	cmd.Env = append(append(os.Environ(), "PATH="+dir+"/stand-ins:"+os.Getenv("PATH")), env...)
	out, err := cmd.Output()
	if err != nil {
		text := ""
		if exit, is := err.(*exec.ExitError); is { //nolint:errorlint // Output wraps nothing
			text = string(exit.Stderr)
		}
		t.Fatalf("%s: %v\n%s%s", script, err, out, text)
	}
	return string(out)
}

func fakeProgram(t *testing.T, dir, name, script string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Join(dir, "stand-ins"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "stand-ins", name), []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
}

// Debian's Caddy takes the file as it is, and gives what a newer one wants the place
// that compose.yaml gives it.
func TestCaddyfile(t *testing.T) {
	t.Parallel()
	need.Time(t)
	need.Program(t, "caddy")
	dir := t.TempDir()
	file := must(filepath.Abs("../deploy/Caddyfile"))
	runScript(t, dir, []string{"HOME=" + dir, "XDG_DATA_HOME=" + dir}, `caddy validate --adapter caddyfile --config "$0"`, file)
	var config struct {
		Apps struct {
			HTTP struct {
				Servers map[string]struct{ Routes []json.RawMessage }
			}
		}
	}
	adapted := runScript(t, dir, []string{"HOME=" + dir}, `caddy adapt --adapter caddyfile --config "$0"`, file)
	if err := json.Unmarshal([]byte(adapted), &config); err != nil || len(config.Apps.HTTP.Servers) != 1 {
		t.Fatalf("%v: %s", err, adapted)
	}
	for _, part := range []string{`"buffer_requests":true`, `"max_buffer_size":65536`, `"keep_alive":{"enabled":false}`, `"uri":"/readyz"`, `"dial":"kwai-3:8080"`} {
		if !strings.Contains(adapted, part) {
			t.Errorf("%s is missing: %s", part, adapted)
		}
	}
	newer := exec.CommandContext(t.Context(), "caddy", "adapt", "--adapter", "caddyfile", "--config", file)
	newer.Env = append(os.Environ(), "HOME="+dir, "KWAI_CADDY_BUFFERS="+composed(t).Services["proxy"].Environment["KWAI_CADDY_BUFFERS"])
	if out, err := newer.CombinedOutput(); err != nil && !strings.Contains(string(out), "unrecognized subdirective request_buffers") {
		t.Errorf("what compose.yaml has in its place: %v\n%s", err, out)
	}
}

type composeService struct {
	Image       string
	Environment map[string]string
	Secrets     []struct{ Source, Target string }
	Grace       string `json:"stop_grace_period"`
	Networks    map[string]struct {
		Address string `json:"ipv4_address"`
	}
	Volumes []struct{ Type, Source, Target string }
	Logging struct{ Options map[string]string }
	Build   struct{ Context, Dockerfile string }
}

type composeProject struct {
	Services map[string]composeService
	Secrets  map[string]struct{ File string }
	Networks map[string]struct {
		IPAM struct {
			Config []struct {
				Subnet string
				Range  string `json:"ip_range"`
			}
		}
	}
}

// composed is compose.yaml as Compose's own library reads it.
func composed(t *testing.T) (p composeProject) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "run", ".", must(filepath.Abs("../deploy/compose.yaml")))
	cmd.Dir = "compose"
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err == nil {
		err = json.Unmarshal(out, &p)
	}
	if err != nil {
		t.Fatalf("deploy/compose.yaml: %v\n%s", err, out)
	}
	return p
}

func TestComposeFile(t *testing.T) {
	t.Parallel()
	need.Time(t)
	need.Program(t, "openssl")
	project := composed(t)
	kwai := project.Services["kwai-1"]

	// The proxy has the address that the replicas trust, which nobody else gets.
	outside := project.Networks["outside"].IPAM.Config[0]
	proxy := netip.MustParseAddr(project.Services["proxy"].Networks["outside"].Address)
	if kwai.Environment["KWAI_TRUSTED_PROXIES"] != proxy.String() || !netip.MustParsePrefix(outside.Subnet).Contains(proxy) || netip.MustParsePrefix(outside.Range).Contains(proxy) {
		t.Errorf("the proxy has %s of %+v, trusted is %s", proxy, outside, kwai.Environment["KWAI_TRUSTED_PROXIES"])
	}
	drain := must(time.ParseDuration(kwai.Environment["KWAI_DRAIN_DELAY"]))
	if grace := must(time.ParseDuration(kwai.Grace)); grace < drain+90*time.Second {
		t.Errorf("it has %v to end, and drains for %v", grace, drain)
	}
	caddyfile := string(readFile(t, "../deploy/Caddyfile"))
	for _, name := range []string{"kwai-1", "kwai-2", "kwai-3"} {
		if _, ok := project.Services[name]; !ok || !strings.Contains(caddyfile, name+":8080") {
			t.Errorf("%s isn't in both files", name)
		}
		if project.Services[name].Logging.Options["max-size"] == "" {
			t.Errorf("the log of %s grows without end", name)
		}
	}
	for _, path := range []string{filepath.Join(kwai.Build.Context, kwai.Build.Dockerfile), project.Services["proxy"].Volumes[0].Source} {
		if _, err := os.Stat(path); err != nil {
			t.Error(err)
		}
	}

	// The commands at its top make the secrets, with which kwai takes the settings.
	dir := t.TempDir()
	built, err := program()
	if err != nil {
		t.Fatal(err)
	}
	fakeProgram(t, dir, "docker", `case "$*" in "run --rm kwai "*) shift 3; exec `+built+` "$@";; "compose "*) exit 0;; *) exit 9;; esac`)
	fakeProgram(t, dir, "chown", `[ "$1 $2" = "-R 65532" ] && shift 2 && exec ls "$@"`)
	var script []string
	for _, m := range regexp.MustCompile(`(?m)^#\t(.*)$`).FindAllStringSubmatch(string(readFile(t, "../deploy/compose.yaml")), -1) {
		script = append(script, m[1])
	}
	if len(script) < 8 {
		t.Fatalf("only %q at its top", script)
	}
	runScript(t, dir, nil, strings.Join(script, "\n"))
	var env []string
	mounted := kwai.Volumes[0] // a folder, so that what is replaced in it arrives
	folder := filepath.Join(dir, "secrets", filepath.Base(mounted.Source))
	if mounted.Target != "/run/secrets" {
		t.Errorf("%s is mounted at %s", mounted.Source, mounted.Target)
	}
	for name, value := range kwai.Environment {
		env = append(env, name+"="+strings.ReplaceAll(value, "/run/secrets/", folder+"/"))
	}
	// A server that gets as far as the database has understood them all.
	secret := func(name string) string {
		return strings.TrimSpace(string(readFile(t, filepath.Join(dir, "secrets", name))))
	}
	if want := "postgres://kwai:" + secret("postgres-password") + "@postgres/kwai?sslmode=disable"; secret("kwai/database") != want {
		t.Errorf("the database is %s, not %s", secret("kwai/database"), want)
	}
	fakeProgram(t, dir, "server", `sed -i s/@postgres/@127.0.0.1:1/ secrets/kwai/database; kwai() { `+built+` "$@"; }; kwai serve 2>&1 || echo "exit code $?"`)
	env = append(env, "KWAI_DATA="+dir+"/data", "KWAI_LISTEN=127.0.0.1:0")
	if said := runScript(t, dir, env, "server"); !strings.Contains(said, "PostgreSQL at 127.0.0.1:1: it can't be reached") || !strings.Contains(said, "exit code 1") {
		t.Errorf("kwai serve: %s", said)
	}
	for name, secret := range project.Secrets {
		info, err := os.Stat(filepath.Join(dir, "secrets", filepath.Base(secret.File)))
		if err != nil || info.Mode().Perm() != 0o600 || info.Size() == 0 {
			t.Errorf("the secret %s: %v, %v", name, info, err)
		}
		if !slices.ContainsFunc([]string{"postgres", "nats"}, func(service string) bool {
			return slices.ContainsFunc(project.Services[service].Secrets, func(s struct{ Source, Target string }) bool { return s.Source == name })
		}) {
			t.Errorf("nobody has the secret %s", name)
		}
	}
	files, err := os.ReadDir(folder)
	if err != nil || len(files) != 4 {
		t.Errorf("kwai's secrets: %v, %v", files, err)
	}
	for _, f := range files {
		if info, err := f.Info(); err != nil || info.Mode().Perm() != 0o600 || info.Size() == 0 {
			t.Errorf("the secret %s: %v, %v", f.Name(), info, err)
		}
	}
	options, err := nats.ProcessConfigFile(filepath.Join(dir, "secrets", "nats.conf"))
	if err != nil || options.Username != "kwai" || options.Password == "" || options.StoreDir != "/data" {
		t.Errorf("nats.conf: %+v, %v", options, err)
	}
}

// The Dockerfile's steps, in a folder instead of an image.
func TestDockerfile(t *testing.T) {
	t.Parallel()
	need.Time(t)
	root := t.TempDir()
	source := filepath.Join(root, "src")
	repository := must(filepath.Abs(".."))
	file := regexp.MustCompile(`\\\n`).ReplaceAllString(string(readFile(t, "../deploy/Dockerfile")), "")
	stage, env, ran := 0, []string{"VERSION=v1.2.3", "REVISION=abc123"}, 0
	there := strings.NewReplacer("/out/", root+"/out/", " /src", " "+source)
	for line := range strings.Lines(file) {
		step, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch step {
		case "", "#", "ARG", "VOLUME", "EXPOSE", "USER":
		case "FROM":
			stage++
			if stage == 1 {
				version := regexp.MustCompile(`(?m)^go (\d+\.\d+)`).FindStringSubmatch(string(readFile(t, "../go.mod")))[1]
				if rest != "golang:"+version+" AS build" {
					t.Errorf("FROM %s, but go.mod has %s", rest, version)
				}
			}
		case "WORKDIR":
			runScript(t, root, nil, there.Replace(`mkdir -p out "$0"`), source)
		case "COPY":
			if stage == 1 {
				files := strings.Fields(rest)
				if rest == ". ." {
					files = []string{"cmd", "internal", "verify", "."} // what is built of it
				}
				for _, name := range files[:len(files)-1] {
					runScript(t, repository, nil, `cp -r "$0" "$1"`, name, source)
				}
				break
			}
			from := regexp.MustCompile(`^--from=build (?:--chown=\d+:\d+ )?(\S+) `).FindStringSubmatch(rest)
			if from == nil {
				t.Errorf("COPY %s", rest)
			} else if _, err := os.Stat(there.Replace(from[1] + "/")); err != nil && strings.HasPrefix(from[1], "/out/") {
				if _, err := os.Stat(there.Replace(from[1])); err != nil {
					t.Error(err)
				}
			}
		case "RUN":
			ran++
			runScript(t, source, env, there.Replace(rest))
		case "ENV":
			env = append(env, strings.Fields(rest)...)
		case "ENTRYPOINT":
			if rest != `["/kwai"]` {
				t.Errorf("ENTRYPOINT %s", rest)
			}
		case "CMD":
			if rest != `["serve"]` {
				t.Errorf("CMD %s", rest)
			}
		default:
			if !strings.HasPrefix(step, "#") {
				t.Errorf("the test doesn't know the step %s", line)
			}
		}
	}
	if stage != 2 || ran != 2 {
		t.Fatalf("%d stages, %d steps were run", stage, ran)
	}
	built := filepath.Join(root, "out", "kwai")
	if out := runScript(t, root, nil, built+` version`); !strings.Contains(out, "v1.2.3") {
		t.Errorf("kwai version: %s", out)
	}
	if out := runScript(t, root, append(env, "KWAI_PUBLIC_URL="+publicURL), built+` config --json`); !strings.Contains(out, "0.0.0.0:8080") || !strings.Contains(out, `"/data"`) {
		t.Errorf("kwai config: %s", out)
	}
	if info, err := os.Stat(filepath.Join(root, "out", "data")); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the folder of the data: %v, %v", info, err)
	}
}
