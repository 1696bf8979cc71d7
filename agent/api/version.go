package api

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/fluid-sd/fluid/plugin/record"
)

// CoreDNSVersion is the version of CoreDNS that this version of Fluid is built
// and tested with. The agent does not contain CoreDNS, so the number is
// repeated here; a test compares it with go.mod.
const CoreDNSVersion = "1.15.0"

// VersionInfo says which versions a binary is made of.
type VersionInfo struct {
	Fluid   string `json:"fluid"`
	CoreDNS string `json:"coredns"` // that the plugin of this version is built into
	Raft    string `json:"raft"`
	Go      string `json:"go"`
}

// Version returns the versions of this binary.
func Version() VersionInfo {
	v := VersionInfo{Fluid: record.Version, CoreDNS: CoreDNSVersion, Go: runtime.Version()}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, dep := range info.Deps {
			if dep.Path == "github.com/hashicorp/raft" {
				v.Raft = dep.Version
			}
		}
	}
	return v
}

// String returns the versions on one line.
func (v VersionInfo) String() string {
	return fmt.Sprintf("%s (CoreDNS %s, raft %s, %s %s/%s)", v.Fluid, v.CoreDNS, v.Raft, v.Go, runtime.GOOS, runtime.GOARCH)
}
