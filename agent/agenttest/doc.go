// Package agenttest tests the whole: agents and CoreDNS as real processes on
// loopback ports that the kernel chooses, registered with over HTTP, asked by
// DNS, and killed. It holds tests only.
package agenttest
