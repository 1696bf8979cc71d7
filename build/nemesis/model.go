package main

import (
	"cmp"
	"fmt"

	"github.com/anishathalye/porcupine"
)

// kind is what an operation does to its key: one instance of one service, or
// one overlay.
type kind uint8

const (
	get kind = iota
	put
	del
)

// input is an operation as the client asks for it.
type input struct {
	kind    kind
	key     string // the service, or the id of the overlay
	overlay bool   // an overlay is placed, looked up or lifted, not an instance
	value   uint16 // the port that put registers; 1 for an overlay
}

// output is what the client learned.
type output struct {
	unknown bool   // a write that may or may not be done, then or later
	found   bool   // get, del: the instance was there
	value   uint16 // get: its port
}

// state is an instance or an overlay: 0 if there is none, else its port, or 1.
type state = uint16

// registry is the specification: each key is a register that can be deleted.
var registry = porcupine.Model{
	Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
		byKey := map[string][]porcupine.Operation{}
		var order []string
		for _, op := range history {
			key := op.Input.(input).key
			if byKey[key] == nil {
				order = append(order, key)
			}
			byKey[key] = append(byKey[key], op)
		}
		parts := make([][]porcupine.Operation, len(order))
		for i, key := range order {
			parts[i] = byKey[key]
		}
		return parts
	},
	Init: func() any { return state(0) },
	Step: func(s, in, out any) (bool, any) {
		was, op, saw := s.(state), in.(input), out.(output)
		switch op.kind {
		case put:
			return true, op.value
		case del:
			return saw.unknown || saw.found == (was != 0), state(0)
		}
		return saw.found == (was != 0) && saw.value == was, was
	},
	Equal: func(a, b any) bool { return cmp.Compare(a.(state), b.(state)) == 0 },
	DescribeOperation: func(in, out any) string {
		op, saw := in.(input), out.(output)
		result := "ok"
		switch {
		case saw.unknown:
			result = "unknown"
		case op.kind != put && !saw.found:
			result = "none"
		case op.kind == get:
			result = fmt.Sprint(saw.value)
		}
		switch op.kind {
		case put:
			return fmt.Sprintf("put %d: %s", op.value, result)
		case del:
			return "delete: " + result
		}
		return "get: " + result
	},
	DescribeState: func(s any) string { return fmt.Sprint(s) },
}
