package agent

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/fluid-sd/fluid/plugin/catalog"
)

// maxNews is how many changes by gossip are remembered for those who watch.
const maxNews = 4096

// news is one change by gossip.
type news struct {
	version  uint64
	all      bool // anything may have changed
	services []string
}

// remember notes what the version made. It is called with mu held.
func (v *view) remember(ch catalog.Changes) {
	if len(v.recent) >= 2*maxNews {
		v.recent = slices.Delete(v.recent, 0, len(v.recent)-maxNews)
	}
	v.recent = append(v.recent, news{v.version, ch.All, ch.Services})
}

// News implements what api.Config asks for. A version is BOOT-NUMBER.
func (v *view) News(since string) (services []string, now string, ok bool, changed <-chan struct{}) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	now = fmt.Sprintf("%s-%d", v.boot, v.version)
	if since == "" || since == now {
		return nil, now, true, v.gossip
	}
	number, known := strings.CutPrefix(since, v.boot+"-")
	have, err := strconv.ParseUint(number, 10, 64)
	if !known || err != nil || have > v.version || have+uint64(len(v.recent)) < v.version {
		return nil, now, false, closed
	}
	for _, n := range v.recent[len(v.recent)-int(v.version-have):] {
		if n.all {
			return nil, now, false, closed
		}
		services = append(services, n.services...)
	}
	slices.Sort(services)
	return slices.Compact(services), now, true, closed
}
