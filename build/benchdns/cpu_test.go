package main

import (
	"math"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"
)

const statLine = "22731 (nsd: (x) 1) S 22726 22731 18019 0 -1 4194304 101 0 0 0 150 75 20 5 20 0 4 0 205005 3133440 394"

func TestParseStat(t *testing.T) {
	got, err := parseStat(statLine)
	if err != nil {
		t.Fatal(err)
	}
	want := procStat{pid: 22731, parent: 22726, cpu: cpuTime{User: 1700 * time.Millisecond, System: 800 * time.Millisecond}}
	if got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestParseStatRefuses(t *testing.T) {
	tests := []struct{ name, line string }{
		{"empty", ""},
		{"no name", "1 S 0 1"},
		{"cut short", statLine[:strings.Index(statLine, " 20 5 20")]},
		{"no pid", "(x) S 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1"},
		{"a time that is none", strings.Replace(statLine, " 150 ", " ? ", 1)},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if got, err := parseStat(test.line); err == nil {
				t.Errorf("got %+v, want an error", got)
			}
		})
	}
}

func TestDescendants(t *testing.T) {
	second := func(n int) cpuTime { return cpuTime{User: time.Duration(n) * time.Second} }
	all := map[int]procStat{
		1:  {1, 0, second(100)},
		10: {10, 1, second(1)},
		11: {11, 10, second(2)},
		12: {12, 11, second(4)},
		13: {13, 1, second(8)},
		20: {20, 99, second(16)}, // its parent ended
	}
	for root, want := range map[int]cpuTime{10: second(7), 11: second(6), 12: second(4), 13: second(8), 1: second(115)} {
		tree, err := descendants(all, root)
		var got cpuTime
		for _, st := range tree {
			got = got.add(st.cpu)
		}
		if err != nil || got != want {
			t.Errorf("%d: got %v, %v, want %v", root, got, err, want)
		}
	}
	if _, err := descendants(all, 99); err == nil {
		t.Error("a process that has ended: got no error")
	}
}

// The kernel's account of this process grows with what it does.
func TestProcessTime(t *testing.T) {
	before, err := processTime(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	x := 1.0
	deadline := time.Now().Add(20 * time.Second)
	for {
		for range 1_000_000 {
			x = math.Sqrt(x + 1)
		}
		after, err := processTime(os.Getpid())
		if err != nil {
			t.Fatal(err)
		}
		if after.sub(before).total() >= 3*clockTick {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("still %v after %v", after, x)
		}
	}
}

func TestResidentSize(t *testing.T) {
	before, err := residentSize(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	const more = 64 << 20
	block := make([]byte, more)
	for i := 0; i < len(block); i += 4096 {
		block[i] = 1
	}
	after, err := residentSize(os.Getpid())
	if err != nil || after < before+more/2 || before <= 0 {
		t.Errorf("%d bytes with %d more: got %d, %v", before, more, after, err)
	}
	runtime.KeepAlive(block)
}

func TestFirstField(t *testing.T) {
	const cpuinfo = "processor\t: 0\nmodel name\t: Some CPU @ 2:5 GHz\nmodel name\t: other\n"
	if got, want := firstField(cpuinfo, "model name"), "Some CPU @ 2:5 GHz"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := firstField(cpuinfo, "model"); got != "" {
		t.Errorf("got %q, want nothing", got)
	}
}
