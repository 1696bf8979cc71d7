//go:build !race

package agenttest

// raceFlag makes the programs under test detect races when the tests do.
const raceFlag = "-race=false"
