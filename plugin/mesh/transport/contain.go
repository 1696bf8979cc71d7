package transport

import "runtime/debug"

// contain is deferred by what reads bytes from outside. A panic becomes an
// error, which is counted and ends the stream, and not the process, which
// answers DNS.
func contain(err *error) {
	if p := recover(); p != nil {
		*err = refuse(ReasonPanic, "panic: %v\n%s", p, debug.Stack())
	}
}
