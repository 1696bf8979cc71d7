package mesh

import "testing"

func TestTogether(t *testing.T) {
	a, b := []byte("frame"), []byte("frame")
	for _, tc := range []struct {
		name string
		out  []send
		want int
	}{
		{"one", []send{{body: a}}, 1},
		{"one body", []send{{body: a}, {body: a}, {body: a}}, 3},
		{"equal bytes are not one body", []send{{body: a}, {body: b}}, 1},
		{"another urgency", []send{{body: a}, {body: a, urg: urgentEager}}, 1},
		{"part of a body", []send{{body: a}, {body: a[:2]}}, 1},
		{"empty", []send{{}, {}, {body: a}}, 2},
		{"empty after a frame", []send{{body: a}, {body: a[:0]}}, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := together(tc.out); got != tc.want {
				t.Errorf("together: %d, want %d", got, tc.want)
			}
		})
	}
}

// TestTransmitEmpty sends frames of nothing: none goes out, nothing breaks.
func TestTransmitEmpty(*testing.T) {
	g := &gossip{} // without streams, a frame that went out would panic
	g.transmit([]send{{to: "a"}, {to: "b"}, {to: "c", body: []byte{}}})
}
