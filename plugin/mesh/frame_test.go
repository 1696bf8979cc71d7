package mesh

import (
	"bytes"
	"slices"
	"testing"

	"github.com/fluid-sd/fluid/plugin/catalog"
	"github.com/fluid-sd/fluid/plugin/record"
)

// FuzzReceive gives frames of any content to an engine that holds something.
func FuzzReceive(f *testing.F) {
	d := catalog.Delta{Origin: record.OriginID{1}, Epoch: 1, To: 2, Items: []catalog.Item{{Key: "i/web/a", Seq: 1, Value: "x"}}}
	h := have{heads: []catalog.Head{{Origin: record.OriginID{2}, Epoch: 1, Watermark: 9}}, mask: []byte{1}}
	f.Add(appendDeltas(nil, framePush, endNot, []*catalog.Delta{&d}))
	f.Add(h.append(nil, frameHave))
	f.Add(h.append(nil, frameHeads))
	f.Add((&digest{}).append(nil))
	f.Add((&fetch{part: 1}).append(nil))
	f.Add((&catalog.Batch{Full: true, Parts: 3}).Append([]byte{frameBatch}))
	f.Add(appendPosition([]byte{frameSurvey}, record.Position{Generation: 1, Index: 5}))
	f.Add(appendReports([]byte{frameReports}, []Report{{ID: "dns", Applied: record.Position{Generation: 1, Index: 5}, TTL: 5e9}}))
	f.Add(catalog.AppendWants([]byte{framePull}, []catalog.Want{{Origin: record.OriginID{1}}}))
	f.Add(append(append([]byte{frameBeacon}, d.Origin[:]...), 7))
	f.Fuzz(func(t *testing.T, frame []byte) {
		c := catalog.New()
		e := newEngine("self", "cluster", 1)
		e.peerUp(0, "peer")
		e.setReports(0, []Report{{ID: "self"}})
		e.beginSurvey(record.Position{Generation: 1, Index: 9}, []string{"peer"})
		for now := range int64(3) {
			e.begin()
			e.receive(now, c, "peer", slices.Clone(frame))
			e.tick(now+100_000, c)
			if out, _ := e.end(); len(out) > 100 {
				t.Errorf("%d frames in answer to one", len(out))
			}
		}
	})
}

// TestFlood lets a peer announce more origins than can exist: what the engine
// remembers of it ends at a bound, and is forgotten when nobody has them.
func TestFlood(t *testing.T) {
	c := catalog.New()
	e := newEngine("self", "", 1)
	e.peerUp(0, "peer")
	var h have
	h.mask = bytes.Repeat([]byte{0xff}, buckets/8)
	for i := range 6000 {
		h.heads = append(h.heads, catalog.Head{Origin: record.OriginID{1, byte(i), byte(i >> 8)}, Epoch: 1, Watermark: 5})
	}
	e.begin()
	e.receive(1, c, "peer", h.append(nil, frameHeads))
	if len(e.pulls) > maxPulls || e.stats.Dropped["pulls"] == 0 {
		t.Errorf("%d pulls remembered, %d dropped", len(e.pulls), e.stats.Dropped["pulls"])
	}
	for now := int64(1); now < 2*pullRetry*(vainPulls+2)*(maxPulls/maxHeads) && len(e.pulls) > 0; now += pullRetry {
		e.begin()
		e.tick(now, c)
	}
	if len(e.pulls) != 0 || len(c.Heads()) != 0 {
		t.Errorf("%d pulls and %d origins remain", len(e.pulls), len(c.Heads()))
	}
}
