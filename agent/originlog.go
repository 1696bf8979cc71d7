package agent

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"

	"github.com/fluid-sd/fluid/plugin/catalog"
	"github.com/fluid-sd/fluid/plugin/record"
)

// The log is frames: length and CRC-32C of the content, 4 bytes each, little
// endian, and a delta of one item. The last frame of a key counts.
var frameTable = crc32.MakeTable(crc32.Castagnoli)

const maxItemFrame = 64 << 10

func appendFrame(b []byte, it catalog.Item) []byte {
	it.Seq = 1 // assigned anew at each start
	d := catalog.Delta{Origin: record.OriginID{1}, Epoch: 1, To: 1, Items: []catalog.Item{it}}
	body := d.Append(nil)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(body)))
	b = binary.LittleEndian.AppendUint32(b, crc32.Checksum(body, frameTable))
	return append(b, body...)
}

// readItems reads the log. A torn last frame is one that nobody was told of;
// anything else that does not add up is an error.
func readItems(path string) (map[record.Key]catalog.Item, error) {
	items := map[record.Key]catalog.Item{}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return items, nil
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	r := bufio.NewReader(f)
	for {
		var head [8]byte
		if _, err := io.ReadFull(r, head[:]); err != nil {
			return items, nil // the end, or a torn frame
		}
		n := binary.LittleEndian.Uint32(head[:])
		if n > maxItemFrame {
			return nil, fmt.Errorf("%s is damaged; remove it and register again", path)
		}
		body := make([]byte, n)
		if _, err := io.ReadFull(r, body); err != nil {
			return items, nil
		}
		d, err := catalog.DecodeDelta(body)
		if err != nil || crc32.Checksum(body, frameTable) != binary.LittleEndian.Uint32(head[4:]) || len(d.Items) != 1 {
			if _, more := r.ReadByte(); more != nil {
				return items, nil // torn
			}
			return nil, fmt.Errorf("%s is damaged; remove it and register again", path)
		}
		if it := d.Items[0]; it.Deleted {
			delete(items, it.Key)
		} else {
			items[it.Key] = it
		}
	}
}
