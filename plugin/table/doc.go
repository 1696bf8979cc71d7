// Package table is tier 1: the memory that every answer is read from.
//
// A Map holds what is known, from name to value, and forgets nothing by
// itself. Answers holds what was already worked out from it, bounded, and may
// forget anything. Reading either takes no lock, waits for nobody and does not
// allocate, whatever writers do at the same time.
//
// A cached answer stays next to the Cell and the value it was made from. The
// reader compares the two, so replacing a value in the Map is all it takes to
// invalidate exactly the answers made from it, and no answer is ever older
// than the Map.
//
// The package knows nothing of DNS, services or clocks.
package table
