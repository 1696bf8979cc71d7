package fluid

import (
	"context"
	"log/slog"
)

// logHandler writes the lines of a structured logger to CoreDNS's log.
type logHandler struct{ attrs string }

// Enabled implements slog.Handler.
func (logHandler) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelInfo }

// Handle implements slog.Handler.
func (h logHandler) Handle(_ context.Context, r slog.Record) error {
	line := r.Message + h.attrs
	r.Attrs(func(a slog.Attr) bool {
		line += " " + a.String()
		return true
	})
	switch {
	case r.Level >= slog.LevelError:
		log.Errorf("mesh: %s", line)
	case r.Level >= slog.LevelWarn:
		log.Warningf("mesh: %s", line)
	default:
		log.Infof("mesh: %s", line)
	}
	return nil
}

// WithAttrs implements slog.Handler.
func (h logHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	for _, a := range attrs {
		h.attrs += " " + a.String()
	}
	return h
}

// WithGroup implements slog.Handler.
func (h logHandler) WithGroup(string) slog.Handler { return h }
