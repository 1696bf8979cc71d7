package transport

import (
	"fmt"
	"log/slog"
	"os"
	"testing"
	"time"
)

func TestDbg(t *testing.T) {
	for r := range 40 {
		fmt.Println("round", r)
		a, b := pair(t, func(c *Config, s *StreamsConfig) {
			c.Logger = slog.New(slog.NewTextHandler(os.Stdout, &slog.HandlerOptions{Level: slog.LevelDebug})).With("me", c.ID)
		})
		start := make(chan struct{})
		for from, to := range map[*member]MemberID{a: "b", b: "a"} {
			go func() {
				<-start
				for i := range 50 {
					from.Send(to, []byte(frameOf(i)), Data)
				}
			}()
		}
		close(start)
		time.Sleep(1500 * time.Millisecond)
		sa, sb := a.Transport.Stats(), b.Transport.Stats()
		fmt.Println(a.total(), b.total(), sa.Streams, sb.Streams, sa.FrameDrops, sb.FrameDrops, sa.Closes, sb.Closes)
		fmt.Printf("%+v\n%+v\n", a.Peers(), b.Peers())
		if sa.Streams != 1 || sb.Streams != 1 {
			t.Fatal()
		}
	}
}
