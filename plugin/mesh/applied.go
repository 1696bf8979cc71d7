package mesh

import (
	"context"
	"encoding/binary"
	"slices"
	"time"

	"github.com/fluid-sd/fluid/plugin/catalog"
	"github.com/fluid-sd/fluid/plugin/record"
)

// Report says how far a DNS member is. It is a value.
type Report struct {
	ID      string          // durable id of the DNS member
	Applied record.Position // what its lookups see, and its disk holds if it has one
	TTL     time.Duration   // the largest that answers of its can have in other caches, in milliseconds
}

const (
	surveyEvery = 500 * time.Millisecond // then those that did not answer are asked again
	surveyFor   = 2000                   // milliseconds for which a question is remembered
	maxSurveys  = 256                    // questions remembered at once
	maxReports  = 256                    // reports of one member
	maxTTL      = 365 * 24 * time.Hour
)

// question is a member's question how far the DNS members here are.
type question struct {
	at    record.Position
	until int64
}

// survey is a question to others: what each of them answered last.
type survey struct {
	at      record.Position
	answers map[string][]Report // by member; none: it did not answer
}

// open reports whether something of a member may be below at.
func (s *survey) open() bool {
	for _, reports := range s.answers {
		if !answered(reports, s.at) {
			return true
		}
	}
	return false
}

// setReports takes note of how far the DNS members here are, and tells those
// that asked.
func (e *engine) setReports(now int64, reports []Report) {
	if len(reports) > maxReports {
		reports = reports[:maxReports]
	}
	e.reports = slices.Clone(reports)
	for id, q := range e.questions {
		if q.until < now || !e.knows(id) {
			delete(e.questions, id)
			continue
		}
		e.answer(id, q.at)
	}
}

// answer tells a member how far the DNS members here are, if that is known,
// and forgets its question once they are all as far as it asked.
func (e *engine) answer(to string, at record.Position) {
	if e.reports == nil {
		return
	}
	e.send(to, appendReports([]byte{frameReports}, e.reports), urgentControl)
	if reached(e.reports, at) {
		delete(e.questions, to)
	}
}

func reached(reports []Report, at record.Position) bool {
	return !slices.ContainsFunc(reports, func(r Report) bool { return r.Applied.Before(at) })
}

// onSurvey answers a question at once, and again when there is news. Who is
// behind what the other asks for has something to fetch.
func (e *engine) onSurvey(now int64, c *catalog.Catalog, from string, body []byte) error {
	at, rest, err := cutPosition(body)
	if err != nil || len(rest) > 0 {
		return errFrame
	}
	if _, old := e.questions[from]; old || len(e.questions) < maxSurveys {
		e.questions[from] = question{at: at, until: now + surveyFor}
	}
	e.answer(from, at)
	e.behind(now, c, from, at)
	return nil
}

// onReports takes in an answer, if there was a question.
func (e *engine) onReports(from string, body []byte) error {
	if len(e.surveys) == 0 {
		return nil
	}
	reports, err := decodeReports(body)
	if err != nil {
		return err
	}
	for s := range e.surveys {
		if _, asked := s.answers[from]; asked {
			s.answers[from] = reports
		}
	}
	return nil
}

// answered reports whether an answer needs no other: it came, and says that
// everything is reached.
func answered(reports []Report, at record.Position) bool {
	return reports != nil && reached(reports, at)
}

// beginSurvey begins to ask members how far their DNS members are.
func (e *engine) beginSurvey(at record.Position, ids []string) *survey {
	s := &survey{at: at, answers: make(map[string][]Report, len(ids))}
	for _, id := range ids {
		if id != e.self {
			s.answers[id] = nil
		}
	}
	e.surveys[s] = true
	return s
}

// ask asks those that have not answered well enough.
func (s *survey) ask(e *engine) {
	body := appendPosition([]byte{frameSurvey}, s.at)
	for id, old := range s.answers {
		if !answered(old, s.at) && e.knows(id) {
			e.send(id, body, urgentControl)
		}
	}
}

// appendReports and decodeReports are the body of frameReports.
func appendReports(b []byte, reports []Report) []byte {
	b = binary.AppendUvarint(b, uint64(len(reports)))
	for _, r := range reports {
		b = binary.AppendUvarint(b, uint64(len(r.ID)))
		b = append(b, r.ID...)
		b = appendPosition(b, r.Applied)
		b = binary.AppendUvarint(b, uint64(max(r.TTL, 0)/time.Millisecond))
	}
	return b
}

func decodeReports(b []byte) ([]Report, error) {
	n, k := binary.Uvarint(b)
	if k <= 0 || n > maxReports {
		return nil, errFrame
	}
	b = b[k:]
	reports := make([]Report, 0, n)
	for range n {
		size, k := binary.Uvarint(b)
		if k <= 0 || size == 0 || size > maxID || size > uint64(len(b)-k) {
			return nil, errFrame
		}
		r := Report{ID: string(b[k : k+int(size)])}
		var err error
		if r.Applied, b, err = cutPosition(b[k+int(size):]); err != nil {
			return nil, err
		}
		ms, k := binary.Uvarint(b)
		if k <= 0 || ms > uint64(maxTTL/time.Millisecond) {
			return nil, errFrame
		}
		r.TTL, b = time.Duration(ms)*time.Millisecond, b[k:]
		reports = append(reports, r)
	}
	if len(b) > 0 {
		return nil, errFrame
	}
	return reports, nil
}

// Report implements Mesh.
func (g *gossip) Report(reports []Report) {
	if g.isClosed() {
		return
	}
	g.do(func(now int64, _ *catalog.Catalog) { g.eng.setReports(now, reports) })
}

// Applied implements Mesh.
func (g *gossip) Applied(ctx context.Context, at record.Position, ids []string) []Report {
	var s *survey
	g.do(func(int64, *catalog.Catalog) { s = g.eng.beginSurvey(at, ids) })
	defer g.do(func(int64, *catalog.Catalog) { delete(g.eng.surveys, s) })
	again := time.NewTicker(surveyEvery)
	defer again.Stop()
	for ask := true; ; {
		g.mu.Lock()
		changed := g.holders
		g.mu.Unlock()
		if ask {
			g.do(func(int64, *catalog.Catalog) { s.ask(g.eng) })
		}
		g.step.Lock()
		open := s.open()
		var out []Report
		for _, reports := range s.answers {
			out = append(out, reports...)
		}
		g.step.Unlock()
		if !open {
			return out
		}
		ask = false
		select {
		case <-changed:
		case <-again.C:
			ask = true
		case <-g.stop:
			return out
		case <-ctx.Done():
			return out
		}
	}
}

// Report implements Mesh.
func (m *member) Report(reports []Report) {
	m.hub.mu.Lock()
	defer m.hub.mu.Unlock()
	m.reports = slices.Clone(reports)
	if m.hub.reported != nil {
		close(m.hub.reported)
		m.hub.reported = nil
	}
}

// Applied implements Mesh.
func (m *member) Applied(ctx context.Context, at record.Position, ids []string) []Report {
	for {
		var out []Report
		open := len(ids)
		m.hub.mu.Lock()
		for _, o := range m.hub.others(m) {
			if slices.Contains(ids, o.cfg.ID) {
				out = append(out, o.reports...)
				if answered(o.reports, at) {
					open--
				}
			}
		}
		if m.hub.reported == nil {
			m.hub.reported = make(chan struct{})
		}
		changed := m.hub.reported
		m.hub.mu.Unlock()
		if open == 0 {
			return out
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return out
		}
	}
}
