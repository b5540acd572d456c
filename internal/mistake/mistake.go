// Package mistake words what is wrong with an election's options, in the names of the layer that was given them: a field of
// elector.Options, an option of a controller-runtime manager, a flag.
package mistake

import (
	"errors"
	"fmt"
	"slices"
)

// A Field is the name of a field of elector.Options, such as "LeaseDuration". As an argument of In it stands for what the
// layer calls that field.
type Field string

// Names are a layer's names of fields. A Field without one keeps its own.
type Names map[Field]string

// An Error is what is wrong with one field.
type Error struct {
	field  Field
	format string
	args   []any
	names  Names // nil for those of elector.Options
}

// In returns an error about a field. The rest is as for fmt.Errorf.
func In(field Field, format string, args ...any) error {
	return &Error{field: field, format: format, args: args}
}

func (e *Error) Error() string {
	args := slices.Clone(e.args)
	for i, arg := range args {
		if other, ok := arg.(Field); ok {
			args[i] = e.name(other, "")
		}
	}
	return e.name(e.field, "Options.") + ": " + fmt.Errorf(e.format, args...).Error()
}

func (e *Error) name(f Field, prefix string) string {
	if name, ok := e.names[f]; ok {
		return name
	}
	return prefix + string(f)
}

// Unwrap returns the first error among the arguments, or nil.
func (e *Error) Unwrap() error {
	for _, arg := range e.args {
		if err, ok := arg.(error); ok {
			return err
		}
	}
	return nil
}

// Reword returns err with the mistakes in it by these names, and without the prefixes that other layers have put before
// them. Errors that hold no mistake stay as they are.
func Reword(err error, names Names) error {
	var e *Error
	if !errors.As(err, &e) {
		return err
	}
	switch err := err.(type) {
	case *Error:
		named := *err
		named.names = names
		return &named
	case interface{ Unwrap() []error }:
		var all []error
		for _, one := range err.Unwrap() {
			all = append(all, Reword(one, names))
		}
		return errors.Join(all...)
	default:
		return Reword(errors.Unwrap(err), names)
	}
}
