package record

// Version is Fluid's version, the same in all its binaries. The build sets it
// with -ldflags "-X github.com/fluid-sd/fluid/plugin/record.Version=v1.2.3".
var Version = "dev"
