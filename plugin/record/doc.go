// Package record says what a service, an instance, a node and an overlay are,
// and when they are valid.
//
// Records are plain values. Every constructor of a record outside this package
// goes through Normalize, which puts a record into its one canonical form
// (lower case, sorted, without duplicates), and Validate, which returns a
// *FieldError that names the field and the fix. Append and Decode turn a
// record into bytes and back; the bytes are the same on every machine for
// equal records, and fields that a newer version added survive a round trip
// through an older one unchanged.
//
// The package imports the standard library only, starts no goroutine and
// reads no clock. Values are safe for concurrent reading; it never writes to
// a value after returning it.
package record
