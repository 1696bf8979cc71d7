package main

import (
	"strings"
	"testing"
	"time"
)

func TestClocks(t *testing.T) {
	asked := time.Now()
	at := func(name string, ahead, way time.Duration) clock {
		return readClock(name, asked.Add(ahead+way/2).Round(0), asked, asked.Add(way))
	}
	for _, tc := range []struct {
		name   string
		read   []clock
		state  string
		detail string
	}{
		{"one server", []clock{at("a", time.Hour, 0)}, "", ""},
		{"equal", []clock{at("a", 0, time.Millisecond), at("b", 0, time.Millisecond)}, "ok", "2 servers agree"},
		{"all off alike", []clock{at("a", time.Hour, time.Millisecond), at("b", time.Hour, time.Millisecond)}, "ok", ""},
		{"within the bound", []clock{at("a", 0, 0), at("b", maxSkew, 0)}, "ok", ""},
		{"ahead", []clock{at("a", 0, 0), at("b", 0, 0), at("c", 3*time.Second, 0)}, "warning", "that of c is 3s ahead of "},
		{"behind", []clock{at("a", 0, 0), at("b", -3*time.Second, 0)}, "warning", "that of a is 3s ahead of that of b"},
		{"a slow answer proves nothing", []clock{at("a", 0, 0), at("b", 0, 2*time.Second)}, "ok", ""},
		{"a slow answer proves the rest", []clock{at("a", 0, 0), at("b", 3*time.Second, time.Second)}, "warning", "that of b is 2.5s ahead of that of a"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := clocks(tc.read)
			if tc.state == "" {
				if len(got) != 0 {
					t.Errorf("got %+v, want nothing", got)
				}
				return
			}
			if len(got) != 1 || got[0].State != tc.state || !strings.Contains(got[0].Detail, tc.detail) {
				t.Errorf("got %+v, want %s: %s", got, tc.state, tc.detail)
			}
		})
	}
}
