package feed

import (
	"errors"
	"iter"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/fluid-sd/fluid/plugin/catalog"
	"github.com/fluid-sd/fluid/plugin/feed/feedpb"
	"github.com/fluid-sd/fluid/plugin/record"
)

// stepSink checks what a receiver may never do, whatever a server sends.
type stepSink struct {
	at   record.Position
	hash uint64
	bad  error
}

func (k *stepSink) Hello() Hello { return Hello{Position: k.at, Hash: k.hash} }

func (k *stepSink) Snapshot(pos record.Position, entries iter.Seq[record.Entry], hash uint64) error {
	var sum uint64
	for e := range entries {
		sum += catalog.EntryHash(e)
		k.entry(e, 0, pos.Index)
	}
	if sum != hash || pos.Before(k.at) || pos.IsZero() {
		k.bad = errors.New("a snapshot that is older or not what its hash says")
	}
	k.at, k.hash = pos, hash
	return nil
}

func (k *stepSink) Apply(prev, pos record.Position, entries []record.Entry) error {
	if prev != k.at || !prev.Before(pos) || prev.Generation != pos.Generation {
		k.bad = errors.New("a batch that does not fit")
	}
	for _, e := range entries {
		k.entry(e, prev.Index, pos.Index)
		k.hash += catalog.EntryHash(e)
	}
	k.at = pos
	return nil
}

func (k *stepSink) entry(e record.Entry, from, to uint64) {
	if e.Index <= from || e.Index > to || len(e.Key) < 3 || len(e.Key) > maxKey || e.Deleted && e.Value != "" {
		k.bad = errors.New("an entry that was not checked")
	}
}

func (k *stepSink) Heartbeat(Heartbeat) {}
func (k *stepSink) Relay(frame []byte) error {
	if len(frame) > MaxRelayFrame {
		k.bad = errors.New("a relay frame above the limit")
	}
	return nil
}
func (k *stepSink) State(bool, error) {}

func newReceiver(t testing.TB, sink Sink, at record.Position) *receiver {
	c, err := NewClient(ClientConfig{Socket: "x", MemberID: "m", Relay: true}, sink)
	if err != nil {
		t.Fatal(err)
	}
	return &receiver{Client: c, at: at, send: func(*feedpb.ClientFrame) error { return nil }}
}

func pos(gen, index uint64) *feedpb.Position {
	return &feedpb.Position{Generation: gen, Index: index}
}

func put(key string, index uint64) *feedpb.Entry {
	return &feedpb.Entry{Key: []byte(key), Value: []byte("v"), Index: index}
}

func welcome() *feedpb.ServerFrame {
	return &feedpb.ServerFrame{Frame: &feedpb.ServerFrame_Welcome{Welcome: &feedpb.Welcome{Protocol: 1, HeartbeatMs: 1000}}}
}

func batch(b *feedpb.Batch) *feedpb.ServerFrame {
	return &feedpb.ServerFrame{Frame: &feedpb.ServerFrame_Batch{Batch: b}}
}

func snapshot(s *feedpb.Snapshot) *feedpb.ServerFrame {
	return &feedpb.ServerFrame{Frame: &feedpb.ServerFrame_Snapshot{Snapshot: s}}
}

func relay(r *feedpb.Relay) *feedpb.ServerFrame {
	return &feedpb.ServerFrame{Frame: &feedpb.ServerFrame_Relay{Relay: r}}
}

func beat(h *feedpb.Heartbeat) *feedpb.ServerFrame {
	return &feedpb.ServerFrame{Frame: &feedpb.ServerFrame_Heartbeat{Heartbeat: h}}
}

// TestReceiverRefuses feeds frames to a receiver at 1:10; the last one must
// be refused.
func TestReceiverRefuses(t *testing.T) {
	one := record.Entry{Key: "i/a/1", Value: "v", Index: 11}
	hash := catalog.EntryHash(one)
	type frames []*feedpb.ServerFrame
	tests := []struct {
		name   string
		frames frames
		want   error
	}{
		{"anything before the welcome", frames{beat(&feedpb.Heartbeat{})}, ErrInvalid},
		{"second welcome", frames{welcome(), welcome()}, ErrInvalid},
		{"unknown protocol", frames{{Frame: &feedpb.ServerFrame_Welcome{Welcome: &feedpb.Welcome{Protocol: 9}}}}, ErrProtocol},
		{"refusal", frames{{Frame: &feedpb.ServerFrame_Refused{Refused: &feedpb.Refused{Reason: 99, Message: "new reason"}}}}, ErrBusy},
		{"batch with a gap", frames{welcome(), batch(&feedpb.Batch{Prev: pos(1, 9), Position: pos(1, 12)})}, ErrInvalid},
		{"batch from the future", frames{welcome(), batch(&feedpb.Batch{Prev: pos(1, 11), Position: pos(1, 12)})}, ErrInvalid},
		{"batch that goes back", frames{welcome(), batch(&feedpb.Batch{Prev: pos(1, 10), Position: pos(1, 9)})}, ErrInvalid},
		{"batch into another generation", frames{welcome(), batch(&feedpb.Batch{Prev: pos(1, 10), Position: pos(2, 11)})}, ErrInvalid},
		{"entry older than the batch", frames{welcome(), batch(&feedpb.Batch{Prev: pos(1, 10), Position: pos(1, 12), Entries: []*feedpb.Entry{put("i/a/1", 10)}})}, ErrInvalid},
		{"entry newer than the batch", frames{welcome(), batch(&feedpb.Batch{Prev: pos(1, 10), Position: pos(1, 12), Entries: []*feedpb.Entry{put("i/a/1", 13)}})}, ErrInvalid},
		{"entry without a kind", frames{welcome(), batch(&feedpb.Batch{Prev: pos(1, 10), Position: pos(1, 12), Entries: []*feedpb.Entry{put("abc", 11)}})}, ErrInvalid},
		{"removal with a value", frames{welcome(), batch(&feedpb.Batch{Prev: pos(1, 10), Position: pos(1, 12), Entries: []*feedpb.Entry{{Key: []byte("i/a/1"), Value: []byte("v"), Index: 11, Deleted: true}}})}, ErrInvalid},
		{"batch among the parts of another", frames{
			welcome(), batch(&feedpb.Batch{Prev: pos(1, 10), Position: pos(1, 12), More: true}),
			batch(&feedpb.Batch{Prev: pos(1, 10), Position: pos(1, 13)}),
		}, ErrInvalid},
		{"batch among the parts of a snapshot", frames{
			welcome(), snapshot(&feedpb.Snapshot{Position: pos(1, 12), More: true}),
			batch(&feedpb.Batch{Prev: pos(1, 10), Position: pos(1, 12)}),
		}, ErrInvalid},
		{"older snapshot", frames{welcome(), snapshot(&feedpb.Snapshot{Position: pos(1, 9)})}, ErrInvalid},
		{"older generation", frames{welcome(), snapshot(&feedpb.Snapshot{Position: pos(0, 99)})}, ErrInvalid},
		{"snapshot short of an entry", frames{welcome(), snapshot(&feedpb.Snapshot{Position: pos(1, 12), Count: 1, Hash: hash})}, ErrInvalid},
		{"snapshot with a flipped bit", frames{welcome(), snapshot(&feedpb.Snapshot{
			Position: pos(1, 12), Count: 1, Hash: hash ^ 1, Entries: []*feedpb.Entry{put("i/a/1", 11)},
		})}, ErrInvalid},
		{"removal in a snapshot", frames{welcome(), snapshot(&feedpb.Snapshot{
			Position: pos(1, 12), Count: 1, Entries: []*feedpb.Entry{{Key: []byte("i/a/1"), Index: 11, Deleted: true}},
		})}, ErrInvalid},
		{"heartbeat of another cluster", frames{welcome(), beat(&feedpb.Heartbeat{ClusterId: "c1"}), beat(&feedpb.Heartbeat{ClusterId: "c2"})}, ErrCluster},
		{"heartbeat with another hash", frames{welcome(), beat(&feedpb.Heartbeat{Applied: pos(1, 10), Hash: 7})}, ErrDiverged},
		{"heartbeat with control characters", frames{welcome(), beat(&feedpb.Heartbeat{ClusterId: "\x1b[2J"})}, ErrInvalid},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			at := record.Position{Generation: 1, Index: 10}
			sink := &stepSink{at: at, hash: 99}
			r := newReceiver(t, sink, at)
			for _, f := range tt.frames[:len(tt.frames)-1] {
				if err := r.frame(f); err != nil {
					t.Fatal(err)
				}
			}
			if err := r.frame(tt.frames[len(tt.frames)-1]); !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
			if sink.at != at || sink.bad != nil {
				t.Errorf("the sink was changed: %v, %v", sink.at, sink.bad)
			}
		})
	}
}

func TestReceiverIgnoresFramesOfLaterProtocols(t *testing.T) {
	r := newReceiver(t, &stepSink{}, record.Position{})
	for _, f := range []*feedpb.ServerFrame{{}, welcome(), {}} {
		if err := r.frame(f); err != nil {
			t.Errorf("got %v, want nil", err)
		}
	}
}

// FuzzReceiver feeds a receiver what a broken or hostile server could send:
// each input is a sequence of frames, each with its length in one byte.
func FuzzReceiver(f *testing.F) {
	seed := func(frames ...*feedpb.ServerFrame) {
		var b []byte
		for _, fr := range frames {
			p, err := proto.Marshal(fr)
			if err != nil || len(p) > 255 {
				f.Fatal(err, len(p))
			}
			b = append(append(b, byte(len(p))), p...)
		}
		f.Add(b)
	}
	hash := catalog.EntryHash(record.Entry{Key: "i/a/1", Value: "v", Index: 11})
	seed(welcome(), beat(&feedpb.Heartbeat{ClusterId: "c1", Applied: pos(1, 10), Hash: 7}))
	seed(welcome(), batch(&feedpb.Batch{Prev: pos(1, 10), Position: pos(1, 12), Entries: []*feedpb.Entry{put("i/a/1", 11)}, More: true}),
		batch(&feedpb.Batch{Prev: pos(1, 10), Position: pos(1, 12), Entries: []*feedpb.Entry{put("i/a/2", 12)}}))
	seed(welcome(), snapshot(&feedpb.Snapshot{Position: pos(2, 11), Count: 1, Hash: hash, Entries: []*feedpb.Entry{put("i/a/1", 11)}}),
		batch(&feedpb.Batch{Prev: pos(2, 11), Position: pos(2, 12)}))
	seed(welcome(), relay(&feedpb.Relay{Frame: []byte("a"), More: true}), relay(&feedpb.Relay{Frame: []byte("b")}))
	seed(&feedpb.ServerFrame{Frame: &feedpb.ServerFrame_Refused{Refused: &feedpb.Refused{Reason: 3, Message: "no\n"}}})
	f.Fuzz(func(t *testing.T, b []byte) {
		at := record.Position{Generation: 1, Index: 10}
		sink := &stepSink{at: at, hash: 99}
		r := newReceiver(t, sink, at)
		for len(b) > 0 {
			n := min(int(b[0]), len(b)-1)
			var fr feedpb.ServerFrame
			if proto.Unmarshal(b[1:1+n], &fr) != nil {
				return
			}
			b = b[1+n:]
			before := sink.at
			err := r.frame(&fr)
			if sink.bad != nil {
				t.Fatal(sink.bad)
			}
			if err != nil {
				if sink.at != before {
					t.Fatal("a refused frame changed the sink")
				}
				if s := err.Error(); s != printable(s) {
					t.Fatalf("error with control characters: %q", s)
				}
				return
			}
		}
	})
}

// FuzzHello feeds a server the hellos that a broken or hostile client could
// send.
func FuzzHello(f *testing.F) {
	for _, h := range []*feedpb.Hello{
		{ProtocolMin: 1, ProtocolMax: 1, MemberId: "m", Position: pos(1, 2), Zones: []string{"a."}},
		{MemberId: "\n", Name: "\x1b", Vector: []*feedpb.Watermark{{Origin: make([]byte, 16)}, {Origin: []byte("x")}}},
	} {
		p, err := proto.Marshal(h)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(p)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var h feedpb.Hello
		if proto.Unmarshal(b, &h) != nil {
			return
		}
		if v, err := vector(h.GetVector()); err == nil && len(v) != len(h.GetVector()) {
			t.Fatal("a vector lost an origin")
		}
		err := checkHello(&h)
		if err == nil {
			for _, s := range append(h.GetZones(), h.GetMemberId(), h.GetName(), h.GetVersion(), h.GetClusterId(), h.GetImplementation()) {
				if len(s) > maxText || s != printable(s) {
					t.Fatalf("accepted %q", s)
				}
			}
		}
		if d := duration(h.GetClientTtlMs()); d < 0 || d > maxClientTTL {
			t.Fatalf("client TTL %v", d)
		}
	})
}
