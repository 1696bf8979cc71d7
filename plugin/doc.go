// Package fluid is a CoreDNS plugin that answers for services from memory.
//
// One engine per process takes the state from the agent beside it, or from
// disk, and keeps it in tables; the handlers of all server blocks read those.
// A query waits for nobody: not for the agent, not for a writer, not for
// another query. What is known goes on being answered when the agent is gone.
//
// The engine outlives reloads of the Corefile: see lessor. Nothing is bound,
// dialled or started before OnStartup.
package fluid
