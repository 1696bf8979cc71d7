package agent_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fluid-sd/fluid/agent"
	"github.com/fluid-sd/fluid/agent/api"
)

// A change of keys is in the key file, and what is written there counts.
func TestKeyFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "mesh.keys")
	if err := os.WriteFile(path, []byte("# of the staging mesh\n"+oldKey+"\n"), 0o640); err != nil {
		t.Fatal(err)
	}
	loaded, _, err := agent.Load(nil, []string{"GOSSIP_KEY_HEX_FILE=" + path})
	if err != nil || loaded.Gossip.KeyHex != oldKey || loaded.Gossip.KeyFile != path {
		t.Fatalf("loaded %+v, %v", loaded.Gossip, err)
	}
	cfg := testConfig(t)
	cfg.Gossip.Impl, cfg.Gossip.Bind = "crdt", "127.0.0.1:0"
	cfg.Gossip.KeyHex, cfg.Gossip.KeyFile = loaded.Gossip.KeyHex, loaded.Gossip.KeyFile
	a := start(t, cfg)
	c := client(t, a, "")
	leading(t, c)
	if status, text := put(t, a, "GET", "/v1/keys", ""); status != 200 || !strings.Contains(text, `"saved":true`) {
		t.Errorf("at the start: %d %s", status, text)
	}
	keys, err := c.ChangeKeys(t.Context(), api.KeyChange{Action: "add", Key: newKey})
	if err != nil {
		t.Fatal(err)
	}
	want := func(text string) {
		t.Helper()
		b, err := os.ReadFile(path)
		if err != nil || string(b) != text {
			t.Errorf("the file holds %q, %v; want %q", b, err, text)
		}
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o640 {
			t.Errorf("its mode is %v, %v", info.Mode(), err)
		}
	}
	want("# of the staging mesh\n" + oldKey + "\n" + newKey + "\n")
	for _, ch := range []api.KeyChange{{Action: "use", ID: keys[1].ID}, {Action: "remove", ID: keys[0].ID}} {
		if _, err := c.ChangeKeys(t.Context(), ch); err != nil {
			t.Fatal(err)
		}
	}
	want("# of the staging mesh\n" + newKey + "\n")

	if err := os.WriteFile(path, []byte(newKey+"\nnot a key\n"), 0o640); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a file that is not the ring", func() bool {
		_, text := put(t, a, "GET", "/v1/keys", "")
		return strings.Contains(text, `"saved":false`)
	})
	if err := os.WriteFile(path, []byte(oldKey+"\n"+newKey+"\n"), 0o640); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the ring of the file", func() bool {
		now, err := c.Keys(t.Context())
		return err == nil && len(now) == 2 && now[0].ID == keys[0].ID && now[0].Primary
	})
}
