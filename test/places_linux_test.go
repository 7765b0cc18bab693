package test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"kwai/internal/testing/cluster"
	"kwai/internal/testing/mailtest"
	"kwai/internal/testing/need"
	"kwai/internal/testing/pgcluster"
	"kwai/internal/testing/pgtest"
	"kwai/internal/testing/storetest"
)

// A container of the program and its data alone has no folder for temporary
// files: nothing may need one.
func TestNoTemporaryFolder(t *testing.T) {
	t.Parallel()
	need.Root(t, "to give the server a root folder of its own")
	root := t.TempDir()
	within := func(args ...string) []string {
		return append([]string{"--userspec=65532:65532", root, "/kwai"}, args...)
	}
	copyProgram(t, filepath.Join(root, "kwai"))
	data := filepath.Join(root, "data")
	if err := os.Mkdir(data, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(data, 65532, 65532); err != nil {
		t.Fatal(err)
	}
	address, err := cluster.FreeAddress(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	mails := mailtest.Serve(t)
	env := []string{"KWAI_DATA=/data", "KWAI_HASH_MEMORY=64", "KWAI_HASH_TIME=1"}
	s := startCommand(t, cluster.Kwai{}, cluster.Command{
		Program: "chroot", Env: env, Address: address, Ready: "/readyz",
		Args: within("serve", "--listen="+address, "--smtp="+mails.URL()),
	})

	invite := exec.CommandContext(t.Context(), "chroot", within("user", "create", "ann@example.org")...)
	invite.Env = env
	if out, err := invite.CombinedOutput(); err != nil {
		t.Fatalf("kwai user create: %v: %s", err, out)
	}
	mail, err := mails.Wait(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	if a := s.post("reset", "", "uuid", mail[0].RecoveryID(), "password", good); a.Status != http.StatusOK {
		t.Errorf("the first password: %v\n%s", a, s.log)
	}
	for range 300 { // rows enough that a transaction doesn't fit into the least memory
		if a := s.post("login", "", "username", "ann@example.org", "password", good); a.Status != http.StatusOK {
			t.Fatalf("a login: %v\n%s", a, s.log)
		}
	}
	revoke := exec.CommandContext(t.Context(), "chroot", within("user", "revoke", "ann@example.org")...)
	revoke.Env = env
	if out, err := revoke.CombinedOutput(); err != nil {
		t.Errorf("kwai user revoke: %v: %s", err, out)
	}
	backup := exec.CommandContext(t.Context(), "chroot", within("backup", "/data/backup.db")...)
	backup.Env = env
	if out, err := backup.CombinedOutput(); err != nil {
		t.Errorf("kwai backup: %v: %s", err, out)
	}
	if strings.Contains(s.log.String(), "disk I/O error") {
		t.Errorf("the server warned: %s", s.log)
	}
}

// copyProgram copies the program to a path.
func copyProgram(t *testing.T, to string) {
	t.Helper()
	// Of its own: with the race detector the program needs libraries.
	path, err := cluster.Build(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	from, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	f, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := io.Copy(f, from); err != nil {
		t.Fatal(err)
	}
}

// container is a root folder with the program, a writable /data and files mounted
// read-only, for user 65532.
type container struct {
	t    *testing.T
	root string
	env  []string
}

func newContainer(t *testing.T, env ...string) *container {
	t.Helper()
	need.Root(t, "to mount a root folder of its own")
	if out, err := exec.CommandContext(t.Context(), need.Program(t, "unshare"), "--mount", "true").CombinedOutput(); err != nil {
		need.Missing(t, fmt.Errorf("unshare can't be used here: %w %s", err, out))
	}
	c := &container{t, t.TempDir(), append(os.Environ(), append(env, "KWAI_HASH_MEMORY=64", "KWAI_HASH_TIME=1")...)}
	copyProgram(t, filepath.Join(c.root, "kwai"))
	data := filepath.Join(c.root, "data")
	if err := errors.Join(os.Mkdir(data, 0o700), os.Chown(data, 65532, 65532)); err != nil {
		t.Fatal(err)
	}
	return c
}

// secret makes a file of root's and of a group; what has its name is replaced.
func (c *container) secret(path, text string, mode os.FileMode, group int) {
	c.t.Helper()
	path = filepath.Join(c.root, path)
	next := path + "-next"
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(next, []byte(text), 0o600),
		os.Chown(next, 0, group), os.Chmod(next, mode), os.Rename(next, path)); err != nil {
		c.t.Fatal(err)
	}
}

// within are arguments of unshare that run the program there.
func (c *container) within(args ...string) []string {
	const mounts = `cd "$1" && shift &&
		mount --bind . . && cd "$PWD" && mount --bind data data && mount -o remount,bind,ro . &&
		exec chroot --userspec=65532:65532 . /kwai "$@"`
	return append([]string{"--mount", "--propagation=private", "sh", "-c", mounts, "sh", c.root}, args...)
}

func (c *container) command(code int, args ...string) string {
	c.t.Helper()
	cmd := exec.CommandContext(c.t.Context(), "unshare", c.within(args...)...)
	cmd.Env = c.env
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState.ExitCode() != code {
		c.t.Errorf("kwai %v: %v, want exit code %d: %s", args, err, code, out)
	}
	return string(out)
}

// serve starts a server there, which is ready when it answers 200 to that path.
func (c *container) serve(ready string) *site {
	c.t.Helper()
	address, err := cluster.FreeAddress(c.t.Context())
	if err != nil {
		c.t.Fatal(err)
	}
	return startCommand(c.t, cluster.Kwai{}, cluster.Command{
		Program: "unshare", Env: c.env, Address: address, Ready: ready, Args: c.within("serve", "--listen="+address),
	})
}

func newKey(t *testing.T) string {
	t.Helper()
	key, err := install(t, "").Command(t.Context(), "key", "new")
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// A container with a read-only root, a writable /data and secrets mounted
// read-only, with the modes that Swarm (0444) and Kubernetes (0440, of its fsGroup)
// give them: everything goes on, and what everyone can read is warned about.
func TestReadOnlyRootAndSecrets(t *testing.T) {
	t.Parallel()
	need.Time(t)
	c := newContainer(t, "KWAI_DATA=/data", "KWAI_MASTER_KEY_FILE=/secrets/master.key", "KWAI_SMTP=@/secrets/smtp")
	mails, key := mailtest.Serve(t), newKey(t)
	c.secret("secrets/master.key", key, 0o444, 0)
	c.secret("secrets/smtp", mails.URL(), 0o440, 65532)
	c.secret("secrets/roots", mails.URL(), 0o400, 0)
	s := c.serve("/readyz")
	s.waitLog(1, "msg=serving ")
	s.waitLog(1, "everyone on the machine that has this secret's file can read it")
	if n := strings.Count(s.log.String(), "level=WARN"); n != 2 { // and no public URL
		t.Errorf("%d warnings:\n%s", n, s.log)
	}
	c.command(0, "user", "create", "ann@example.org")
	mail := waitMails(t, mails, 1)
	s.post("reset", "", "uuid", mail[0].RecoveryID(), "password", good).wants(t, http.StatusOK, "the first password")
	c.command(0, "key", "list")
	// What takes a file's name in a folder that is mounted reaches the server.
	c.secret("secrets/master.key", key+"# the same one\n", 0o444, 0)
	s.waitLog(1, "took over the changed master key file")
	c.command(0, "backup", "/data/backup.db")
	if said := c.command(2, "backup", "/backup.db"); !strings.Contains(said, "read-only file system") {
		t.Errorf("a backup into the root folder: %s", said)
	}
	s.stop()
	c.command(0, "restore", "/data/backup.db")
	if said := c.command(2, "user", "list", "--smtp=@/secrets/roots"); !strings.Contains(said, "runs as user 65532") {
		t.Errorf("a secret that only root can read: %s", said)
	}
}

// deploy/kubernetes.yaml is what Kubernetes' own types understand, and the program
// serves in a container as it is described there: its settings, its user, and the
// secrets with the modes that it gives them.
func TestKubernetesExample(t *testing.T) {
	t.Parallel()
	need.Time(t)
	var log bytes.Buffer
	read := exec.CommandContext(t.Context(), "go", "run", ".", "../../deploy/kubernetes.yaml")
	read.Dir, read.Stderr = "kubernetes", &log
	out, err := read.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, &log)
	}
	type probe struct{ HTTPGet struct{ Path string } }
	var pod struct {
		Container struct {
			Args            []string
			Env             []struct{ Name, Value string }
			Ports           []struct{ ContainerPort int }
			VolumeMounts    []struct{ MountPath string }
			SecurityContext struct{ ReadOnlyRootFilesystem bool }

			StartupProbe, ReadinessProbe, LivenessProbe probe
		}
		Security struct{ RunAsUser, FSGroup int }
		Grace    int
		Mode     os.FileMode
	}
	if err := json.Unmarshal(out, &pod); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	mails := mailtest.Serve(t)
	env := []string{"KWAI_DATA=/data"} // as the image has it
	settings := make(map[string]string)
	for _, v := range pod.Container.Env {
		env = append(env, v.Name+"="+v.Value)
		settings[v.Name] = v.Value
	}
	c := newContainer(t, env...)
	for name, text := range map[string]string{"master.key": newKey(t), "database": patient(storetest.Postgres(t)), "smtp": mails.URL()} {
		c.secret(filepath.Join(pod.Container.VolumeMounts[0].MountPath, name), text+"\n", pod.Mode, pod.Security.FSGroup)
	}
	// On a port that is free; else as it stands there.
	config := c.command(0, "config")
	for name, value := range settings {
		flag := strings.ToLower(strings.ReplaceAll(strings.TrimPrefix(name, "KWAI_"), "_", "-"))
		if !regexp.MustCompile(`(?m)^` + flag + ` +environment +` + regexp.QuoteMeta(value) + `$`).MatchString(config) {
			t.Errorf("%s is no setting, or not so:\n%s", name, config)
		}
	}
	if !slices.Equal(pod.Container.Args, []string{"serve"}) || pod.Security.RunAsUser != 65532 || !pod.Container.SecurityContext.ReadOnlyRootFilesystem ||
		!strings.HasSuffix(settings["KWAI_LISTEN"], fmt.Sprintf(":%d", pod.Container.Ports[0].ContainerPort)) {
		t.Errorf("it is started otherwise than here: %s", out)
	}
	drain, err := time.ParseDuration(settings["KWAI_DRAIN_DELAY"])
	if err != nil || time.Duration(pod.Grace)*time.Second < drain+100*time.Second { // 20 for requests, 70 for mails, and some
		t.Errorf("it has %d s to end, of which draining takes %v (%v)", pod.Grace, drain, err)
	}
	s := c.serve(pod.Container.ReadinessProbe.HTTPGet.Path)
	for _, p := range []probe{pod.Container.StartupProbe, pod.Container.LivenessProbe} {
		s.get(p.HTTPGet.Path, "").wants(t, http.StatusOK, p.HTTPGet.Path)
	}
	s.waitLog(1, "msg=serving ")
	// The tests' PostgreSQL is in memory.
	if strings.Count(s.log.String(), "level=WARN") != strings.Count(s.log.String(), "PostgreSQL runs with fsync=off") {
		t.Errorf("it warned: %s", s.log)
	}
	c.command(0, "user", "create", "ann@example.org")
	mail := waitMails(t, mails, 1)
	s.post("reset", "", "uuid", mail[0].RecoveryID(), "password", good).wants(t, http.StatusOK, "the first password")
	s.login("ann@example.org")
	s.server.Kill() // draining takes its time
}

// Folders that lack what exFAT, NTFS, SMB and WSL lack: the system calls are
// refused as those refuse them.
func TestPoorFolders(t *testing.T) {
	t.Parallel()
	need.Time(t)
	strace := requireStrace(t)
	for name, tt := range map[string]struct {
		refused func(folders ...string) []string // options of strace
		warning string
	}{
		"no links and no chmod": {func(...string) []string {
			return []string{"--inject=?link,linkat,fchmod,fchmodat,?chmod:error=EPERM"}
		}, ""},
		"no links that anybody has heard of": {func(...string) []string {
			return []string{"--inject=?link,linkat:error=ENOSYS"}
		}, ""},
		"folders can't be synced": {func(folders ...string) []string {
			options := []string{"--inject=fsync:error=EINVAL"}
			for _, folder := range folders {
				options = append(options, "--trace-path="+folder)
			}
			return options
		}, "this folder can't be synced"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			data, elsewhere := t.TempDir(), t.TempDir()
			under := append([]string{"-D", "--follow-forks", "--output=" + os.DevNull, "--trace=?link,linkat,fchmod,fchmodat,?chmod,fsync"}, tt.refused(data, filepath.Join(data, "mail"), elsewhere)...)
			usePoor(t, strace, under, data, elsewhere, tt.warning)
		})
	}
}

// What SQLite can't do without is named, and where it is.
func TestFoldersThatHoldNoDatabase(t *testing.T) {
	t.Parallel()
	need.Time(t)
	strace := requireStrace(t)
	path, err := program()
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct{ file, call, error, advice string }{
		"no locks":         {"kwai.db-serving", "fcntl", "EOPNOTSUPP", "keep the database on a disk of this machine (--data), not on NFS"},
		"nobody locks":     {"kwai.db-serving", "fcntl", "ENOLCK", "if none does, its folder keeps no locks"},
		"no shared memory": {"kwai.db-shm", "mmap", "ENODEV", "keep the database on a disk of this machine (--data), not on NFS"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			data := t.TempDir()
			out, _ := exec.CommandContext(t.Context(), strace, "-D", "--follow-forks", "--output="+os.DevNull,
				"--trace="+tt.call, "--inject="+tt.call+":error="+tt.error, "--trace-path="+filepath.Join(data, tt.file),
				path, "serve", "--data="+data, "--listen=127.0.0.1:0").CombinedOutput()
			if said := string(out); !strings.Contains(said, tt.advice) {
				t.Errorf("it said %s", said)
			}
		})
	}
}

// A real one: exFAT by FUSE.
func TestExFAT(t *testing.T) {
	t.Parallel()
	need.Time(t)
	need.Root(t, "to mount an exFAT file system")
	mkfs, mount, losetup := need.Program(t, "mkfs.exfat"), need.Program(t, "mount.exfat-fuse"), need.Program(t, "losetup")
	image, dir := filepath.Join(t.TempDir(), "image"), t.TempDir()
	if err := errors.Join(os.WriteFile(image, nil, 0o600), os.Truncate(image, 32<<20)); err != nil {
		t.Fatal(err)
	}
	run := func(program string, args ...string) (string, error) {
		out, err := exec.CommandContext(context.WithoutCancel(t.Context()), program, args...).CombinedOutput()
		return strings.TrimSpace(string(out)), err
	}
	if out, err := run(mkfs, image); err != nil {
		t.Fatal(err, out)
	}
	device, err := run(losetup, "--find", "--show", image)
	if err != nil {
		t.Log("not run: this machine has no loop device (TestPoorFolders needs none): ", device)
		return
	}
	t.Cleanup(func() {
		if out, err := run(losetup, "--detach", device); err != nil {
			t.Error(err, out)
		}
	})
	if out, err := run(mount, device, dir); err != nil {
		t.Log("not run: this machine has no FUSE (TestPoorFolders needs none): ", out)
		return
	}
	t.Cleanup(func() {
		for { // a program that another test starts has all of this process's files for a moment
			if err := syscall.Unmount(dir, 0); !errors.Is(err, syscall.EBUSY) {
				if err != nil {
					t.Error(err)
				}
				return
			}
			time.Sleep(time.Millisecond)
		}
	})
	data := filepath.Join(dir, "data")
	usePoor(t, "", nil, data, dir, "others on this machine can read the files in this folder")
}

// usePoor makes use of a data folder that can't do everything, by the program run
// under another one, and warns of it once in each command.
func usePoor(t *testing.T, tracer string, under []string, data, elsewhere, warning string) {
	t.Helper()
	path, err := program()
	if err != nil {
		t.Fatal(err)
	}
	with := func(args ...string) (string, []string) {
		if tracer == "" {
			return path, args
		}
		return tracer, slices.Concat(under, []string{path}, args)
	}
	env := append(os.Environ(), "KWAI_DATA="+data, "KWAI_HASH_MEMORY=64", "KWAI_HASH_TIME=1", "KWAI_LIMITS=off")
	backup := filepath.Join(elsewhere, "backup.db")
	command := func(warnings int, args ...string) {
		t.Helper()
		name, args := with(args...)
		cmd := exec.CommandContext(t.Context(), name, args...)
		cmd.Env, cmd.Stdin = env, strings.NewReader(good)
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := cmd.Run(); err != nil {
			t.Fatalf("kwai %v: %v: %s", args, err, &out)
		}
		if n := strings.Count(out.String(), warning); warning != "" && n != warnings {
			t.Errorf("kwai %v warned %d times: %s", args, n, &out)
		}
	}
	serve := func() *site {
		t.Helper()
		address, err := cluster.FreeAddress(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		name, args := with("serve", "--listen="+address)
		s := startCommand(t, cluster.Kwai{}, cluster.Command{Program: name, Args: args, Env: env, Address: address, Ready: "/readyz"})
		if warning != "" {
			s.waitLog(1, warning)
		}
		return s
	}
	stop := func(s *site) {
		t.Helper()
		s.server.Stop()
		if strings.Contains(s.log.String(), "level=ERROR") {
			t.Errorf("%s", s.log)
		}
	}

	s := serve()
	command(0, "user", "create", "ann@example.org", "--password-stdin")
	s.login("ann@example.org")
	s.post("recover", "", "email", "ann@example.org").wants(t, http.StatusOK, "a recovery")
	s.waitLog(1, "sent a mail")
	command(1, "backup", backup)
	command(0, "key", "rotate")
	stop(s)
	command(1, "restore", backup)
	if files, err := filepath.Glob(filepath.Join(data, "kwai.db.re*")); err != nil || !slices.Equal(files, []string{filepath.Join(data, "kwai.db.replaced")}) {
		t.Errorf("the restore left %v, %v", files, err)
	}
	s = serve()
	s.login("ann@example.org")
	stop(s)
	if pgcluster.Available() == nil {
		command(0, "move", "--to="+patient(pgtest.Database(t)))
	}
}

// What a restore by root makes belongs to whom the folder belongs: the server,
// who must be able to open it.
func TestRestoreByRoot(t *testing.T) {
	t.Parallel()
	need.Root(t, "to restore as root what another user serves")
	s := start(t, install(t, ""))
	s.user("ann@example.org", good)
	backup := filepath.Join(t.TempDir(), "backup.db")
	s.mustCommand("", "backup", backup)
	s.server.Kill() // its log stays
	for name, remove := range map[string]string{"in the place of another": "none", "on a new machine": "kwai.db*"} {
		files, err := filepath.Glob(filepath.Join(s.kwai.Folder, remove))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			if err := os.Remove(file); err != nil {
				t.Fatal(err)
			}
		}
		if out, err := exec.CommandContext(t.Context(), "chown", "-R", "65532:65531", s.kwai.Folder).CombinedOutput(); err != nil {
			t.Fatal(err, out)
		}
		s.mustCommand("", "restore", backup, "--master-key-file="+s.masterKey())
		s.mustCommand("", "user", "list")
		files, err = filepath.Glob(filepath.Join(s.kwai.Folder, "*"))
		if err != nil || len(files) < 3 {
			t.Fatalf("%s: %v, %v", name, files, err)
		}
		for _, file := range files {
			info, err := os.Stat(file)
			if err != nil {
				t.Fatal(err)
			}
			if owner := info.Sys().(*syscall.Stat_t); owner.Uid != 65532 || owner.Gid != 65531 {
				t.Errorf("%s: %s belongs to %d:%d", name, file, owner.Uid, owner.Gid)
			}
		}
	}
}
