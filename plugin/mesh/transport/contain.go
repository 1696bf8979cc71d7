package transport

import (
	"fmt"
	"log/slog"
	"runtime/debug"
)

// contain is deferred by what reads bytes from outside. A panic becomes an
// error, which is counted and ends the stream, and not the process, which
// answers DNS.
func contain(log *slog.Logger, err *error) {
	if p := recover(); p != nil {
		log.Error("reading what a peer sent panicked", "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
		*err = refuse(ReasonPanic, "panic: %v", p)
	}
}
