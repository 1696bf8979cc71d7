package fluid

import (
	"fmt"
	"os"
	"slices"
	"strings"
)

// keyFiles are the files that hold the keys of the mesh. They are followed
// while the server runs, so that a rotation needs no reload: the agent beside it
// may share them, and rewrites its own.
type keyFiles struct {
	paths []string
	mark  string // what the files looked like when they were last read and of use
	said  string // what was wrong with them when they were read last
}

// look returns the keys if the files look different than last time.
func (k *keyFiles) look() (keys [][]byte, changed bool, err error) {
	var look strings.Builder
	for _, path := range k.paths {
		info, err := os.Stat(path)
		if err != nil {
			look.WriteString(err.Error())
			continue
		}
		fmt.Fprintln(&look, path, info.ModTime().UnixNano(), info.Size(), info.Mode())
	}
	mark := look.String()
	if mark == k.mark {
		return nil, false, nil
	}
	if keys, err = readKeyFiles(k.paths); err != nil {
		return nil, false, err
	}
	k.mark, k.said = mark, ""
	return keys, true, nil
}

// news reports whether an error says something else than the last one.
func (k *keyFiles) news(err error) bool {
	was := k.said
	k.said = err.Error()
	return k.said != was
}

// followKeys takes on keys from files that changed. A file that cannot be used
// changes nothing.
func (m *member) followKeys() {
	m.keysMu.Lock()
	defer m.keysMu.Unlock()
	keys, changed, err := m.files.look()
	switch {
	case err != nil:
		if m.files.news(err) {
			log.Errorf("gossip_key: %v; the keys stay as they are", err)
		}
	case changed:
		m.turn(keys)
	}
}

// turn makes keys those of the running member. Called with keysMu held.
func (m *member) turn(keys [][]byte) {
	if slices.EqualFunc(m.keys, keys, slices.Equal) {
		return
	}
	if err := m.SetKeys(keys); err != nil {
		log.Errorf("gossip_key: %v", err)
		return
	}
	m.keys = keys
	log.Infof("gossip keys are now %s; the first encrypts", strings.Join(m.Keys(), ", "))
}
