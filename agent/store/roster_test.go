package store

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/fluid-sd/fluid/plugin/record"
)

func TestRoster(t *testing.T) {
	dir := t.TempDir()
	s := open(t, testConfig(dir))
	ctx := t.Context()
	if err := s.PutMembers(ctx, Meta{}, []Member{{ID: "m2", Name: "dns2"}, {ID: "m1", Name: "dns1"}}); err != nil {
		t.Fatal(err)
	}
	first := s.State().Position()
	if err := s.PutMembers(ctx, Meta{}, []Member{{ID: "m1", Name: "dns1"}}); err != nil {
		t.Fatal(err)
	}
	if got := s.State().Position(); got != first {
		t.Errorf("seeing a member again wrote an entry: %s", got)
	}
	if err := s.PutMembers(ctx, Meta{}, []Member{{ID: "m1", Name: "renamed"}}); err != nil {
		t.Fatal(err)
	}
	if err := s.ForgetMember(ctx, Meta{}, "m3"); !errors.Is(err, ErrNotFound) {
		t.Errorf("forgetting an unknown member: %v", err)
	}
	if err := s.ForgetMember(ctx, Meta{}, "m2"); err != nil {
		t.Fatal(err)
	}
	want := []Member{{ID: "m1", Name: "renamed", Since: first.Index}}
	if got := slices.Collect(s.State().Members()); !slices.Equal(got, want) {
		t.Errorf("roster %+v, want %+v", got, want)
	}
	if s.State().Len() != 0 {
		t.Error("the roster travels")
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, testConfig(dir))
	if got := slices.Collect(s.State().Members()); !slices.Equal(got, want) {
		t.Errorf("after a restart: roster %+v, want %+v", got, want)
	}
}

func TestCommandsWaitForEveryServer(t *testing.T) {
	s := open(t, testConfig(t.TempDir()))
	if err := s.allowed(opLast); err != nil {
		t.Errorf("a command of the first version: %v", err)
	}
	next := op(baseProtocol + 1)
	if err := s.allowed(next); !errors.Is(err, ErrConflict) || !strings.Contains(err.Error(), s.ServerID()) {
		t.Errorf("a command that this server does not know: %v, want ErrConflict naming it", err)
	}
	me := s.self()
	me.Protocol = uint64(next)
	if o, err := s.propose(t.Context(), &command{op: opPutServer, values: []string{string(me.append(nil))}}); err != nil || o.err != nil {
		t.Fatal(err, o.err)
	}
	if err := s.allowed(next); err != nil {
		t.Errorf("after every server advertised it: %v", err)
	}
}

func TestFollowerAnnouncesItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, "n1", "n2", "n3")
		c.settle(3)
		name := "n2"
		c.kill(name)
		c.conf = func(cfg *Config) { cfg.Version = "next" }
		id := c.start(name, false).ServerID()
		c.until("its new version is known everywhere", func() bool {
			for _, s := range c.live() {
				if info, _ := s.fsm.current.Load().servers.get(id); info.Version != "next" {
					return false
				}
			}
			return true
		})
	})
}

func TestStaleReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, "n1", "n2", "n3")
		l := c.settle(3)
		f := c.node("n2")
		if f == l {
			f = c.node("n3")
		}
		if _, err := f.Stale(time.Second); err != nil {
			t.Errorf("follower in contact: %v", err)
		}
		c.isolate(f.cfg.Name, true)
		pass(5 * time.Second)
		if _, err := f.Stale(4 * time.Second); !errors.Is(err, ErrUnavailable) {
			t.Errorf("follower cut off for 5s, max age 4s: %v", err)
		}
		if _, err := f.Stale(time.Minute); err != nil {
			t.Errorf("follower cut off for 5s, max age 1m: %v", err)
		}
		if _, err := l.Stale(0); err != nil {
			t.Errorf("leader: %v", err)
		}
	})
}

func TestAuditLog(t *testing.T) {
	cfg := testConfig(t.TempDir())
	cfg.AuditFile = filepath.Join(t.TempDir(), "audit.log")
	s := open(t, cfg)
	ctx := t.Context()
	who := Meta{Principal: "ops", Remote: "192.0.2.1:5"}
	if _, err := s.Register(ctx, who, []record.Instance{instance("a", "10.0.0.1")}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Deregister(ctx, who, "none"); !errors.Is(err, ErrNotFound) {
		t.Fatal(err)
	}
	if _, err := s.Deregister(ctx, who, "a"); err != nil {
		t.Fatal(err)
	}
	pos := s.State().Position()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, cfg) // what is replayed is not written again
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(cfg.AuditFile)
	if err != nil {
		t.Fatal(err)
	}
	var got []auditLine
	for l := range strings.Lines(string(b)) {
		var a auditLine
		if err := json.Unmarshal([]byte(l), &a); err != nil {
			t.Fatal(err)
		}
		if a.Principal == "ops" {
			got = append(got, a)
		}
	}
	if len(got) != 3 {
		t.Fatalf("%d lines, want 3: %s", len(got), b)
	}
	for i, want := range []auditLine{
		{Command: "register", Targets: []string{"i/a/10.0.0.1"}, Outcome: "changed"},
		{Command: "deregister", Targets: []string{"s/none"}, Outcome: "refused"},
		{Command: "deregister", Targets: []string{"s/a"}, Outcome: "changed"},
	} {
		if g := got[i]; g.Command != want.Command || !slices.Equal(g.Targets, want.Targets) || g.Outcome != want.Outcome || g.Remote != who.Remote {
			t.Errorf("line %d: %+v, want %+v", i, g, want)
		}
	}
	if got[2].Index != pos.Index || got[2].Generation != 1 || got[1].Error == "" {
		t.Errorf("lines %+v, want the last at %s", got, pos)
	}
}

func TestAuditLogRotates(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	a, err := openAudit(path)
	if err != nil {
		t.Fatal(err)
	}
	defer a.close()
	chunk := []byte(strings.Repeat("x", auditSize/2+1))
	for range auditKeep + 3 {
		a.write(chunk)
	}
	files, err := filepath.Glob(path + "*")
	if err != nil || len(files) != auditKeep+1 || a.lost != 0 {
		t.Errorf("%d files, want %d; %d lines lost", len(files), auditKeep+1, a.lost)
	}
}

// TestAuditLineIsJSON compares the lines with what encoding/json makes of them.
func TestAuditLineIsJSON(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.OneOf(rapid.String(), rapid.StringMatching(`[ -~]*`))
		l := auditLine{
			Time: text.Draw(t, "time"), Principal: text.Draw(t, "principal"), Remote: text.Draw(t, "remote"),
			Command: text.Draw(t, "command"), Targets: rapid.SliceOf(text).Draw(t, "targets"),
			Count: rapid.IntRange(0, 3).Draw(t, "count"), Generation: rapid.Uint64().Draw(t, "generation"),
			Index: rapid.Uint64().Draw(t, "index"), Outcome: text.Draw(t, "outcome"), Error: text.Draw(t, "error"),
		}
		want, err := json.Marshal(&l)
		if err != nil {
			t.Fatal(err)
		}
		if got := l.append(nil); !bytes.Equal(got, want) {
			t.Fatalf("got %s, want %s", got, want)
		}
	})
}
