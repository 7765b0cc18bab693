package pgcluster

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// programs are PostgreSQL's server programs and the account to run them as.
type programs struct {
	dir     string
	account *account // nil: one's own
}

type account struct{ uid, gid uint32 }

// ErrNoPrograms means that PostgreSQL isn't installed, or not where this package looks.
var ErrNoPrograms = errors.New("no PostgreSQL server programs")

// Available returns nil if this machine can run PostgreSQL, or an error that
// says what is missing, [ErrNoPrograms] most often.
func Available() error {
	_, err := findPrograms()
	return err
}

// Program is the path of another of PostgreSQL's programs, such as pgbench, which
// may be in another folder; [ErrNoPrograms] if it isn't where they are looked for.
func Program(name string) (path string, err error) {
	for _, dir := range programDirs() {
		if filepath.IsAbs(dir) && executable(dir, name) {
			return filepath.Join(dir, name), nil
		}
	}
	return "", fmt.Errorf("%w: %s isn't there", ErrNoPrograms, name)
}

var findPrograms = sync.OnceValues(func() (programs, error) {
	dir, ok := find(programDirs())
	if !ok {
		return programs{}, fmt.Errorf("%w (initdb, postgres) found: install Debian's package postgresql, or put their folder on PATH", ErrNoPrograms)
	}
	p := programs{dir: dir}
	if os.Geteuid() != 0 {
		return p, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		if u, err := user.Lookup(name); err == nil {
			p.account, err = parseAccount(u)
			return p, err
		}
	}
	return programs{}, errors.New("PostgreSQL does not run as root, and there is no user postgres or nobody to run it as")
})

// programDirs are the folders that may hold the programs, the preferred first.
func programDirs() []string {
	dirs := filepath.SplitList(os.Getenv("PATH"))
	installed, _ := filepath.Glob("/usr/lib/postgresql/*/bin") // errs on a bad pattern only
	slices.SortFunc(installed, func(a, b string) int { return cmp.Compare(version(b), version(a)) })
	dirs = append(dirs, installed...)
	if out, err := exec.CommandContext(context.Background(), "pg_config", "--bindir").Output(); err == nil {
		dirs = append(dirs, strings.TrimSpace(string(out)))
	}
	return dirs
}

// version is 15 for /usr/lib/postgresql/15/bin, and 0 if there is no number.
func version(dir string) float64 {
	v, _ := strconv.ParseFloat(filepath.Base(filepath.Dir(dir)), 64)
	return v
}

// find returns the first folder that holds both programs: initdb wants the
// postgres of its own version beside it.
func find(dirs []string) (dir string, ok bool) {
	for _, dir := range dirs {
		if filepath.IsAbs(dir) && executable(dir, "initdb") && executable(dir, "postgres") {
			return dir, true
		}
	}
	return "", false
}

func executable(dir, name string) bool {
	info, err := os.Stat(filepath.Join(dir, name))
	return err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o111 != 0
}

func parseAccount(u *user.User) (*account, error) {
	uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
	gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
	if err := errors.Join(err1, err2); err != nil {
		return nil, fmt.Errorf("ids of user %s: %w", u.Username, err)
	}
	return &account{uid: uint32(uid), gid: uint32(gid)}, nil
}

// own gives a file to the account.
func (p programs) own(path string) error {
	if p.account == nil {
		return nil
	}
	return os.Chown(path, int(p.account.uid), int(p.account.gid))
}

// command prepares a program to run as the account, in folder dir (the current
// one may be closed to the account), untouched by the caller's PG* variables.
func (p programs) command(ctx context.Context, dir, name string, args ...string) *exec.Cmd {
	path := filepath.Join(p.dir, name)
	if !executable(p.dir, name) { // the folder may hold links to some of them only
		if postgres, err := filepath.EvalSymlinks(filepath.Join(p.dir, "postgres")); err == nil {
			path = filepath.Join(filepath.Dir(postgres), name)
		}
	}
	cmd := exec.CommandContext(ctx, path, args...) //nolint:gosec // the developer's own PATH
	cmd.Dir = dir
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "PG") })
	cmd.SysProcAttr = procAttr(p.account)
	return cmd
}
