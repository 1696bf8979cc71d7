package transport

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

func ids(r *Keyring) (out []KeyID) {
	for _, k := range r.List() {
		out = append(out, k.ID)
	}
	return out
}

func TestKeyringOperations(t *testing.T) {
	k1, k2, k3 := testKey(t, 1), testKey(t, 2), testKey(t, 3)
	for _, tc := range []struct {
		name string
		do   func(*Keyring) error
		want []KeyID
		err  error
	}{
		{"add", func(r *Keyring) error { return r.Add(k3) }, []KeyID{k1.id, k2.id, k3.id}, nil},
		{"add again", func(r *Keyring) error { return r.Add(k2) }, []KeyID{k1.id, k2.id}, nil},
		{"add nothing", func(r *Keyring) error { return r.Add(Key{}) }, []KeyID{k1.id, k2.id}, ErrNoKeys},
		{"use", func(r *Keyring) error { return r.Use(k2.id) }, []KeyID{k2.id, k1.id}, nil},
		{"use the primary", func(r *Keyring) error { return r.Use(k1.id) }, []KeyID{k1.id, k2.id}, nil},
		{"use unknown", func(r *Keyring) error { return r.Use(k3.id) }, []KeyID{k1.id, k2.id}, ErrUnknownKey},
		{"remove", func(r *Keyring) error { return r.Remove(k2.id) }, []KeyID{k1.id}, nil},
		{"remove the primary", func(r *Keyring) error { return r.Remove(k1.id) }, []KeyID{k1.id, k2.id}, ErrPrimaryKey},
		{"remove unknown", func(r *Keyring) error { return r.Remove(k3.id) }, []KeyID{k1.id, k2.id}, ErrUnknownKey},
		{"replace", func(r *Keyring) error { return r.Replace([]Key{k3, k1, k3}) }, []KeyID{k3.id, k1.id}, nil},
		{"replace by nothing", func(r *Keyring) error { return r.Replace(nil) }, []KeyID{k1.id, k2.id}, ErrNoKeys},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := testRing(t, 1, 2)
			changed := r.Changed()
			if err := tc.do(r); !errors.Is(err, tc.err) {
				t.Errorf("error %v, want %v", err, tc.err)
			}
			if got := ids(r); fmt.Sprint(got) != fmt.Sprint(tc.want) {
				t.Errorf("ring %v, want %v", got, tc.want)
			}
			told := false
			select {
			case <-changed:
				told = true
			default:
			}
			if differs := fmt.Sprint(tc.want) != fmt.Sprint([]KeyID{k1.id, k2.id}); told != differs {
				t.Errorf("change told: %v, want %v", told, differs)
			}
		})
	}
}

func TestKeyringFull(t *testing.T) {
	r := testRing(t, 1)
	for n := byte(2); n <= MaxKeys; n++ {
		if err := r.Add(testKey(t, n)); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Add(testKey(t, 99)); !errors.Is(err, ErrRingFull) {
		t.Errorf("error %v, want %v", err, ErrRingFull)
	}
}

func TestKeyringConcurrent(t *testing.T) {
	r := testRing(t, 1, 2, 3)
	s, o := newSealer("l", r), newOpener(newSealer("l", r))
	var wg sync.WaitGroup
	for n := byte(4); n < 8; n++ {
		wg.Go(func() {
			k := testKey(t, n)
			for range 50 {
				// Of two members of the ring one is removed while the other encrypts,
				// so these may fail; what counts is that readers see a whole ring.
				_ = r.Add(k)
				_ = r.Use(k.ID())
				_ = r.List()
				_ = r.Remove(k.ID())
				if len(s.seal(nil, []byte("x"))) == 0 {
					t.Error("empty packet")
				}
			}
		})
	}
	wg.Wait()
	if _, reason := o.open(s.seal(nil, []byte("x"))); reason != ReasonNone {
		t.Errorf("packet dropped: %s", reason)
	}
}

// However keys are printed, logged or marshalled, they stay secret.
func TestKeysStaySecret(t *testing.T) {
	key := testKey(t, 0xAB)
	ring, err := NewKeyring(key)
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{ID: "a", Keyring: ring}
	var out bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%b", "%o", "%c", "%U"} {
		for _, v := range []any{key, &key, ring, []Key{key}, map[string]Key{"k": key}, struct{ K Key }{key}, cfg} {
			fmt.Fprintf(&out, verb+"\n", v)
		}
	}
	for _, h := range []slog.Handler{slog.NewTextHandler(&out, nil), slog.NewJSONHandler(&out, nil)} {
		slog.New(h).Info("x", "key", key, "ptr", &key, "ring", ring, "keys", []Key{key}, "cfg", cfg)
	}
	b, err := json.Marshal(map[string]any{"key": key, "ring": ring})
	if err != nil {
		t.Fatal(err)
	}
	out.Write(b)
	text := strings.ToLower(out.String())
	for _, leak := range []string{"abab", "171 171", "171,171", "10101011 10101011", "253 253", "«", "0xab, 0xab"} {
		if i := strings.Index(text, leak); i >= 0 {
			t.Errorf("output holds %q: …%s…", leak, text[max(0, i-60):min(len(text), i+60)])
		}
	}
	if !strings.Contains(text, key.ID().String()) {
		t.Error("output does not name the key")
	}
}

func TestParseKeys(t *testing.T) {
	k16, k24, k32 := strings.Repeat("01", 16), strings.Repeat("02", 24), strings.Repeat("AB", 32)
	for _, tc := range []struct {
		name, in string
		want     int
		err      string
	}{
		{"one", k32, 1, ""},
		{"list with spaces", k16 + ", " + k24 + " ," + k32, 3, ""},
		{"empty", "", 0, "key 1 of the list"},
		{"short", k16 + ",0102", 0, "key 2 of the list: a key has 2 bytes: use 16, 24 or 32"},
		{"not hexadecimal", k16[:30] + "zz", 0, "key 1 of the list: a key is not hexadecimal"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			keys, err := ParseKeys(tc.in)
			if tc.err == "" {
				if err != nil || len(keys) != tc.want {
					t.Errorf("%d keys, %v, want %d", len(keys), err, tc.want)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tc.err) {
				t.Errorf("error %v, want %q", err, tc.err)
			}
			if err != nil && strings.Contains(err.Error(), k16[:8]) {
				t.Errorf("error tells the key: %v", err)
			}
		})
	}
}

func TestReadKeyFiles(t *testing.T) {
	k1, k2 := testKey(t, 1), testKey(t, 2)
	write := func(t *testing.T, mode os.FileMode, content string) string {
		t.Helper()
		path := filepath.Join(t.TempDir(), "keys")
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for _, tc := range []struct {
		name, content string
		mode          os.FileMode
		want          []KeyID
		err           string
	}{
		{"two keys", "# ring of 2026\n" + k1.Hex() + "\n\n  " + k2.Hex() + "  \n", 0o600, []KeyID{k1.id, k2.id}, ""},
		{"group may read", k1.Hex(), 0o640, []KeyID{k1.id}, ""},
		{"others may read", k1.Hex(), 0o644, nil, "can be read by everybody"},
		{"others may write", k1.Hex(), 0o602, nil, "can be read by everybody"},
		{"bad line", k1.Hex() + "\nnot a key\n", 0o600, nil, ":2: a key is not hexadecimal"},
		{"no key", "# nothing\n", 0o600, nil, "at least one key"},
		{"huge", strings.Repeat("#\n", maxKeyFile), 0o600, nil, "at most"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			keys, err := ReadKeyFiles(write(t, tc.mode, tc.content))
			if tc.err != "" {
				if err == nil || !strings.Contains(err.Error(), tc.err) {
					t.Errorf("error %v, want %q", err, tc.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var got []KeyID
			for _, k := range keys {
				got = append(got, k.ID())
			}
			if fmt.Sprint(got) != fmt.Sprint(tc.want) {
				t.Errorf("keys %v, want %v", got, tc.want)
			}
		})
	}
	if _, err := ReadKeyFiles(filepath.Join(t.TempDir(), "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("error %v, want not found", err)
	}
	if _, err := ReadKeyFiles(t.TempDir()); err == nil {
		t.Error("a directory was read")
	}
}

func TestKeyID(t *testing.T) {
	id := testKey(t, 1).ID()
	got, err := ParseKeyID(id.String())
	if err != nil || got != id {
		t.Errorf("ParseKeyID(%s) = %s, %v", id, got, err)
	}
	for _, bad := range []string{"", "0102", "0102030405", hex.EncodeToString(id[:])[:7] + "x"} {
		if _, err := ParseKeyID(bad); err == nil {
			t.Errorf("ParseKeyID(%q) succeeds", bad)
		}
	}
	if testKey(t, 1).ID() == testKey(t, 2).ID() {
		t.Error("two keys have one id")
	}
}
