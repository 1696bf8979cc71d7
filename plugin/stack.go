package fluid

// makeRoom makes the goroutine's stack grow at once if less than 2 KiB of it
// are left.
//
// The DNS server starts a goroutine with a 2 KiB stack for each packet, and
// packing and sending a reply needs more than twice that below ServeDNS.
// Growing a stack adjusts each of its frames, which is a fifth of what an
// answer costs; here, before the writers and the packer have added theirs, it
// is half as many frames as in the middle of packing. Measured with
// build/benchdns it saves 4 to 10 % of the processor time of an answer.
//
//go:noinline
func makeRoom() {
	// The check for room comes before the first statement and is for the
	// whole frame, used or not.
	if roomNeeded {
		var room [2048]byte
		touch(room[:])
	}
}

// roomNeeded is false, which the compiler does not know.
var roomNeeded bool

//go:noinline
func touch(room []byte) { room[0] = 1 }
