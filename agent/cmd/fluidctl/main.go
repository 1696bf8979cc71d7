// Command fluidctl registers applications with a Fluid agent and shows what
// is registered, what DNS answers, and how the cluster is.
//
// Exit codes: 0 done, 1 refused or not reachable, 2 wrong usage, 3 done but
// not everywhere within the time given.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
)

const (
	exitFailed  = 1
	exitUsage   = 2
	exitLagging = 3
)

func main() { os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }

// run is the program without the process around it.
func run(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	root := newRoot(&ctl{stdin: stdin, stdout: stdout, stderr: stderr})
	root.SetArgs(rewrite(root, args))
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	if ee, ok := errors.AsType[*exitError](err); ok {
		if ee.err != nil {
			complain(stderr, ee.err)
		}
		return ee.code
	}
	complain(stderr, err)
	return exitFailed
}

func complain(w io.Writer, err error) {
	for line := range strings.Lines(err.Error()) {
		// An agent's "body.ip: ..." names a field of JSON that nobody wrote.
		_, _ = fmt.Fprintln(w, "fluidctl:", strings.TrimPrefix(strings.TrimSuffix(line, "\n"), "body."))
	}
}

// exitError is an error with the exit code it deserves. A nil err says that
// everything was printed already.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit code %d", e.code)
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

func usageError(format string, args ...any) error {
	return &exitError{exitUsage, fmt.Errorf(format, args...)}
}
