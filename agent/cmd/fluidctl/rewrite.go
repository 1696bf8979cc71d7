package main

import (
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// original are the flags of the first fluidctl, which took one dash.
var original = []string{"app", "ip", "version"}

// rewrite gives the original's flags their second dash where they stand before
// the first subcommand, so that "fluidctl -app checkout -ip 10.0.0.9" still
// registers. The root command has no shorthands a, i and v that could mean
// something else.
func rewrite(root *cobra.Command, args []string) []string {
	out := slices.Clone(args)
	flags := root.Flags()
	flags.AddFlagSet(root.PersistentFlags())
	for i := 0; i < len(out); i++ {
		arg := out[i]
		if arg == "--" || !strings.HasPrefix(arg, "-") || arg == "-" {
			return out
		}
		name, _, hasValue := strings.Cut(strings.TrimLeft(arg, "-"), "=")
		if !strings.HasPrefix(arg, "--") && slices.Contains(original, name) {
			out[i] = "-" + arg
		}
		if !hasValue && takesValue(flags, out[i], name) {
			i++ // the value, whatever it looks like
		}
	}
	return out
}

// takesValue reports whether the next argument belongs to the flag.
func takesValue(flags *pflag.FlagSet, arg, name string) bool {
	f := flags.Lookup(name)
	if !strings.HasPrefix(arg, "--") {
		if len(name) != 1 {
			return false // -ojson
		}
		f = flags.ShorthandLookup(name)
	}
	return f != nil && f.NoOptDefVal == ""
}
