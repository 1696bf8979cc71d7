package raftnet

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
)

func TestMessages(t *testing.T) {
	long := strings.Repeat("x", maxString)
	for _, p := range []preamble{
		{},
		{Cluster: "c", To: "a", From: "b", Name: "node1"},
		{Cluster: long, To: long, From: long, Name: long},
	} {
		b, err := p.append(nil)
		if err != nil {
			t.Fatal(err)
		}
		r := bytes.NewReader(append(bytes.Clone(b), "Raft's"...))
		if got, err := readPreamble(r); err != nil || got != p {
			t.Errorf("read %+v, %v; want %+v", got, err, p)
		}
		if rest, _ := io.ReadAll(r); string(rest) != "Raft's" {
			t.Errorf("left for Raft: %q", rest)
		}
		for n := range b {
			if _, err := readPreamble(bytes.NewReader(b[:n])); err == nil {
				t.Errorf("the first %d of %d bytes are accepted", n, len(b))
			}
		}
	}
	a := answer{Verdict: otherServer, Cluster: "c", ID: "a"}
	b, err := a.append(nil)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := readAnswer(bytes.NewReader(b)); err != nil || got != a {
		t.Errorf("read %+v, %v; want %+v", got, err, a)
	}
	if _, err := (&preamble{To: long + "x"}).append(nil); err == nil {
		t.Error("a field that is too long is written")
	}
}

func TestReadPreambleRefuses(t *testing.T) {
	tests := map[string]struct {
		in   string
		want error
	}{
		"nothing":        {"", io.EOF},
		"HTTP":           {"GET / HTTP/1.1\r\n\r\n", errPreamble},
		"a Raft RPC":     {"\x00\x8aBatchSize...", errPreamble},
		"newer version":  {magic + "\x02\x00\x00", errPreamble},
		"huge body":      {magic + "\x01\xff\xff" + strings.Repeat("x", 70000), errPreamble},
		"short body":     {magic + "\x01\x00\x04abc", io.ErrUnexpectedEOF},
		"field too long": {magic + "\x01\x00\x02\x05a", errPreamble},
		"no fields":      {magic + "\x01\x00\x00", errPreamble},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			r := &countingReader{r: strings.NewReader(tt.in)}
			if _, err := readPreamble(r); !errors.Is(err, tt.want) {
				t.Errorf("err = %v, want %v", err, tt.want)
			}
			if r.n > headerSize+maxBody {
				t.Errorf("read %d bytes, at most %d", r.n, headerSize+maxBody)
			}
		})
	}
	t.Run("more fields of a newer version", func(t *testing.T) {
		b, err := appendMessage(nil, nil, "c", "a", "b", "n", "new")
		if err != nil {
			t.Fatal(err)
		}
		if p, err := readPreamble(bytes.NewReader(b)); err != nil || p.Name != "n" {
			t.Errorf("read %+v, %v", p, err)
		}
	})
}

func FuzzReadPreamble(f *testing.F) {
	for _, p := range []preamble{{}, {Cluster: "c", To: "a", From: "b", Name: "node1"}} {
		b, err := p.append(nil)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
		f.Add(b[:len(b)-1])
	}
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		r := &countingReader{r: bytes.NewReader(in)}
		p, err := readPreamble(r)
		if r.n > headerSize+maxBody {
			t.Fatalf("read %d bytes", r.n)
		}
		if err != nil {
			return
		}
		b, err := p.append(nil)
		if err != nil {
			t.Fatalf("%+v was read but cannot be written: %v", p, err)
		}
		if again, err := readPreamble(bytes.NewReader(b)); err != nil || again != p {
			t.Fatalf("%+v came back as %+v, %v", p, again, err)
		}
	})
}

func FuzzReadAnswer(f *testing.F) {
	a := answer{Verdict: otherCluster, Cluster: "c", ID: "a"}
	b, err := a.append(nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add(b[:4])
	f.Fuzz(func(t *testing.T, in []byte) {
		a, err := readAnswer(bytes.NewReader(in))
		if err != nil {
			return
		}
		if a.err("127.0.0.1:1", preamble{To: "want"}) == nil && (a.Verdict != accepted || a.ID != "want") {
			t.Fatalf("%+v is taken for a yes of server want", a)
		}
	})
}

// countingReader counts what is taken from r.
type countingReader struct {
	r io.Reader
	n int
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += n
	return n, err
}
