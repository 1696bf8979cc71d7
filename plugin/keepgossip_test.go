package fluid

import (
	"path/filepath"
	"testing"

	"github.com/fluid-sd/fluid/plugin/catalog"
	"github.com/fluid-sd/fluid/plugin/record"
)

// TestRepairReachesTheSnapshot: where the mesh replaces a record without adding
// anything, as it repairs a copy, the file is brought up to date as well, and
// once only.
func TestRepairReachesTheSnapshot(t *testing.T) {
	id := record.OriginID{1}
	// write makes an origin of one instance at the same place in its order.
	write := func(ip string) *catalog.Catalog {
		c := catalog.New()
		ow, _, err := c.Own(1000, id, 1, 1, nil)
		if err != nil {
			t.Fatal(err)
		}
		in := instance(t, "web "+ip)
		rec, err := record.DecodeInstance(in.Value)
		if err != nil {
			t.Fatal(err)
		}
		it, _, err := ow.Register(1000, &rec)
		if err != nil {
			t.Fatal(err)
		}
		ow.Commit(1000, it)
		return c
	}
	path := filepath.Join(t.TempDir(), "last-good")
	e := newEngine(process{GossipNode: "x", Snapshot: path})
	e.mu.Lock()
	defer e.mu.Unlock()
	take := func(ds []catalog.Delta) {
		t.Helper()
		for i := range ds {
			if _, err := e.catalog.Merge(1000, &ds[i]); err != nil {
				t.Fatal(err)
			}
		}
	}
	if _, err := e.catalog.Replace(record.Position{Generation: 1, Index: 1}, func(func(record.Entry) bool) {}); err != nil {
		t.Fatal(err)
	}
	e.rewrite()
	take(write("10.0.0.1").Pull(catalog.Want{Origin: id}, 1<<20))
	e.keepGossip()
	want, ok := e.catalog.Doubt(id)
	if !ok {
		t.Fatal("no doubt")
	}
	take(write("10.0.0.2").Pull(want, 1<<20))
	wrote := e.rewritten
	e.keepGossip()
	if e.rewritten == wrote {
		t.Fatal("the file was left as it is")
	}
	wrote = e.rewritten
	e.keepGossip()
	if e.rewritten != wrote {
		t.Error("written again without need")
	}
	if err := e.file.Close(); err != nil {
		t.Fatal(err)
	}
	e.file = nil
	again := newEngine(process{GossipNode: "x", Snapshot: path})
	defer again.file.Close()
	svc := again.Service("web")
	if svc == nil || len(svc.Instances) != 1 || svc.Instances[0].ID != "10.0.0.2" {
		t.Errorf("after a restart: %+v", svc)
	}
}
