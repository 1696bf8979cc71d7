package feed

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"

	"github.com/fluid-sd/fluid/plugin/feed/feedpb"
)

func TestRefusals(t *testing.T) {
	tests := []struct {
		name  string
		agent func(cfg *ServerConfig)
		sink  func(k *memSink)
		conf  ClientConfig
		want  error
		text  string // part of the error
	}{
		{name: "cluster", sink: func(k *memSink) { k.cluster = "c2" }, want: ErrCluster, text: "cluster c1, the plugin to c2"},
		{name: "implementation", conf: ClientConfig{Implementation: "crdt"}, want: ErrImplementation, text: "GOSSIP_IMPL=inmemory"},
		{name: "user", agent: func(c *ServerConfig) { c.Peers.Unchecked = false }, want: ErrPeer, text: "not known"},
		{name: "text", conf: ClientConfig{Name: "a\nb"}, want: ErrInvalid, text: `name "a?b"`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, src *memSource, sink *memSink, h *host) {
				if tt.agent != nil {
					tt.agent(&h.cfg)
				}
				if tt.sink != nil {
					tt.sink(sink)
				}
				src.put("i/a/1", "x")
				srv := h.start()
				conf := tt.conf
				conf.Dial, conf.MemberID = h.dial, "m1"
				c, err := NewClient(conf, sink)
				if err != nil {
					t.Fatal(err)
				}
				err = c.session(t.Context())
				if !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.text) {
					t.Errorf("got %v, want %v with %q", err, tt.want, tt.text)
				}
				if !sink.position().IsZero() {
					t.Error("a refused client was given state")
				}
				if got := srv.Stats().Refused; got != 1 {
					t.Errorf("refused: got %d, want 1", got)
				}
			})
		})
	}
}

func TestClusterLearnedLaterIsChecked(t *testing.T) {
	bubble(t, func(t *testing.T, src *memSource, sink *memSink, h *host) {
		src.history[0].cluster = ""
		sink.cluster = "c2"
		h.start()
		_, stop := h.connect("m1", sink, false)
		defer stop()
		pass(5 * time.Second)
		sink.cluster = "c2" // a heartbeat without a cluster emptied it
		src.edit(func(st *memState) { st.cluster = "c1" })
		pass(5 * time.Second)
		if !sink.position().IsZero() {
			t.Error("a client of another cluster was given state")
		}
		if last := sink.states[len(sink.states)-1]; !strings.Contains(last, "cluster mismatch") {
			t.Errorf("state: got %q, want a cluster mismatch", last)
		}
	})
}

func TestBusy(t *testing.T) {
	bubble(t, func(t *testing.T, src *memSource, sink *memSink, h *host) {
		src.put("i/a/1", "x")
		h.cfg.MaxClients = 2
		srv := h.start()
		_, stop1 := h.connect("m1", sink, false)
		defer stop1()
		wantSynced(t, src, sink)

		double := newSink(src)
		_, stop2 := h.connect("m1", double, false)
		pass(5 * time.Second)
		if len(double.states) != 1 || !strings.Contains(double.states[0], "connected already") {
			t.Errorf("second client of a member: got %q, want one refusal", double.states)
		}
		stop2()

		second, third := newSink(src), newSink(src)
		_, stop3 := h.connect("m2", second, false)
		pass(time.Second)
		_, stop4 := h.connect("m3", third, false)
		defer stop4()
		pass(5 * time.Second)
		if len(third.states) != 1 || !strings.Contains(third.states[0], "limit") {
			t.Errorf("client above the limit: got %q, want one refusal", third.states)
		}
		stop3()
		pass(2 * maxRetry)
		wantSynced(t, src, third)
		if got := srv.Stats().Sessions; got != 3 {
			t.Errorf("sessions: got %d, want 3", got)
		}
	})
}

// raw opens a session without a client.
func raw(t *testing.T, h *host) (grpc.BidiStreamingClient[feedpb.ClientFrame, feedpb.ServerFrame], func()) {
	t.Helper()
	nc, err := h.dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	cc, err := connection(nc)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	stream, err := feedpb.NewFeedClient(cc).Sync(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return stream, func() { cancel(); _ = cc.Close(); _ = nc.Close() }
}

func TestHelloIsChecked(t *testing.T) {
	tests := []struct {
		name  string
		frame *feedpb.ClientFrame // nil: silence
		want  feedpb.Refused_Reason
	}{
		{"late", nil, feedpb.Refused_REASON_INVALID},
		{"no hello", &feedpb.ClientFrame{Frame: &feedpb.ClientFrame_Ack{Ack: &feedpb.Ack{}}}, feedpb.Refused_REASON_INVALID},
		{"empty", &feedpb.ClientFrame{}, feedpb.Refused_REASON_INVALID},
		{"no member id", helloFrame(&feedpb.Hello{ProtocolMin: 1, ProtocolMax: 1}), feedpb.Refused_REASON_INVALID},
		{"newer protocol", helloFrame(&feedpb.Hello{ProtocolMin: 2, ProtocolMax: 3, MemberId: "m"}), feedpb.Refused_REASON_PROTOCOL},
		{"older protocol", helloFrame(&feedpb.Hello{MemberId: "m"}), feedpb.Refused_REASON_PROTOCOL},
		{"bad origin", helloFrame(&feedpb.Hello{ProtocolMin: 1, ProtocolMax: 1, MemberId: "m", Vector: []*feedpb.Watermark{{Origin: []byte("x")}}}), feedpb.Refused_REASON_INVALID},
		{"zones", helloFrame(&feedpb.Hello{ProtocolMin: 1, ProtocolMax: 1, MemberId: "m", Zones: make([]string, maxZones+1)}), feedpb.Refused_REASON_INVALID},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, _ *memSource, _ *memSink, h *host) {
				h.start()
				stream, done := raw(t, h)
				defer done()
				if tt.frame != nil {
					if err := stream.Send(tt.frame); err != nil {
						t.Fatal(err)
					}
				}
				f, err := stream.Recv()
				if err != nil {
					t.Fatal(err)
				}
				if got := f.GetRefused().GetReason(); got != tt.want {
					t.Errorf("got %v, want %v", f, tt.want)
				}
			})
		})
	}
}

func helloFrame(h *feedpb.Hello) *feedpb.ClientFrame {
	return &feedpb.ClientFrame{Frame: &feedpb.ClientFrame_Hello{Hello: h}}
}

func TestSilentConnectionsAreBounded(t *testing.T) {
	bubble(t, func(t *testing.T, src *memSource, sink *memSink, h *host) {
		src.put("i/a/1", "x")
		h.cfg.MaxClients = 1
		h.start()
		dial := func() net.Conn {
			c, err := h.dial(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			return c
		}
		for range 4 {
			defer func(c net.Conn) { _ = c.Close() }(dial())
		}
		synctest.Wait()
		extra := dial()
		if n, err := io.Copy(io.Discard, extra); n != 0 || err != nil {
			t.Errorf("a connection above the limit: got %d bytes, %v, want it closed", n, err)
		}
		_ = extra.Close()
		// Those that say nothing lose their place.
		_, stop := h.connect("m1", sink, false)
		defer stop()
		pass(10 * time.Second)
		wantSynced(t, src, sink)
	})
}
