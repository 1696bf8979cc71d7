package fluid

import (
	"encoding/hex"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/fluid-sd/fluid/plugin/mesh"
)

// Keys are rotated by a reload: add the new one, make it the first, drop the
// old one.
func TestMemberKeys(t *testing.T) {
	const k1, k2 = "000102030405060708090a0b0c0d0e0f", "101112131415161718191a1b1c1d1e1f"
	raw := func(ks ...string) (out [][]byte) {
		for _, k := range ks {
			b, err := hex.DecodeString(k)
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, b)
		}
		return out
	}
	o := newOther(t, func(c *mesh.Config) { c.Keys = raw(k1) })
	o.commit(instance(t, "checkout 10.0.0.1"))
	a := idleAgent(t)
	with := func(keys ...string) string {
		return corefile(o.options("gossip_key "+keyFile(t, 0o600, strings.Join(keys, "\n")+"\n")), "")
	}
	s := serve(t, with(k1), a)
	want := []string{"10.0.0.1"}
	eventually(t, "the first instance", func() bool { return answers(s, "checkout.fluid.internal.", want...) })
	for i, ring := range [][]string{{k1, k2}, {k2, k1}, {k2}} {
		if err := o.SetKeys(raw(ring...)); err != nil {
			t.Fatal(err)
		}
		if err := s.reload(with(ring...)); err != nil {
			t.Fatal(err)
		}
		_, e := held()
		if got, want := strings.Join(e.member.Keys(), " "), strings.Join(o.Keys(), " "); got != want {
			t.Errorf("keys %s, want %s", got, want)
		}
		ip := fmt.Sprintf("10.0.0.%d", i+2)
		o.commit(instance(t, "checkout "+ip))
		want = append(want, ip)
		eventually(t, "an instance under the next ring", func() bool { return answers(s, "checkout.fluid.internal.", want...) })
	}
	if got := fmt.Sprint(o.states("n1")); got != "[alive]" {
		t.Errorf("the other member saw %s, want [alive]", got)
	}
}

// Keys that change in their file count without a reload; a file that cannot be
// used changes nothing.
func TestMemberFollowsKeyFile(t *testing.T) {
	old, fresh := strings.Repeat("01", 32), strings.Repeat("02", 32)
	path := keyFile(t, 0o600, old)
	raw := func(key string) []byte { b, _ := hex.DecodeString(key); return b }
	o := newOther(t, func(c *mesh.Config) { c.Keys = [][]byte{raw(old)} })
	o.commit(instance(t, "checkout 10.0.0.1"))
	s := serve(t, corefile(o.options("gossip_key "+path), ""), idleAgent(t))
	eventually(t, "the instance", func() bool { return answers(s, "checkout.fluid.internal.", "10.0.0.1") })
	_, e := held()
	before := e.member.Keys()
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("nothing of use\n")
	eventually(t, "a look at the file", func() bool {
		e.member.keysMu.Lock()
		defer e.member.keysMu.Unlock()
		return e.member.files.said != ""
	})
	if got := e.member.Keys(); !slices.Equal(got, before) {
		t.Errorf("a file of no use made the keys %v", got)
	}
	write(fresh + "\n" + old + "\n")
	eventually(t, "both keys", func() bool { return len(e.member.Keys()) == 2 })
	if got := e.member.Keys(); got[1] != before[0] {
		t.Errorf("keys %v, want %v second", got, before)
	}
	if err := o.SetKeys([][]byte{raw(fresh)}); err != nil {
		t.Fatal(err)
	}
	o.commit(instance(t, "checkout 10.0.0.2"))
	eventually(t, "news under the new key", func() bool { return answers(s, "checkout.fluid.internal.", "10.0.0.1", "10.0.0.2") })
}

// A file that could not be used is read again, whatever it looks like: who may
// read it does not show in its size and time. It is complained of once.
func TestKeyFileIsTriedAgain(t *testing.T) {
	path := keyFile(t, 0o600, "nothing of use\n")
	k := keyFiles{paths: []string{path}}
	for i := range 3 {
		_, changed, err := k.look()
		if changed || err == nil {
			t.Fatalf("look %d: changed %v, %v", i, changed, err)
		}
		if first := k.news(err); first != (i == 0) {
			t.Errorf("look %d: news %v", i, first)
		}
	}
	if err := os.WriteFile(path, []byte(strings.Repeat("01", 16)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if keys, changed, err := k.look(); len(keys) != 1 || !changed || err != nil {
		t.Errorf("a file of use: %d keys, changed %v, %v", len(keys), changed, err)
	}
	if _, changed, err := k.look(); changed || err != nil {
		t.Errorf("the same file: changed %v, %v", changed, err)
	}
}
