package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/fluid-sd/fluid/agent/store"
)

// Reset wipes the data directory of an agent that does not run. The next start
// begins under a new identity, with no state, nothing that the agent vouches
// for or checks, and the part in consensus that the configuration says. What
// was written down for people, such as the audit log, stays. It returns a
// *ConfigError for a directory that is none of an agent.
func Reset(dir string) error {
	err := store.Reset(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return &ConfigError{"data_dir", dir, "does not hold an agent's data", "give the directory of the agent with --data-dir or RAFT_ID"}
	}
	if err != nil {
		return err
	}
	for _, name := range []string{addressesFile, roleFile, checksFile, itemsFile, originFile, incarnationFile} {
		if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("wipe data directory: %w", err)
		}
	}
	return nil
}
