package lastgood

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"slices"

	"github.com/fluid-sd/fluid/plugin/record"
)

// Head is what a file says besides the state.
type Head struct {
	Member  string // durable id of the server that wrote it
	Cluster string // id of the cluster, "" if not known
	Serial  uint32 // the last serial of the zones
}

// Loader takes the state that a file holds.
type Loader interface {
	// Base takes the whole state, aside: entries may turn out to be
	// incomplete.
	Base(pos record.Position, entries iter.Seq[record.Entry])
	// Commit makes the base count. It returns an error if the content hash of
	// what Base took is another.
	Commit(hash uint64) error
	// Change applies a batch.
	Change(prev, pos record.Position, entries []record.Entry) error
	// Gossip takes a frame that it keeps if it likes. It owns the bytes.
	Gossip(frame []byte)
}

// State is what a file is written from.
type State struct {
	Position record.Position
	Entries  iter.Seq[record.Entry]
	Hash     uint64                  // content hash of Entries
	Gossip   func(func([]byte) bool) // frames for Loader.Gossip; may be nil
}

// File is a file that is being kept up to date.
type File struct {
	path string
	f    *os.File // nil until the first Replace after a failed or absent load
	base int64    // length of the base
	size int64    // length of the file
}

// minJournal is how much may be appended before the file is written anew,
// however small the base is.
const minJournal = 4 << 20

// New returns a File that is not looked at before the first Replace.
func New(path string) *File { return &File{path: path} }

// Open reads a file into the loader and leaves it open for appending. Changes
// that were torn by a crash are cut off. Where there is no file it returns an
// empty File and head, which Replace will create. For a file that cannot be
// used it returns an error, and a File that Replace will write over.
func Open(path string, into Loader) (*File, Head, error) {
	file := New(path)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if errors.Is(err, os.ErrNotExist) {
		return file, Head{}, nil
	}
	if err != nil {
		return file, Head{}, fmt.Errorf("snapshot: %w", err)
	}
	head, err := file.load(f, into)
	if err != nil {
		_ = f.Close()
		return file, head, fmt.Errorf("snapshot %s: %w", path, err)
	}
	file.f = f
	return file, head, nil
}

// counter counts the bytes of whole frames.
type counter struct {
	r io.Reader
	n int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

func (file *File) load(f *os.File, into Loader) (Head, error) {
	in := &counter{r: bufio.NewReaderSize(f, chunk)}
	var buf []byte
	start := make([]byte, len(magic))
	if _, err := io.ReadFull(in, start); err != nil || string(start) != magic {
		return Head{}, fmt.Errorf("%w: not a snapshot of this version", ErrCorrupt)
	}
	kind, payload, err := readFrame(in, &buf)
	if err != nil || kind != frameHead {
		return Head{}, fmt.Errorf("%w: no head", ErrCorrupt)
	}
	r := reader{b: payload}
	head := Head{Member: r.text(), Cluster: r.text(), Serial: uint32(r.uint())}
	pos := r.position()
	if r.bad {
		return Head{}, fmt.Errorf("%w: head", ErrCorrupt)
	}
	if err := loadBase(in, &buf, pos, into); err != nil {
		return head, err
	}
	file.base = in.n
	// The first frame that does not check or does not follow ends the journal:
	// what comes after it was never acknowledged.
	for {
		file.size = in.n
		kind, payload, err := readFrame(in, &buf)
		if err == io.EOF { //nolint:errorlint // readFrame returns it bare
			return head, seekEnd(f, file.size)
		}
		r := reader{b: payload}
		switch {
		case err != nil:
		case kind == frameSerial:
			head.Serial = uint32(r.uint())
			continue
		case kind == frameGossip:
			into.Gossip(slices.Clone(payload))
			continue
		case kind == frameChange:
			prev, pos, entries := r.position(), r.position(), r.entries()
			if !r.bad && into.Change(prev, pos, entries) == nil {
				continue
			}
		default: // of a newer version
			continue
		}
		if err := f.Truncate(file.size); err != nil {
			return head, err
		}
		return head, seekEnd(f, file.size)
	}
}

func seekEnd(f *os.File, size int64) error {
	_, err := f.Seek(size, io.SeekStart)
	return err
}

// loadBase reads the frames of the base, up to and including its end.
func loadBase(in io.Reader, buf *[]byte, pos record.Position, into Loader) error {
	var count, want, hash uint64
	var fault error
	into.Base(pos, func(yield func(record.Entry) bool) {
		for {
			kind, payload, err := readFrame(in, buf)
			r := reader{b: payload}
			switch {
			case err != nil:
				fault = fmt.Errorf("%w: base is incomplete", ErrCorrupt)
				return
			case kind == frameEnd:
				if want, hash = r.uint(), r.uint(); r.bad {
					fault = ErrCorrupt
				}
				return
			case kind != frameEntries:
				continue // of a newer version
			}
			for len(r.b) > 0 {
				e := r.entry()
				if r.bad {
					fault = ErrCorrupt
					return
				}
				if count++; !yield(e) {
					fault = errors.New("not all entries were taken")
					return
				}
			}
		}
	})
	if fault == nil && count != want {
		fault = fmt.Errorf("%w: %d entries of %d", ErrCorrupt, count, want)
	}
	if fault != nil {
		return fault
	}
	return into.Commit(hash)
}

// Replace writes the whole state and makes it durable.
func (file *File) Replace(head Head, s State) (err error) {
	f, err := os.CreateTemp(filepath.Dir(file.path), filepath.Base(file.path)+".*")
	if err != nil {
		return fmt.Errorf("snapshot: %w", err)
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("snapshot %s: %w", file.path, err)
			_ = f.Close()
			_ = os.Remove(f.Name())
		}
	}()
	w := bufio.NewWriterSize(f, chunk)
	payload := binary.AppendUvarint(appendText(appendText(nil, head.Member), head.Cluster), uint64(head.Serial))
	_, _ = w.WriteString(magic) // errors of w stick, and Flush returns them
	_, _ = w.Write(appendFrame(nil, frameHead, appendPosition(payload, s.Position)))
	var count uint64
	payload = payload[:0]
	var frame []byte
	flush := func() {
		frame = appendFrame(frame[:0], frameEntries, payload)
		_, _ = w.Write(frame)
		payload = payload[:0]
	}
	for e := range s.Entries {
		payload = appendEntry(payload, e)
		if count++; len(payload) > chunk {
			flush()
		}
	}
	flush()
	_, _ = w.Write(appendFrame(nil, frameEnd, binary.AppendUvarint(binary.AppendUvarint(nil, count), s.Hash)))
	if s.Gossip != nil {
		for g := range s.Gossip {
			_, _ = w.Write(appendFrame(nil, frameGossip, g))
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	size, err := f.Seek(0, io.SeekCurrent)
	if err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), file.path); err != nil {
		return err
	}
	if err := syncDir(filepath.Dir(file.path)); err != nil {
		return err
	}
	if file.f != nil {
		_ = file.f.Close()
	}
	file.f, file.base, file.size = f, size, size
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// ErrRewrite is returned by Append when the file has to be replaced: it was
// never written, its last write failed, or its batches outgrew its base.
var ErrRewrite = errors.New("snapshot must be written anew")

// Append adds a batch of changes and makes it durable.
func (file *File) Append(prev, pos record.Position, entries []record.Entry) error {
	payload := appendPosition(appendPosition(nil, prev), pos)
	for _, e := range entries {
		payload = appendEntry(payload, e)
	}
	return file.append(frameChange, payload, true)
}

// AppendGossip adds a frame for Loader.Gossip, without waiting for the disk.
func (file *File) AppendGossip(frame []byte) error {
	return file.append(frameGossip, frame, false)
}

// AppendSerial adds the zones' serial, without waiting for the disk.
func (file *File) AppendSerial(serial uint32) error {
	return file.append(frameSerial, binary.AppendUvarint(nil, uint64(serial)), false)
}

func (file *File) append(kind byte, payload []byte, durable bool) error {
	if file.f == nil || len(payload) > maxFrame || file.size-file.base > max(file.base, minJournal) {
		return ErrRewrite
	}
	frame := appendFrame(nil, kind, payload)
	_, err := file.f.WriteAt(frame, file.size)
	if err == nil && durable {
		err = file.f.Sync()
	}
	if err != nil {
		// Nobody knows what the file holds now (a failed flush drops pages).
		_ = file.f.Close()
		file.f = nil
		return fmt.Errorf("%w: %w", ErrRewrite, err)
	}
	file.size += int64(len(frame))
	return nil
}

// Close closes the file. It is complete as it is.
func (file *File) Close() error {
	if file.f == nil {
		return nil
	}
	f := file.f
	file.f = nil
	return f.Close()
}
