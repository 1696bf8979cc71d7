package pki

import "time"

// stage is how near the end of a certificate is.
type stage uint8

const (
	stageOK stage = iota
	stage30Days
	stage7Days
	stage1Day
	stageExpired
)

// limits are the times left at which the stages begin.
var limits = [...]time.Duration{
	stage30Days: 30 * 24 * time.Hour, stage7Days: 7 * 24 * time.Hour, stage1Day: 24 * time.Hour, stageExpired: 0,
}

// stageOf returns the stage of a certificate with so much time left, least at least.
func stageOf(left time.Duration, least stage) stage {
	for s := stageExpired; s > least; s-- {
		if left <= limits[s] {
			return s
		}
	}
	return least
}

// CheckExpiry logs a warning when less than 30, 7 and 1 days are left, and an
// error when none is: each once per certificate, however often it is called.
func (r *Reloader) CheckExpiry() {
	r.mu.Lock()
	defer r.mu.Unlock()
	m := r.current.Load()
	left := m.notAfter.Sub(r.now())
	s := stageOf(left, r.warned)
	if s == r.warned {
		return
	}
	r.warned = s
	attrs := []any{"cert", r.files.Cert, "expires", m.notAfter, "left", left.Round(time.Minute).String()}
	if s == stageExpired {
		r.log.Error("certificate has expired: other agents refuse this one until it is replaced", attrs...)
		return
	}
	r.log.Warn("certificate expires soon: put a new one in its place, it is read without a restart", attrs...)
}
