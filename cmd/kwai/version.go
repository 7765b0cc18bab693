package main

import (
	"cmp"
	"fmt"
	"runtime"
	"runtime/debug"
)

type versionCmd struct{}

func (versionCmd) Run(c console) error {
	_, err := fmt.Fprintf(c.out, "%s (revision %s, %s)\n", version(), revision(), runtime.Version())
	return err
}

// stampedVersion and stampedRevision are set by the linker where the build can't see
// the repository, as in deploy/Dockerfile.
var stampedVersion, stampedRevision string

// version is the module's version, or else the commit it was built from.
func version() string {
	info, ok := debug.ReadBuildInfo()
	switch {
	case stampedVersion != "":
		return stampedVersion
	case !ok:
		return "unknown"
	case info.Main.Version == "(devel)" && revision() != "unknown":
		return revision()
	}
	return cmp.Or(info.Main.Version, "unknown")
}

// revision is the commit that the program was built from.
func revision() string {
	if stampedRevision != "" {
		return stampedRevision
	}
	info, _ := debug.ReadBuildInfo()
	if info != nil {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				return s.Value
			}
		}
	}
	return "unknown"
}
