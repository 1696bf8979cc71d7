package store

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fluid-sd/fluid/plugin/record"
)

// The golden files are what a version wrote: a data directory with a snapshot
// and a log after it, a snapshot, and what both hold. Files of a version that
// was released are never written again; FLUID_GOLDEN=v2 makes those of v2.

func TestGoldenStateOpens(t *testing.T) {
	if v := os.Getenv("FLUID_GOLDEN"); v != "" {
		makeGolden(t, filepath.Join("testdata", v))
	}
	versions, err := filepath.Glob("testdata/v*")
	if err != nil || len(versions) == 0 {
		t.Fatal("no golden files", err)
	}
	for _, dir := range versions {
		t.Run(filepath.Base(dir), func(t *testing.T) {
			want, err := os.ReadFile(filepath.Join(dir, "dump.txt"))
			if err != nil {
				t.Fatal(err)
			}
			f, err := os.Open(filepath.Join(dir, "snapshot"))
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			st, err := readSnapshot(f)
			if err != nil {
				t.Fatal(err)
			}
			if got := dump(State{st}); got != string(want) {
				t.Errorf("snapshot holds\n%s\nwant\n%s", got, want)
			}
			cfg := testConfig(t.TempDir())
			cfg.Bootstrap, cfg.Transport = false, isolated
			unpack(t, filepath.Join(dir, "datadir.tar.gz"), cfg.Dir)
			s, err := Open(cfg)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			if got := dump(s.State()); got != string(want) {
				t.Errorf("data directory holds\n%s\nwant\n%s", got, want)
			}
		})
	}
}

// dump writes a state as text, complete.
func dump(st State) string {
	var b strings.Builder
	s := st.s
	fmt.Fprintf(&b, "position %s hash %016x cluster %s seed %x time %d floor %d instances %d bytes %d\n",
		s.pos, s.hash, s.cluster.id, s.cluster.seed, s.now, s.floor, s.instances, s.bytes)
	for e := range st.Entries() {
		fmt.Fprintf(&b, "entry %s %d %x\n", e.Key, e.Index, e.Value)
	}
	for k := range s.tombs.all() {
		index, key := split(k)
		fmt.Fprintf(&b, "tombstone %s %d\n", key, index)
	}
	for k, v := range s.keys.all() {
		fmt.Fprintf(&b, "key %q %d %x %x\n", k, v.time, v.digest, v.reply)
	}
	for k, v := range s.services.all() {
		fmt.Fprintf(&b, "service %s %d %d\n", k, v.index, v.instances)
	}
	for _, v := range s.servers.all() {
		fmt.Fprintf(&b, "server %+v\n", v)
	}
	for m := range st.Members() {
		fmt.Fprintf(&b, "member %+v\n", m)
	}
	if s.staged != nil {
		fmt.Fprintf(&b, "staged %s %x\n", s.staged.id, strings.Join(s.staged.pieces, ""))
	}
	return b.String()
}

func makeGolden(t *testing.T, dir string) {
	if _, err := os.Stat(dir); err == nil {
		t.Fatalf("%s exists", dir)
	}
	cfg := testConfig(t.TempDir())
	s := open(t, cfg)
	ctx := t.Context()
	must := func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	full := instance("full", "10.0.0.9")
	full.ID, full.Node, full.Port, full.Zone, full.Weight, full.Priority = "one", "host1", 80, "z1", 3, 2
	full.Addrs = append(full.Addrs, full.Addrs[0].Next())
	full.Ports = []record.Port{{Name: "dns", Number: 53, Proto: record.UDP}}
	full.Tags, full.Meta = []string{"blue"}, []record.Pair{{Key: "k", Value: "v"}}
	full.TTL, full.Expires = 5e9, 4102444800000
	must(s.Register(ctx, Meta{Principal: "ops", Remote: "192.0.2.1:1", IdempotencyKey: "k1"}, []record.Instance{full, instance("a", "10.0.0.1"), instance("a", "fd00::1")}))
	must(s.Register(ctx, Meta{}, []record.Instance{alias("b", "db.example.org")}))
	must(s.DeregisterInstance(ctx, Meta{}, "a", "10.0.0.1"))
	must(s.PutOverlay(ctx, Meta{}, record.Overlay{ID: "x", Kind: record.OverlayWeight, Service: "full", Instance: "one", Weight: 7, Reason: "test", Expires: 4102444800000}))
	must(nil, s.node().Snapshot().Error())
	must(s.PutService(ctx, Meta{}, record.Service{Name: "eph", Class: record.ClassEphemeral, TTL: 9e9, AnswerLimit: 4}))
	must(s.PutFence(ctx, Meta{}, record.Fence{Kind: record.FenceReap, Origin: record.OriginID{1, 2, 3}, Epoch: 8}))
	must(s.DeleteOverlay(ctx, Meta{}, "x"))
	must(nil, s.PutMembers(ctx, Meta{}, []Member{{ID: "m1", Name: "dns1"}}))
	must(s.step(ctx, time.Second, &command{op: opStageRestore, target: "r", id: "0", values: []string{"piece"}}))
	must(s.Deregister(ctx, Meta{IdempotencyKey: "k2"}, "b"))
	var snap bytes.Buffer
	must(nil, s.State().WriteSnapshot(&snap))
	text := dump(s.State())
	must(nil, s.Close())
	must(nil, os.MkdirAll(dir, 0o750))
	must(nil, os.WriteFile(filepath.Join(dir, "dump.txt"), []byte(text), 0o600))
	must(nil, os.WriteFile(filepath.Join(dir, "snapshot"), snap.Bytes(), 0o600))
	pack(t, cfg.Dir, filepath.Join(dir, "datadir.tar.gz"))
}

func pack(t *testing.T, dir, path string) {
	t.Helper()
	var b bytes.Buffer
	zw := gzip.NewWriter(&b)
	tw := tar.NewWriter(zw)
	if err := tw.AddFS(os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(tw.Close(), zw.Close(), os.WriteFile(path, b.Bytes(), 0o600)); err != nil {
		t.Fatal(err)
	}
}

func unpack(t *testing.T, path, dir string) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	zr, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	for tr := tar.NewReader(zr); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		if !fs.ValidPath(strings.TrimSuffix(h.Name, "/")) {
			t.Fatalf("bad path %q", h.Name)
		}
		to := filepath.Join(dir, h.Name)
		if h.FileInfo().IsDir() {
			err = os.MkdirAll(to, 0o700)
		} else {
			var b []byte
			if b, err = io.ReadAll(tr); err == nil {
				err = errors.Join(os.MkdirAll(filepath.Dir(to), 0o700), os.WriteFile(to, b, 0o600))
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// TestGoldenEntries pins the bytes of commands: a log of an earlier version
// must mean the same.
func TestGoldenEntries(t *testing.T) {
	seven := uint64(7)
	for _, tt := range []struct {
		name string
		c    command
		want string
	}{
		{
			"register",
			command{op: opRegister, meta: Meta{Principal: "p", Remote: "r", IdempotencyKey: "k", IfMatch: &seven}, values: []string{"v1", "v2"}},
			"01" + "0801" + "1008" + "2215" + "0802" + "120170" + "1a0172" + "22016b" + "2808" + "32027631" + "32027632",
		},
		{"deregister an instance", command{op: opDeregisterInstance, target: "s", id: "i"}, "01" + "0801" + "1008" + "2208" + "0803" + "3a0173" + "420169"},
	} {
		e := logEntry{time: 1, maxInstances: 8, commands: []string{string(tt.c.append(nil))}}
		got := hex.EncodeToString(e.append(nil))
		if got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
		d, err := decodeEntry(string(e.append(nil)))
		if err != nil || len(d.commands) != 1 {
			t.Fatal(d, err)
		}
		c, err := decodeCommand(d.commands[0])
		if err != nil || c.op != tt.c.op || c.target != tt.c.target || len(c.values) != len(tt.c.values) {
			t.Errorf("%s: decoded %+v, %v", tt.name, c, err)
		}
	}
}
