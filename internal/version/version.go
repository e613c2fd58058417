// Package version tells which build this is.
package version

import "runtime/debug"

// Version is set by the linker for releases: -X quicproquo.dev/internal/version.Version=v1.2.3.
var Version = ""

// String returns the release, or the commit that was built, or "devel".
func String() string {
	if Version != "" {
		return Version
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "devel"
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	return "devel"
}
