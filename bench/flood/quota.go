package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// cgroup is a control group of Linux with a CPU quota.
type cgroup struct{ folder string }

// quotaPeriod is in how much time a quota is used up: the kernel's default.
const quotaPeriod = 100 * time.Millisecond

// newCgroup makes a control group that gives its processes so many cores. root
// is where control groups are mounted, in version 2 or 1. The caller removes it.
func newCgroup(root, name string, cores float64) (*cgroup, error) {
	quota, period := int64(cores*float64(quotaPeriod.Microseconds())+0.5), quotaPeriod.Microseconds()
	parent, files := filepath.Join(root, "cpu"), [][2]string{ // the order matters not
		{"cpu.cfs_period_us", fmt.Sprint(period)},
		{"cpu.cfs_quota_us", fmt.Sprint(quota)},
	}
	if _, err := os.Stat(filepath.Join(root, "cgroup.controllers")); err == nil {
		parent, files = root, [][2]string{{"cpu.max", fmt.Sprintf("%d %d", quota, period)}}
	}
	g := &cgroup{filepath.Join(parent, name)}
	if err := os.Mkdir(g.folder, 0o755); err != nil { //nolint:gosec // as control groups are: not secret
		return nil, fmt.Errorf("no control group can be made (this needs Linux, root and a writable %s): %w", root, err)
	}
	for _, file := range files {
		path := filepath.Join(g.folder, file[0])
		// A file that isn't there is none of the kernel's: it must not be made.
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err == nil {
			_, err = f.WriteString(file[1])
			err = errors.Join(err, f.Close())
		}
		if errors.Is(err, fs.ErrNotExist) {
			err = fmt.Errorf("new control groups have no CPU quota here (version 2: is cpu in %s?): %w", filepath.Join(root, "cgroup.subtree_control"), err)
		}
		if err != nil {
			g.remove()
			return nil, err
		}
	}
	return g, nil
}

// wrap makes a program beside the given one that runs it within the group, from
// its first moment on: kwai looks at its quota when it starts.
func (g *cgroup) wrap(program string) (wrapped string, err error) {
	wrapped = program + "-in-cgroup"
	script := fmt.Sprintf("#!/bin/sh\necho $$ >%s && exec %s \"$@\"\n", quote(filepath.Join(g.folder, "cgroup.procs")), quote(program))
	return wrapped, os.WriteFile(wrapped, []byte(script), 0o700) //nolint:gosec // it is run
}

// quote is a text as a word of the shell.
func quote(text string) string { return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'" }

// remove removes the group when its last process has gone: a child of kwai may
// live a moment longer than kwai.
func (g *cgroup) remove() {
	for range 50 {
		if err := os.Remove(g.folder); err == nil || errors.Is(err, fs.ErrNotExist) {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	progress("%s could not be removed: rmdir it when its processes have ended", g.folder)
}
