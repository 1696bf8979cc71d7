package agent

import (
	"context"
	"errors"
	"fmt"
)

// stack is what to undo, last in first out.
type stack struct{ steps []step }

type step struct {
	name string
	undo func(context.Context) error
}

// push adds a step on the line after what it undoes was done.
func (s *stack) push(name string, undo func(context.Context) error) {
	s.steps = append(s.steps, step{name, undo})
}

// unwind runs all steps and joins their errors. A step that does not end by
// the time ctx does is left behind, so that one stuck part cannot keep the
// others from ending.
func (s *stack) unwind(ctx context.Context) error {
	var errs []error
	for len(s.steps) > 0 {
		last := s.steps[len(s.steps)-1]
		s.steps = s.steps[:len(s.steps)-1]
		done := make(chan error, 1)
		go func() { done <- last.undo(ctx) }()
		select {
		case err := <-done:
			if err != nil {
				errs = append(errs, fmt.Errorf("stop %s: %w", last.name, err))
			}
		case <-ctx.Done():
			errs = append(errs, fmt.Errorf("stop %s: %w", last.name, ctx.Err()))
		}
	}
	return errors.Join(errs...)
}
