package record

import (
	"errors"
	"fmt"
)

var (
	// ErrTooLarge is wrapped by the FieldError of a record, or a part of one,
	// that exceeds a limit of this package.
	ErrTooLarge = errors.New("too large")
	// ErrMalformed is returned by the decoders for bytes that no encoder of
	// this package wrote.
	ErrMalformed = errors.New("malformed record")
)

// FieldError reports one field of a record that is not valid.
type FieldError struct {
	Field   string // path of the field in the JSON form, for example "tags[2]"
	Value   string // the value refused, shortened
	Problem string // what is wrong with it
	Fix     string // what would be accepted
	Err     error  // ErrTooLarge for an exceeded limit, else nil
}

// Error returns the field, the problem and the fix on one line.
func (e *FieldError) Error() string {
	if e.Value == "" {
		return fmt.Sprintf("%s: %s; %s", e.Field, e.Problem, e.Fix)
	}
	return fmt.Sprintf("%s: %q %s; %s", e.Field, e.Value, e.Problem, e.Fix)
}

// Unwrap returns the limit error, if the field exceeded one.
func (e *FieldError) Unwrap() error { return e.Err }

const maxShown = 64 // bytes of a refused value that an error repeats

func invalid(field, value, problem, fix string) *FieldError {
	if len(value) > maxShown {
		value = value[:maxShown] + "..."
	}
	return &FieldError{Field: field, Value: value, Problem: problem, Fix: fix}
}

func tooLarge(field string, got, limit int, unit string) *FieldError {
	return &FieldError{
		Field:   field,
		Problem: fmt.Sprintf("%d %s exceed the limit of %d", got, unit, limit),
		Fix:     fmt.Sprintf("keep it to %d %s", limit, unit),
		Err:     ErrTooLarge,
	}
}
