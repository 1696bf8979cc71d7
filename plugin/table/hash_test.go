package table

import (
	"bytes"
	"fmt"
	"testing"
)

// Every byte of a name must count, whatever its length.
func TestHashSeesEveryByte(t *testing.T) {
	s := newSeed()
	for n := range 70 {
		name := bytes.Repeat([]byte{'a'}, n)
		seen := map[uint64]int{s.hash(string(name)): -1}
		for i := range name {
			name[i] = 'b'
			h := s.hash(string(name))
			if j, ok := seen[h]; ok {
				t.Fatalf("length %d: changing byte %d and byte %d give one hash", n, i, j)
			}
			seen[h] = i
			name[i] = 'a'
		}
	}
}

func TestHashSpreads(t *testing.T) {
	s := newSeed()
	const buckets, per = 1024, 64
	var low, high [buckets]int
	for i := range buckets * per {
		h := s.hash(fmt.Sprintf("service-%07d", i))
		low[h%buckets]++
		high[h>>54]++
	}
	for i := range buckets {
		if low[i] > 2*per || high[i] > 2*per {
			t.Fatalf("bucket %d holds %d and %d names, want about %d", i, low[i], high[i], per)
		}
	}
}
