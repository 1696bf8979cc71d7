package feed

import (
	"fmt"
	"strings"
	"testing"

	"github.com/fluid-sd/fluid/plugin/record"
)

// BenchmarkSnapshot measures a full synchronisation of 20,000 instances,
// connecting included.
func BenchmarkSnapshot(b *testing.B) {
	const instances = 20_000
	src := newSource()
	value := strings.Repeat("v", 100)
	src.edit(func(st *memState) {
		for i := range instances {
			key := record.InstanceKey("checkout", fmt.Sprintf("10.%d.%d.%d", i>>16, i>>8&255, i&255))
			st.all[key] = record.Entry{Key: key, Value: value, Index: 1}
		}
	})
	h := newHost(b, src)
	h.start().part = partBytes
	defer h.stop()
	want := src.State().Position()
	for b.Loop() {
		_, stop := h.connect("m1", newSink(src), false)
		for synced := false; !synced; {
			m, changed := h.server.Members()
			if synced = len(m) == 1 && m[0].Connected && m[0].Applied == want; !synced {
				<-changed
			}
		}
		stop()
		for {
			m, changed := h.server.Members()
			if !m[0].Connected {
				break
			}
			<-changed
		}
	}
	b.ReportMetric(instances*float64(b.N)/b.Elapsed().Seconds(), "instances/s")
}
