package check

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fluid-sd/fluid/plugin/record"
)

// told collects what a runner says.
type told struct {
	mu    sync.Mutex // guards what follows
	lines []string
	start time.Time
}

func (c *told) add(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lines = append(c.lines, fmt.Sprintf("%s ", time.Since(c.start))+fmt.Sprintf(format, args...))
}

func (c *told) want(t *testing.T, want ...string) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	if !slices.Equal(c.lines, want) {
		t.Errorf("got:\n%s\nwant:\n%s", strings.Join(c.lines, "\n"), strings.Join(want, "\n"))
	}
	c.lines = nil
}

// newRunner returns a runner in fake time whose probes say what status returns.
func newRunner(t *testing.T, status func() record.Status) (*Runner, *told) {
	c := &told{start: time.Now()}
	r := New(Config{
		Report: func(k Key, s record.Status, reason string) { c.add("%s %s: %s", k.ID, s, reason) },
		Remove: func(_ context.Context, k Key) { c.add("remove %s", k.ID) },
		Probe: func(context.Context, *Spec) (record.Status, string) {
			s := status()
			return s, "probed " + s.String()
		},
	})
	t.Cleanup(r.Close)
	return r, c
}

func specs(list ...Spec) []Spec {
	for i := range list {
		list[i].Normalize()
	}
	return list
}

// pass lets time pass, and everybody come to rest.
func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

var web = Key{"web", "a"}

func TestHeartbeats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, c := newRunner(t, nil)
		list := specs(Spec{TTL: 10 * time.Second, DeregisterAfter: time.Minute})
		r.Put(web, list, Initial(list))
		pass(9 * time.Second)
		if !r.Heartbeat(web) || r.Heartbeat(Key{"web", "b"}) {
			t.Error("only what has a TTL check takes heartbeats")
		}
		pass(9 * time.Second)
		c.want(t)
		pass(2 * time.Second)
		c.want(t, "19s a critical: no heartbeat within 10s")
		r.Heartbeat(web)
		c.want(t, "20s a passing: heartbeat")
		pass(2 * time.Minute)
		c.want(t, "30s a critical: no heartbeat within 10s", "1m30s remove a")
		r.Put(web, nil, record.Passing)
		if r.Heartbeat(web) {
			t.Error("ended checks take heartbeats")
		}
		pass(time.Hour)
		c.want(t)
	})
}

func TestProbes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var now atomic.Uint32
		set := func(s record.Status) { now.Store(uint32(s)) }
		r, c := newRunner(t, func() record.Status { return record.Status(now.Load()) })
		list := specs(Spec{TCP: "x:1", Interval: time.Second, Successes: 2, Failures: 3, DeregisterAfter: 2500 * time.Millisecond})
		if Initial(list) != record.Critical {
			t.Error("what nobody probed is taken for well")
		}
		r.Put(web, list, Initial(list))
		pass(1500 * time.Millisecond)
		c.want(t, "1s a passing: probed passing")
		r.Put(web, list, record.Critical) // the same go on
		set(record.Critical)
		pass(2 * time.Second)
		set(record.Passing) // two failures were not enough
		pass(time.Second)
		c.want(t)
		set(record.Critical)
		pass(3 * time.Second)
		c.want(t, "7s a critical: probed critical")
		set(record.Passing) // just in time
		pass(2 * time.Second)
		c.want(t, "9s a passing: probed passing")
		set(record.Critical)
		pass(10 * time.Second)
		c.want(t, "12s a critical: probed critical", "14.5s remove a")
	})
}

// Close waits for a removal under way, which is told to end.
func TestCloseWaitsForRemoval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, end := range map[string]func(*Runner){
			"close":   (*Runner).Close,
			"no more": func(r *Runner) { r.Put(web, nil, record.Passing); r.Close() },
		} {
			c := &told{start: time.Now()}
			r := New(Config{
				Report: func(Key, record.Status, string) {},
				Remove: func(ctx context.Context, _ Key) {
					<-ctx.Done()
					<-time.After(time.Second)
					c.add("given up")
				},
			})
			r.Put(web, specs(Spec{TTL: time.Second, DeregisterAfter: time.Second}), record.Passing)
			pass(5 * time.Second)
			end(r)
			t.Log(name)
			c.want(t, "6s given up")
		}
	})
}

// Nothing is reported of checks that were replaced.
func TestReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &told{start: time.Now()}
		busy := make(chan struct{})
		r := New(Config{
			Report: func(_ Key, s record.Status, reason string) { c.add("%s", reason) },
			Probe: func(_ context.Context, s *Spec) (record.Status, string) {
				if s.TCP == "old" {
					<-busy // however long after it is not wanted any more
				}
				return record.Critical, s.TCP
			},
		})
		t.Cleanup(r.Close)
		r.Put(web, specs(Spec{TCP: "old"}), record.Passing)
		synctest.Wait()
		r.Put(web, specs(Spec{TCP: "new"}), record.Passing)
		synctest.Wait()
		close(busy)
		synctest.Wait()
		c.want(t, "0s new")
	})
}

// The worst check counts, and one that hangs counts as failed.
func TestWorst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &told{start: time.Now()}
		r := New(Config{
			Report: func(_ Key, s record.Status, reason string) { c.add("%s: %s", s, reason) },
			Probe: func(ctx context.Context, s *Spec) (record.Status, string) {
				switch s.TCP {
				case "hangs":
					<-ctx.Done()
					return record.Critical, ctx.Err().Error()
				case "panics":
					panic("ouch")
				}
				return record.Warning, "busy"
			},
		})
		t.Cleanup(r.Close)
		r.Put(web, specs(Spec{TCP: "busy"}, Spec{TTL: time.Hour}), record.Passing)
		synctest.Wait()
		c.want(t, "0s warning: busy")
		r.Put(web, specs(Spec{TCP: "busy"}, Spec{TCP: "hangs", Timeout: time.Second}), record.Warning)
		pass(5 * time.Second)
		c.want(t, "1s critical: context deadline exceeded")
		r.Put(web, specs(Spec{TCP: "panics"}), record.Passing)
		synctest.Wait()
		if status, reason, ok := r.Status(web); !ok || status != record.Critical || !strings.Contains(reason, "ouch") {
			t.Errorf("a panic: got %s %s %v", status, reason, ok)
		}
	})
}

func TestValidate(t *testing.T) {
	for _, tc := range []struct {
		name string
		spec Spec
		want string
	}{
		{"none", Spec{}, "checks[0]: has 0 of http"},
		{"two", Spec{TCP: "a:1", TTL: time.Second}, "has 2 of"},
		{"url", Spec{HTTP: "127.0.0.1:80/x"}, "checks[0].http: "},
		{"scheme", Spec{HTTP: "ftp://x/"}, "checks[0].http: "},
		{"tcp", Spec{TCP: "127.0.0.1"}, "checks[0].tcp: "},
		{"grpc", Spec{GRPC: "/svc"}, "checks[0].grpc: "},
		{"ttl", Spec{TTL: time.Millisecond}, "checks[0].ttl: "},
		{"interval", Spec{TCP: "a:1", Interval: time.Millisecond}, "checks[0].interval: "},
		{"timeout", Spec{TCP: "a:1", Interval: time.Second, Timeout: time.Minute}, "checks[0].timeout: "},
		{"deregister", Spec{TCP: "a:1", DeregisterAfter: time.Millisecond}, "checks[0].deregisterAfter: "},
		{"threshold", Spec{TCP: "a:1", Failures: 1000}, "too many probes"},
		{"http", Spec{HTTP: "https://x/health"}, ""},
		{"grpc service", Spec{GRPC: "127.0.0.1:1/svc"}, ""},
		{"short interval", Spec{TCP: "a:1", Interval: 100 * time.Millisecond}, ""},
		{"heartbeat", Spec{TTL: time.Second, DeregisterAfter: time.Second}, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tc.spec.Normalize()
			err := tc.spec.Validate("checks[0]")
			if got := fmt.Sprint(err); tc.want == "" && err != nil || !strings.Contains(got, tc.want) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
}
