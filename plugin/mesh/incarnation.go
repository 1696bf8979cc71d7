package mesh

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Members judge news of a member by its incarnation: only a higher one makes a
// dead member alive. memberlist counts it from 1 in each process, so what the
// others heard last of an earlier process stands above what a new one says,
// until somebody who remembers tells it. So a member starts above all that it
// can have used before: above the clock in seconds, and above what it kept.

// incarnationStep is more than a process adds to its incarnation, beyond the
// seconds that it lives: it rises with each accusation that is refuted.
const incarnationStep = 1024

// incarnationMax leaves a process that starts there enough to add.
const incarnationMax = math.MaxUint32 - 1<<24

// startIncarnation returns where a process begins, and keeps it in a file; with
// an empty path it goes by the clock alone. The incarnation counts whatever the
// error is.
func startIncarnation(path string, now time.Time) (uint32, error) {
	start := uint32(min(max(now.Unix(), 1), incarnationMax))
	if path == "" {
		return start, nil
	}
	b, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return start, fmt.Errorf("incarnation: %w", err)
	default:
		kept, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 32)
		if err != nil {
			return start, errors.Join(fmt.Errorf("incarnation: %s: %w", path, err), keepIncarnation(path, start))
		}
		if kept < incarnationMax { // else it would come to its end
			start = max(start, uint32(kept)+incarnationStep)
		}
	}
	return start, keepIncarnation(path, start)
}

// keepIncarnation replaces the file so that a crash leaves the old or the new.
func keepIncarnation(path string, n uint32) error {
	f, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("incarnation: %w", err)
	}
	_, err = fmt.Fprintln(f, n)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		return fmt.Errorf("incarnation: %w", err)
	}
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return fmt.Errorf("incarnation: %w", err)
	}
	return errors.Join(d.Sync(), d.Close())
}

// accusation is memberlist's message that a member is suspected in an
// incarnation. Its only cure is a higher incarnation, which memberlist gives
// itself and nobody else can give it: a member accuses itself once, at its
// start. See suspect and suspectMsg in memberlist's net.go.
func accusation(id string, incarnation uint32) []byte {
	const suspectMsg = 3
	b := []byte{suspectMsg, 0x83} // a MessagePack map of three
	text := func(s string) {
		b = append(b, 0xd9, byte(len(s))) // ids have at most 64 bytes
		b = append(b, s...)
	}
	text("Incarnation")
	b = binary.BigEndian.AppendUint32(append(b, 0xce), incarnation)
	text("Node")
	text(id)
	text("From")
	text(id)
	return b
}
