package fluid

import (
	"strings"

	"github.com/coredns/coredns/request"
)

// AutoPath implements autopath.AutoPather (`autopath @fluid`). A client that
// searches the zones of the block asks for a name below the first of them; the
// answer is then that of the first zone to have the name, or of the name as it
// was typed.
//
// The search path is the zone of the question, the block's other zones, and
// the empty string if another plugin could know the name as it was typed;
// without one autopath would turn every NXDOMAIN into SERVFAIL. It is nil where
// there is nothing to search for: at an apex, which autopath would take for a
// host named "@", in reverse zones, for the root, and for _why names, which are
// not to leave the server.
func (f *Fluid) AutoPath(state request.Request) []string {
	name := state.Name()
	z := f.zone(name)
	if z == nil || z.Forward != "" || name == z.Origin || z.Origin == "." || strings.HasPrefix(name, whyPrefix) {
		return nil
	}
	search := []string{z.Origin}
	for _, other := range *f.block.served.Load() {
		if other != z && other.Forward == "" && other.Origin != "." {
			search = append(search, other.Origin)
		}
	}
	if f.Next != nil {
		search = append(search, "")
	}
	return search
}
