package mesh

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestStartIncarnation(t *testing.T) {
	clock := time.Unix(1_800_000_000, 0)
	for _, tc := range []struct {
		name, kept string
		now        time.Time
		want       uint32
		fails      bool
	}{
		{name: "first start", now: clock, want: 1_800_000_000},
		{name: "a second later", kept: "1800000000\n", now: clock.Add(time.Second), want: 1_800_001_024},
		{name: "a day later", kept: "1800000000\n", now: clock.Add(24 * time.Hour), want: 1_800_086_400},
		{name: "the clock went back", kept: "1800000000\n", now: clock.Add(-24 * time.Hour), want: 1_800_001_024},
		{name: "no clock", now: time.Unix(0, 0), want: 1},
		{name: "the count is near its end", kept: "4294967290\n", now: clock, want: 1_800_000_000},
		{name: "a clock far ahead", now: clock.AddDate(200, 0, 0), want: incarnationMax},
		{name: "damaged", kept: "18x", now: clock, want: 1_800_000_000, fails: true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "member")
			if tc.kept != "" {
				if err := os.WriteFile(path, []byte(tc.kept), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			got, err := startIncarnation(path, tc.now)
			if got != tc.want || (err != nil) != tc.fails {
				t.Errorf("%d, %v; want %d", got, err, tc.want)
			}
			again, err := startIncarnation(path, tc.now)
			if err != nil || again < got {
				t.Errorf("the next start: %d, %v; want above %d", again, err, got)
			}
		})
	}
	if got, err := startIncarnation("", clock); got != 1_800_000_000 || err != nil {
		t.Errorf("without a file: %d, %v", got, err)
	}
	if got, err := startIncarnation(filepath.Join(t.TempDir(), "no", "member"), clock); got != 1_800_000_000 || err == nil {
		t.Errorf("in no directory: %d, %v", got, err)
	}
}

func TestAccusationLength(t *testing.T) {
	b := accusation(strings.Repeat("x", 64), 7)
	if want := 2 + (2 + 11) + 5 + (2 + 4) + (2 + 64) + (2 + 4) + (2 + 64); len(b) != want {
		t.Errorf("%d bytes, want %d", len(b), want)
	}
}
