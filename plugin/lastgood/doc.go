// Package lastgood keeps the last state that was known to be good on disk, so
// that a server can answer after a reboot with nobody to ask.
//
// A file is a base, the whole state at one position, followed by the batches
// of changes since. Every frame of it carries a checksum. The base is written
// aside, flushed and renamed, so a crash leaves the old file or the new one;
// a batch is appended and flushed, so a crash can tear the last one only,
// which is then cut off. When the batches outgrow the base the file is
// written anew.
//
// Writing and reading are not safe for concurrent use on one File.
package lastgood
