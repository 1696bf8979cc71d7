package feed

import (
	"fmt"
	"strings"
	"time"

	"github.com/fluid-sd/fluid/plugin/feed/feedpb"
	"github.com/fluid-sd/fluid/plugin/record"
)

// Limits of what crosses the socket. gRPC refuses messages above 4 MiB, so
// everything that can be larger is cut into parts.
const (
	// MaxRelayFrame is the size of the largest relay frame, in bytes.
	MaxRelayFrame = 64 << 20

	maxMessage   = 4 << 20
	partBytes    = 256 << 10 // a part is sent once it holds this much
	maxKey       = 1 << 10
	maxValue     = 1 << 20
	maxStaged    = 2 << 30 // bytes of a snapshot or batch that a client stages
	maxVector    = 1 << 16
	maxText      = 255
	maxZones     = 256
	maxClientTTL = 365 * 24 * time.Hour
	entryCost    = 64 // bytes that an entry takes besides key and value
)

func positionPB(p record.Position) *feedpb.Position {
	return &feedpb.Position{Generation: p.Generation, Index: p.Index}
}

// position reads a position; a missing one is zero.
func position(p *feedpb.Position) record.Position {
	return record.Position{Generation: p.GetGeneration(), Index: p.GetIndex()}
}

func entryPB(e record.Entry) *feedpb.Entry {
	pb := &feedpb.Entry{Key: []byte(e.Key), Index: e.Index, Deleted: e.Deleted}
	if !e.Deleted {
		pb.Value = []byte(e.Value)
	}
	return pb
}

// entrySize is about what an entry takes on the wire and in memory.
func entrySize(e record.Entry) int { return len(e.Key) + len(e.Value) + entryCost }

// entry reads an entry that changed after from and not after to.
func entry(pb *feedpb.Entry, from, to uint64) (record.Entry, error) {
	switch {
	case len(pb.GetKey()) < 3 || len(pb.GetKey()) > maxKey || pb.GetKey()[1] != '/':
		return record.Entry{}, fmt.Errorf("%w: entry key %s", ErrInvalid, shown(string(pb.GetKey())))
	case len(pb.GetValue()) > maxValue:
		return record.Entry{}, fmt.Errorf("%w: value of %s is %d bytes", ErrInvalid, shown(string(pb.GetKey())), len(pb.GetValue()))
	case pb.GetDeleted() && len(pb.GetValue()) > 0:
		return record.Entry{}, fmt.Errorf("%w: removal of %s has a value", ErrInvalid, shown(string(pb.GetKey())))
	case pb.GetIndex() <= from || pb.GetIndex() > to:
		return record.Entry{}, fmt.Errorf("%w: %s has index %d, outside (%d,%d]", ErrInvalid, shown(string(pb.GetKey())), pb.GetIndex(), from, to)
	}
	return record.Entry{
		Key:     record.Key(pb.GetKey()),
		Value:   string(pb.GetValue()),
		Index:   pb.GetIndex(),
		Deleted: pb.GetDeleted(),
	}, nil
}

func vectorPB(v Vector) []*feedpb.Watermark {
	out := make([]*feedpb.Watermark, 0, min(len(v), maxVector))
	for i := range v[:min(len(v), maxVector)] {
		out = append(out, &feedpb.Watermark{Origin: v[i].Origin[:], Epoch: v[i].Epoch, Watermark: v[i].Seq})
	}
	return out
}

func vector(pb []*feedpb.Watermark) (Vector, error) {
	if len(pb) > maxVector {
		return nil, fmt.Errorf("%w: vector of %d origins exceeds %d", ErrInvalid, len(pb), maxVector)
	}
	v := make(Vector, 0, len(pb))
	for _, w := range pb {
		if len(w.GetOrigin()) != len(record.OriginID{}) {
			return nil, fmt.Errorf("%w: origin of %d bytes", ErrInvalid, len(w.GetOrigin()))
		}
		v = append(v, Watermark{Origin: record.OriginID(w.GetOrigin()), Epoch: w.GetEpoch(), Seq: w.GetWatermark()})
	}
	return v, nil
}

func heartbeatPB(hb Heartbeat) *feedpb.Heartbeat {
	return &feedpb.Heartbeat{
		ClusterId:   hb.ClusterID,
		Commit:      positionPB(hb.Commit),
		Applied:     positionPB(hb.Applied),
		Hash:        hb.Hash,
		LeaderKnown: hb.LeaderKnown,
		LagMs:       millis(hb.Lag),
		Behind:      hb.Behind,
	}
}

func heartbeat(pb *feedpb.Heartbeat) (Heartbeat, error) {
	if err := checkText("cluster id", pb.GetClusterId()); err != nil {
		return Heartbeat{}, err
	}
	return Heartbeat{
		ClusterID:   pb.GetClusterId(),
		Commit:      position(pb.GetCommit()),
		Applied:     position(pb.GetApplied()),
		Hash:        pb.GetHash(),
		LeaderKnown: pb.GetLeaderKnown(),
		Lag:         duration(pb.GetLagMs()),
		Behind:      pb.GetBehind(),
	}, nil
}

// millis is d in whole milliseconds, rounded up so that a TTL is never
// reported smaller than it is.
func millis(d time.Duration) uint64 {
	d = min(max(d, 0), maxClientTTL)
	return uint64((d + time.Millisecond - 1) / time.Millisecond)
}

func duration(ms uint64) time.Duration {
	return time.Duration(min(ms, uint64(maxClientTTL/time.Millisecond))) * time.Millisecond
}

// checkMemberID accepts what a durable member id can be: 1 to 64 letters,
// digits and ".", "_", ":", "-".
func checkMemberID(id string) error {
	ok := id != "" && len(id) <= 64 && strings.IndexFunc(id, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("._:-", r)
	}) < 0
	if !ok {
		return fmt.Errorf("%w: member id %s; use 1 to 64 letters, digits, dots, colons, hyphens and underscores", ErrInvalid, shown(id))
	}
	return nil
}

// checkText accepts up to 255 bytes of printable ASCII.
func checkText(what, s string) error {
	if len(s) > maxText || s != printable(s) {
		return fmt.Errorf("%w: %s %s", ErrInvalid, what, shown(s))
	}
	return nil
}

// printable replaces what is not printable ASCII, so that text of a peer can
// go into a log line or an error.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, s)
}

// shown quotes text of a peer, printable and shortened.
func shown(s string) string {
	if len(s) > 64 {
		s = s[:64] + "..."
	}
	return `"` + printable(s) + `"`
}

// reasons pairs each reason of a refusal with the error it stands for.
var reasons = []struct {
	reason feedpb.Refused_Reason
	err    error
}{
	{feedpb.Refused_REASON_PROTOCOL, ErrProtocol},
	{feedpb.Refused_REASON_CLUSTER, ErrCluster},
	{feedpb.Refused_REASON_IMPLEMENTATION, ErrImplementation},
	{feedpb.Refused_REASON_PEER, ErrPeer},
	{feedpb.Refused_REASON_BUSY, ErrBusy},
	{feedpb.Refused_REASON_INVALID, ErrInvalid},
}

// refusal reads the error that a server refused a session with.
func refusal(pb *feedpb.Refused) error {
	msg := pb.GetMessage()
	if len(msg) > 1024 {
		msg = msg[:1024]
	}
	for _, r := range reasons {
		if r.reason == pb.GetReason() {
			return &refusedError{kind: r.err, msg: printable(msg)}
		}
	}
	return &refusedError{kind: ErrBusy, msg: printable(msg)}
}

// refusedError is a refusal in the server's words, which name the kind.
type refusedError struct {
	kind error
	msg  string
}

func (e *refusedError) Error() string { return "refused: " + e.msg }
func (e *refusedError) Unwrap() error { return e.kind }
