// Package optional reads fields that only newer versions of a dependency have.
package optional

import (
	"fmt"
	"reflect"
)

// Labels returns the labels in the field of this name of the struct that s points to. Without such a field they are nil.
// A field of another type is an error.
func Labels(s any, field string) (map[string]string, error) {
	v := reflect.ValueOf(s).Elem().FieldByName(field)
	if !v.IsValid() {
		return nil, nil
	}
	labels, ok := v.Interface().(map[string]string)
	if !ok {
		return nil, fmt.Errorf("%s of %T is a %v and not labels", field, s, v.Type())
	}
	return labels, nil
}
