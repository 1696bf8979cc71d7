package mesh

import "github.com/fluid-sd/fluid/plugin/catalog"

// receive takes in a frame. Anything malformed is counted and dropped.
func (e *engine) receive(now int64, c *catalog.Catalog, from string, frame []byte) {
	e.stats.FramesIn++
	e.stats.BytesIn += uint64(len(frame))
	if len(frame) == 0 || len(frame) > maxFrame {
		e.drop("malformed")
		return
	}
	var err error
	switch body := frame[1:]; frame[0] {
	case framePush, frameData:
		err = e.onDeltas(now, c, from, frame[0] == framePush, body)
	case frameHave:
		err = e.onHave(now, c, from, body)
	case frameDigest:
		err = e.onDigest(c, from, body)
	case frameHeads:
		err = e.onHeads(now, c, from, body)
	case framePull:
		err = e.onPull(c, from, body)
	case frameBatch:
		err = e.onBatch(now, c, from, body)
	case frameFetch:
		err = e.onFetch(now, c, from, body)
	case frameAsk:
		err = e.onAsk(c, from, body)
	case frameSurvey:
		err = e.onSurvey(now, c, from, body)
	case frameReports:
		err = e.onReports(from, body)
	case frameBeacon:
		err = e.onBeacons(now, c, body)
	default:
		e.drop("unknown")
	}
	if err != nil {
		e.drop(dropReason(err))
	}
}

// onDeltas merges what a peer sent; what was new goes on once, unless it is
// part of catching up with much.
func (e *engine) onDeltas(now int64, c *catalog.Catalog, from string, push bool, body []byte) error {
	end, rest, err := cutEnding(body)
	if err != nil {
		return err
	}
	for len(rest) > 0 {
		var b []byte
		if b, rest, err = cutDelta(rest); err != nil {
			return err
		}
		if c.Known(b) {
			continue // each change comes from several sides
		}
		d := &catalog.Delta{}
		if *d, err = catalog.DecodeDelta(b); err != nil {
			return err
		}
		res, err := c.Merge(now, d)
		if err != nil {
			e.drop(dropReason(err))
			continue
		}
		if res.Cloned && e.onClone != nil {
			e.onClone(d.Origin)
		}
		e.join(res.Changes)
		if !res.Learned {
			continue
		}
		if p := e.pulls[d.Origin]; p != nil {
			p.came, p.vain = true, 0
		}
		if e.onLearned != nil {
			e.onLearned(d.Origin)
		}
		if d.ResetTo != 0 {
			e.stats.Resets++
		}
		anew := e.repaired(c, d.Origin)
		if push || end == endAll && len(body) <= pushBytes && !anew {
			e.learned(now, d)
		} else {
			e.moved[d.Origin] = now
		}
		e.check(now, c, from, catalog.Head{Origin: d.Origin, Epoch: d.Epoch, Nonce: d.Nonce, Watermark: d.To}, gapPatience)
	}
	if end != endNot {
		e.answered(now, c, from, end == endPart)
	}
	return nil
}
