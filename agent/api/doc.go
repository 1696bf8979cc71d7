// Package api is the HTTP interface of an agent, both ends: the Handler that
// an agent serves and the Client that fluidctl uses. The JSON shapes, the
// headers and the table between errors and status codes are written once, for
// both.
//
// The handler is served twice: on the address of FLUID_HTTP_BIND, where a
// token can guard it, and on admin.sock, where the permissions of the socket
// do. It keeps no state besides its metrics; everything else is asked of the
// interfaces in Config, which may be called from any number of goroutines.
//
// Consistency. A write that was answered 200 or 201 is committed. One that
// was answered 503 with type "urn:fluid:unavailable" was not done; with
// "urn:fluid:unknown-outcome" it may have been, and is safe to repeat with
// the same Idempotency-Key. Reads show what this agent has applied; the
// headers X-Fluid-Index, X-Fluid-Stale and Age say how old that is.
package api
