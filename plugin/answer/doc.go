// Package answer says what a zone answers: it turns the view of a service, or
// a node, into resource records.
//
// It is a function of the zone's settings, the question and the data, without
// clock, lock or network, so an answer may be kept for as long as the data it
// came from is current. What differs from query to query is applied afterwards
// and is cheap: Draw puts instances into a weighted random order, Fit cuts a
// message to the client's buffer.
//
// Answers and the zone's own records are immutable and shared between queries.
// Every slice handed out has no spare capacity, because other plugins append
// to the sections of a message.
package answer
